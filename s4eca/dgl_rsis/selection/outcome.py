"""How scores, or a map where there is no proposal, become a selection."""

from collections.abc import Sequence

import cv2
import numpy as np

from s4eca.dgl_rsis.grounding.activation import upsample
from s4eca.dgl_rsis.parts import Evidence, Proposals, Selection

SCREENED = -1.0
"""Score of a proposal that may not be chosen, below all others."""

NO_PROPOSAL, FLAT_MAP, SCREENS = "no proposal", "flat map", "screens"


def is_flat(activation: np.ndarray) -> bool:
    """Returns whether a map is the same everywhere and so tells no place from another."""
    return float(np.ptp(activation)) == 0


def join(names: Sequence[str | None]) -> str | None:
    """Returns the names of several fallbacks as one, the weightiest first: "screens; no known noun"."""
    return "; ".join(dict.fromkeys(name for name in names if name)) or None


def union(proposals: Proposals, places: Sequence[int]) -> np.ndarray:
    """Returns the pixels (H, W) bool of some proposals, joined while they are packed."""
    height, width = proposals.size
    bits = np.bitwise_or.reduce(proposals.bits[list(places)], axis=0)
    return np.unpackbits(bits, count=height * width).view(bool).reshape(height, width)


def from_proposals(
    evidence: Evidence, chosen: Sequence[int], scores: np.ndarray, activation: np.ndarray, names: Sequence[str | None]
) -> Selection:
    """Returns the selection that is made of some proposals."""
    mask = union(evidence.proposals, chosen)
    return Selection(mask, tuple(chosen), scores, activation, join(names))


def from_map(evidence: Evidence, activation: np.ndarray, names: Sequence[str | None]) -> Selection:
    """Returns what is selected where there is no proposal: the largest part of the map from 0.5 up.

    A flat map has no such part: this is where a mask is empty.
    """
    flat = FLAT_MAP if is_flat(activation) else None
    mask = threshold_map(activation, evidence.proposals.size, 0.5, largest_component=True)
    scores = np.zeros(len(evidence.proposals), np.float32)
    return Selection(mask, (), scores, activation, join([NO_PROPOSAL, flat, *names]))


def threshold_map(
    activation: np.ndarray, size: tuple[int, int], threshold: float, *, largest_component: bool
) -> np.ndarray:
    """Returns where an upsampled map is at least the threshold, (H, W) bool.

    Upsampling can flatten a peak to below the threshold; then the highest pixels are taken. So the mask is empty for a
    flat map, and for no other.

    Args:
        activation: (rows, columns) in [0, 1].
        size: (height, width) of the image.
        threshold: in (0, 1].
        largest_component: whether only the largest connected part (8 neighbours) is kept, the first of equal ones row
            by row.
    """
    if is_flat(activation):
        return np.zeros(size, bool)
    pixels = upsample(activation, size)
    mask = pixels >= min(threshold, float(pixels.max()))
    if not largest_component:
        return mask
    _, parts, figures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = figures[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # what is outside the mask
    # the order of OpenCV's labels is not promised, that of the pixels is
    in_largest = (areas == areas.max())[parts]
    return parts == parts.flat[in_largest.argmax()]
