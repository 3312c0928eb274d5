"""S4ECA (arXiv 2606.30244): language-driven adapters in two frozen towers. A reconstruction from its abstract.

How the parts meet: `text_query` turns words into a few language proxies inside the text tower; `dense_extractor` looks
at image features at several scales inside the vision tower; `selection` lets language choose the scale and the places;
`visual_adapter` puts the two into a bottleneck; `method` puts all of it into the walk.
"""

from s4eca.tuning.s4eca.dense_extractor import DenseExtractor
from s4eca.tuning.s4eca.method import S4ECA, TextSettings
from s4eca.tuning.s4eca.selection import ScaleSelection, SpatialSelection
from s4eca.tuning.s4eca.text_query import TextQueryAdapter
from s4eca.tuning.s4eca.visual_adapter import VisualAdapter, VisualSettings

__all__ = [
    "S4ECA",
    "DenseExtractor",
    "ScaleSelection",
    "SpatialSelection",
    "TextQueryAdapter",
    "TextSettings",
    "VisualAdapter",
    "VisualSettings",
]
