"""DGL-RSIS (our re-implementation): training-free segmentation by decoupling what is local and what is global.

Xu et al., arXiv 2509.00598. The paper's body was not available: what its abstracts leave open is built from the closest
published methods, and every such choice is named where it is made.
"""
