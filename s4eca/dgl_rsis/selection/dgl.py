"""DGL-RSIS's selection: activation of pixels and class of masks joined into one score of each proposal."""

from dataclasses import dataclass

import numpy as np

from s4eca.dgl_rsis.grounding.activation import KINDS, fuse, normalise, spatial_prior
from s4eca.dgl_rsis.parts import Evidence, Proposals, Selection
from s4eca.dgl_rsis.selection.checks import check_choice, check_count, check_number, check_switch
from s4eca.dgl_rsis.selection.outcome import FLAT_MAP, SCREENED, SCREENS, from_map, from_proposals, is_flat
from s4eca.dgl_rsis.selection.scores import (
    SCALES,
    activation_shares,
    class_probabilities,
    count_bits,
    rescale,
    touches_peak,
)

NO_KNOWN_NOUN = "no known noun"


@dataclass(frozen=True)
class DglSelector:
    """Joins where the words look (global) and what a mask is (local).

    The paper (arXiv 2509.00598, abstract) integrates "pixel-level Grad-CAM activations into the mask-level"
    output; the formula is our reconstruction. For each proposal k that passes the screens::

        s_glob = inside + coverage_weight · coverage - outside      (of the activation map)
        s_loc  = softmax(tau · cosine with each class)[head noun]
        S      = alpha · R(s_glob) + (1 - alpha) · R(s_loc) + peak_bonus · [k touches the map's peak]

    R puts the values of the proposals that pass on a scale from 0 to 1; proposals that do not pass have the score -1.

    Fallbacks, joined by "; " where there are several:

    - `no proposal`: the mask is the largest part of the map from 0.5 up. It is empty where the map is flat as well
      (`no proposal; flat map`), and in no other case.
    - `flat map`: the map tells nothing; `S = R(s_loc)`.
    - `screens`: no proposal passes; all are taken to.
    - `no known noun`: the head noun is no class of the text bank; s_loc is the cosine with the noun phrase.
    - what `fuse` had to do for want of words.

    Args:
        map: kind of activation map: `mul`, `add`, `local`, `whole` or `average`.
        lam: weight of the context's map in `mul` and `add`.
        alpha: share of the activation, from 0 (class alone) to 1 (activation alone).
        tau: what cosines are multiplied by before the softmax.
        coverage_weight: of the coverage in s_glob.
        normalise: R: `rank`, in which outliers do not count, or `minmax`.
        mode: `argmax` takes one proposal; `union` joins, the best first, all of the best one's class whose score is at
            least `union_ratio` of the best.
        union_ratio: above 0, at most 1.
        union_overlap: largest share that a proposal and the mask so far may have in common, of the smaller of the two,
            for the proposal to be joined. At 1 all are that bring a new pixel; less leaves out other outlines of what
            is there already.
        peak_bonus: added where a proposal has a pixel in the strongest cell or one of its neighbours.
        max_components: most connected parts of a proposal that passes.
        min_area: fewest pixels of one.
        max_share: largest share of the image of one.
        spatial_prior: whether the map is weighted by the absolute place that the expression names. No part of the
            method: results with it are an extension.

    Raises:
        S4ecaError: a setting out of range.
    """

    map: str = "mul"
    lam: float = 1.0
    alpha: float = 0.6
    tau: float = 100.0
    coverage_weight: float = 0.5
    normalise: str = "rank"
    mode: str = "argmax"
    union_ratio: float = 0.85
    union_overlap: float = 1.0
    peak_bonus: float = 0.1
    max_components: int = 12
    min_area: int = 16
    max_share: float = 0.9
    spatial_prior: bool = False

    def __post_init__(self) -> None:
        check_choice("map", self.map, KINDS)
        check_number("lam", self.lam, 0)
        check_number("alpha", self.alpha, 0, 1)
        check_number("tau", self.tau, 0, above=True)
        check_number("coverage_weight", self.coverage_weight, 0)
        check_choice("normalise", self.normalise, SCALES)
        check_choice("mode", self.mode, ("argmax", "union"))
        check_number("union_ratio", self.union_ratio, 0, 1, above=True)
        check_number("union_overlap", self.union_overlap, 0, 1)
        check_number("peak_bonus", self.peak_bonus, 0)
        check_count("max_components", self.max_components, 1)
        check_count("min_area", self.min_area, 1)
        check_number("max_share", self.max_share, 0, 1, above=True)
        check_switch("spatial_prior", self.spatial_prior)

    def select(self, evidence: Evidence) -> Selection:
        """Returns the mask of an expression; of equal proposals the earlier one."""
        activation, map_fallback = fuse(evidence.maps, evidence.phrase, self.map, self.lam)
        if self.spatial_prior:
            rows, columns = activation.shape
            activation = normalise(activation * spatial_prior((rows, columns), evidence.phrase.place))
        if not len(evidence.proposals):
            return from_map(evidence, activation, [map_fallback])
        passed, screens = self._screen(evidence.proposals)
        local, noun_fallback = self._local(evidence)
        score, flat = rescale(local[passed], self.normalise), is_flat(activation)
        if not flat:
            shares = activation_shares(evidence.cells, evidence.proposals, activation)
            strength = shares.inside + self.coverage_weight * shares.coverage - shares.outside
            score = self.alpha * rescale(strength[passed], self.normalise) + (1 - self.alpha) * score
            score = score + self.peak_bonus * touches_peak(evidence.proposals, activation)[passed]
        scores = np.full(len(evidence.proposals), SCREENED, np.float32)
        scores[passed] = score
        chosen = [int(scores.argmax())] if self.mode == "argmax" else self._merge(evidence, scores)
        names = [FLAT_MAP if flat else None, screens, noun_fallback, map_fallback]
        return from_proposals(evidence, chosen, scores, activation, names)

    def _screen(self, proposals: Proposals) -> tuple[np.ndarray, str | None]:
        """Returns positions of the proposals that may be chosen."""
        largest = self.max_share * proposals.size[0] * proposals.size[1]
        fits = (proposals.areas >= self.min_area) & (proposals.areas <= largest)
        passed = np.flatnonzero(fits & (proposals.components <= self.max_components))
        return (passed, None) if len(passed) else (np.arange(len(proposals)), SCREENS)

    def _local(self, evidence: Evidence) -> tuple[np.ndarray, str | None]:
        """Returns how well each proposal fits the head noun (K,)."""
        if evidence.phrase.category in evidence.classes:
            column = evidence.classes.index(evidence.phrase.category)
            return class_probabilities(evidence.similarity, self.tau)[:, column], None
        # with decoupling off nobody has looked for a noun: the words as a whole are what was asked for
        return evidence.noun_phrase, NO_KNOWN_NOUN if evidence.phrase.head or evidence.phrase.fallback else None

    def _merge(self, evidence: Evidence, scores: np.ndarray) -> list[int]:
        """Returns positions of the proposals to be joined, the best first."""
        classes = evidence.similarity.argmax(axis=1)
        order = np.argsort(-scores, kind="stable")
        best = int(order[0])
        alike = (scores >= self.union_ratio * scores[best]) & (classes == classes[best]) & (scores >= 0)
        proposals, width = evidence.proposals, evidence.proposals.size[1]
        chosen, merged, area = [best], proposals.bits[best].copy(), int(proposals.areas[best])
        for place in order[alike[order]].tolist()[1:]:
            # the bytes that hold the rows of its box
            top, bottom = int(proposals.boxes[place, 1]), int(proposals.boxes[place, 3])
            rows = slice(top * width // 8, -(-bottom * width // 8))
            bits, own = proposals.bits[place, rows], int(proposals.areas[place])
            common = count_bits(bits & merged[rows])
            if common < own and common <= self.union_overlap * min(own, area):
                chosen.append(place)
                merged[rows] |= bits
                area += own - common
        return chosen
