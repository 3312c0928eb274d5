"""The activation map itself as the mask: what the proposals have to beat."""

from dataclasses import dataclass

import numpy as np

from s4eca.dgl_rsis.grounding.activation import KINDS, fuse
from s4eca.dgl_rsis.parts import Evidence, Selection
from s4eca.dgl_rsis.selection.checks import check_choice, check_number, check_switch
from s4eca.dgl_rsis.selection.outcome import FLAT_MAP, is_flat, join, threshold_map


@dataclass(frozen=True)
class ThresholdSelector:
    """Takes the pixels where the upsampled activation map is high; no proposal is looked at.

    The mask is empty where the map is flat, with the fallback `flat map`, and nowhere else.

    Args:
        map: kind of activation map: `mul`, `add`, `local`, `whole` or `average`.
        lam: weight of the context's map in `mul` and `add`.
        threshold: least activation, above 0 and at most 1.
        largest_component: whether only the largest connected part is kept.

    Raises:
        S4ecaError: a setting out of range.
    """

    map: str = "mul"
    lam: float = 1.0
    threshold: float = 0.5
    largest_component: bool = False

    def __post_init__(self) -> None:
        check_choice("map", self.map, KINDS)
        check_number("lam", self.lam, 0)
        check_number("threshold", self.threshold, 0, 1, above=True)
        check_switch("largest_component", self.largest_component)

    def select(self, evidence: Evidence) -> Selection:
        """Returns the mask of an expression; every proposal's score is 0."""
        activation, fallback = fuse(evidence.maps, evidence.phrase, self.map, self.lam)
        flat = FLAT_MAP if is_flat(activation) else None
        mask = threshold_map(
            activation, evidence.proposals.size, self.threshold, largest_component=self.largest_component
        )
        scores = np.zeros(len(evidence.proposals), np.float32)
        return Selection(mask, (), scores, activation, join([flat, fallback]))
