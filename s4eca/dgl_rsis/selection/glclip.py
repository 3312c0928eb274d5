"""Global-Local CLIP's rule: the proposal that is most similar to the text; no activation map."""

from dataclasses import dataclass

from s4eca.dgl_rsis.grounding.activation import fuse
from s4eca.dgl_rsis.parts import Evidence, Selection
from s4eca.dgl_rsis.selection.checks import check_number
from s4eca.dgl_rsis.selection.outcome import from_map, from_proposals


@dataclass(frozen=True)
class GlClipSelector:
    """Takes the proposal nearest to a mix of sentence and noun phrase (Yu et al., CVPR 2023, section 3.4).

    Their text feature is `t = r·sentence + (1 - r)·noun phrase` and their score the cosine with it. The product with a
    region is linear in `t`, so `r·cos(v, sentence) + (1 - r)·cos(v, noun phrase)` is that cosine times the length of
    `t`, the same factor for all regions: the order is the same.

    The sentence's map is only shown; where an image has no proposal the largest part of it from 0.5 up is the mask,
    with the fallback `no proposal`, and where it is flat too, the mask is empty.

    Args:
        r: share of the sentence, from 0 to 1.

    Raises:
        S4ecaError: a setting out of range.
    """

    r: float = 0.5

    def __post_init__(self) -> None:
        check_number("r", self.r, 0, 1)

    def select(self, evidence: Evidence) -> Selection:
        """Returns the mask of an expression; of equal proposals the earlier one."""
        activation, fallback = fuse(evidence.maps, evidence.phrase, "whole", 0.0)
        if not len(evidence.proposals):
            return from_map(evidence, activation, [fallback])
        scores = self.r * evidence.sentence + (1 - self.r) * evidence.noun_phrase
        return from_proposals(evidence, [int(scores.argmax())], scores, activation, [])
