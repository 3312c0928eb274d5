"""Semantic segmentation, for which every pixel has a class: iSAID, its patches, and the data module around them."""
