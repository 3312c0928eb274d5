"""What proposals must pass, whoever made them: size, connected parts, no near-copies, a cap on their number."""

from typing import Any

import numpy as np

from s4eca.dgl_rsis.parts import Proposals
from s4eca.errors import S4ecaError


def check_screens(
    *,
    min_area: int = 16,
    max_share: float = 0.9,
    max_components: int | None = None,
    nms_iou: float = 0.8,
    limit: int | None = 100,
) -> dict[str, Any]:
    """Checks the settings of `screen` as those of a proposer, and returns them by name.

    Raises:
        S4ecaError: one of them lets nothing pass or makes no sense.
    """
    if min_area < 1:
        raise S4ecaError(f"proposer.min_area={min_area} must be at least 1 pixel.")
    if not 0 < max_share <= 1:
        raise S4ecaError(f"proposer.max_share={max_share} must be a share of the image, above 0 and at most 1.")
    if max_components is not None and max_components < 1:
        raise S4ecaError(f"proposer.max_components={max_components} must be at least 1, or null for any number.")
    if not 0 < nms_iou <= 1:
        raise S4ecaError(f"proposer.nms_iou={nms_iou} must be an IoU, above 0 and at most 1.")
    if limit is not None and limit < 1:
        raise S4ecaError(f"proposer.limit={limit} must be at least 1 proposal, or null for all of them.")
    return {
        "min_area": min_area,
        "max_share": max_share,
        "max_components": max_components,
        "nms_iou": nms_iou,
        "limit": limit,
    }


def screen(
    proposals: Proposals,
    *,
    min_area: int = 16,
    max_share: float = 0.9,
    max_components: int | None = None,
    nms_iou: float = 0.8,
    limit: int | None = 100,
) -> Proposals:
    """Returns the proposals that pass, the highest score first; equal scores keep their order.

    Suppression is greedy on the masks themselves: a proposal goes if its IoU with a better one that stayed is above
    `nms_iou`.

    Args:
        proposals: of one image.
        min_area: fewest pixels.
        max_share: largest share of the image's pixels.
        max_components: most connected parts (8 neighbours); None for any number.
        nms_iou: largest IoU of two proposals; 1 keeps even copies.
        limit: most proposals; None for all.
    """
    largest = max_share * proposals.size[0] * proposals.size[1]
    fits = (proposals.areas >= min_area) & (proposals.areas <= largest)
    if max_components is not None:
        fits &= proposals.components <= max_components
    ranked = np.flatnonzero(fits)
    ranked = ranked[np.argsort(-proposals.scores[ranked], kind="stable")]
    kept: list[int] = []
    for place in ranked.tolist():
        if limit is not None and len(kept) == limit:
            break
        if not _has_copy(proposals, place, np.array(kept, np.int64), nms_iou):
            kept.append(place)
    return proposals.take(kept)


def mask_iou(proposals: Proposals) -> np.ndarray:
    """Returns the IoU of every two masks, (K, K) float32, counted on the packed bits."""
    count = len(proposals)
    table = np.eye(count, dtype=np.float32)
    for place in range(count - 1):
        others = np.arange(place + 1, count)
        common = shared_pixels(proposals, place, others)
        union = proposals.areas[place] + proposals.areas[others] - common
        table[place, others] = table[others, place] = common / union
    return table


def shared_pixels(proposals: Proposals, place: int, others: np.ndarray) -> np.ndarray:
    """Returns how many pixels one mask shares with each of others, (N,) int64; boxes that do not meet cost nothing."""
    common = np.zeros(len(others), np.int64)
    meets = np.flatnonzero(_shared_box(proposals.boxes[place], proposals.boxes[others]))
    # the bytes that hold the rows of the one mask's box
    width = proposals.size[1]
    top, bottom = int(proposals.boxes[place, 1]), int(proposals.boxes[place, 3])
    rows = slice(top * width // 8, -(-bottom * width // 8))
    mask = proposals.bits[place, rows]
    for position in meets.tolist():
        common[position] = np.bitwise_count(proposals.bits[others[position], rows] & mask).sum(dtype=np.int64)
    return common


def nothing(size: tuple[int, int]) -> Proposals:
    """Returns no proposals, of an image of (height, width)."""
    return Proposals.from_masks(np.ones((1, *size), bool)).take([])


def _has_copy(proposals: Proposals, place: int, kept: np.ndarray, nms_iou: float) -> bool:
    """Returns whether a mask's IoU with one of those kept is above `nms_iou`."""
    area, areas = proposals.areas[place], proposals.areas[kept]
    # neither the smaller mask nor the boxes' common part can be less than the intersection
    most = np.minimum(np.minimum(area, areas), _shared_box(proposals.boxes[place], proposals.boxes[kept]))
    close = np.flatnonzero(most >= nms_iou * np.maximum(area, areas))
    common = shared_pixels(proposals, place, kept[close])
    return bool((common / (area + areas[close] - common) > nms_iou).any())


def _shared_box(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the pixels that a box shares with each of others, (N,) int64."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    return np.maximum(high - low, 0).astype(np.int64).prod(axis=1)


def join(parts: list[Proposals], size: tuple[int, int]) -> Proposals:
    """Returns the proposals of all parts in one."""
    if not parts:
        return nothing(size)
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("bits", "scores", "boxes", "areas", "components")
    }
    return Proposals(size=size, sources=tuple(source for part in parts for source in part.sources), **arrays)
