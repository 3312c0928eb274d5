"""IteRPrimE's rule: the proposal that holds the map's peak and has the highest mean activation."""

from dataclasses import dataclass

import numpy as np

from s4eca.dgl_rsis.grounding.activation import KINDS, fuse, iterprime_map
from s4eca.dgl_rsis.parts import Evidence, Selection
from s4eca.dgl_rsis.selection.checks import check_choice, check_count, check_number
from s4eca.dgl_rsis.selection.outcome import FLAT_MAP, SCREENED, SCREENS, from_map, from_proposals, is_flat
from s4eca.dgl_rsis.selection.scores import activation_shares, contains_pixel, peak_pixel

PEAK_OUTSIDE = "peak outside all proposals"


@dataclass(frozen=True)
class IterPrimeSelector:
    """Takes a proposal by the map alone (Wang et al., AAAI 2025; the formula is that of their published code).

    Of the proposals that hold the peak pixel (the centre of the strongest cell) and have no more than `max_components`
    parts, the one with the highest `Σ(M + M·G) / (|M| + 1e-5)` is taken, M the mask and G the upsampled map.

    Their code gives an empty mask where nothing passes. Here, with a fallback:

    - `screens`: all that hold the peak have too many parts; they may be chosen all the same.
    - `peak outside all proposals`: the highest score of all that have few enough parts, or of all (`screens` too).
    - `flat map`: there is no peak; the proposer's own score decides.
    - `no proposal`: the largest part of the map from 0.5 up; empty only where the map is flat too.

    Args:
        map: `iterprime` is the mean of the normalised maps of sentence, head noun and context, in the manner of theirs;
            or `mul`, `add`, `local`, `whole`, `average`.
        lam: weight of the context's map in `mul` and `add`.
        max_components: most connected parts.

    Raises:
        S4ecaError: a setting out of range.
    """

    map: str = "iterprime"
    lam: float = 1.0
    max_components: int = 12

    def __post_init__(self) -> None:
        check_choice("map", self.map, ("iterprime", *KINDS))
        check_number("lam", self.lam, 0)
        check_count("max_components", self.max_components, 1)

    def select(self, evidence: Evidence) -> Selection:
        """Returns the mask of an expression; of equal scores the larger proposal's, then the earlier one's."""
        proposals = evidence.proposals
        activation, fallback = self._activation(evidence)
        if not len(proposals):
            return from_map(evidence, activation, [fallback])
        if is_flat(activation):
            return from_proposals(
                evidence, [int(proposals.scores.argmax())], proposals.scores, activation, [FLAT_MAP, fallback]
            )
        sums = activation_shares(evidence.cells, proposals, activation).inside * proposals.areas
        scores = (proposals.areas + sums) / (proposals.areas + 1e-5)
        peak = contains_pixel(proposals, *peak_pixel(activation, proposals.size))
        held = peak if peak.any() else np.ones(len(proposals), bool)
        few = held & (proposals.components <= self.max_components)
        scores = np.where(few if few.any() else held, scores, SCREENED).astype(np.float32)
        # of equal means the formula prefers the larger proposal, by less than single precision can tell
        best = np.where(scores == scores.max(), proposals.areas, 0).argmax()
        names = [None if peak.any() else PEAK_OUTSIDE, None if few.any() else SCREENS, fallback]
        return from_proposals(evidence, [int(best)], scores, activation, names)

    def _activation(self, evidence: Evidence) -> tuple[np.ndarray, str | None]:
        if self.map == "iterprime":
            return iterprime_map(evidence.maps)
        return fuse(evidence.maps, evidence.phrase, self.map, self.lam)
