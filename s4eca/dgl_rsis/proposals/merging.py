"""Unions of neighbouring segments by a merge tree, and a score that says which of them look like objects."""

import heapq
from dataclasses import dataclass

import cv2
import numpy as np

_RING = np.ones((9, 9), np.uint8)  # four pixels around a region
_EDGE = np.ones((3, 3), np.uint8)
_MARGIN = 5  # pixels of a window around its box, room for the ring
_SIDE = 128  # crops are thinned to about this side before they are scored
_LARGE = 0.005  # share of the image from which on size says less about being an object


@dataclass(frozen=True, eq=False)
class Tree:
    """All regions of a merge tree.

    Attributes:
        ranks: (H, W) int32, each pixel's segment, numbered so that every region is a range of numbers.
        spans: (R, 2) int64, that range, the end exclusive; segments first, then unions in the order they were made.
    """

    ranks: np.ndarray
    spans: np.ndarray

    def mask(self, region: int, window: tuple[slice, slice] = (slice(None), slice(None))) -> np.ndarray:
        """Returns a region's mask (H, W) bool, or what a window shows of it."""
        first, end = self.spans[region]
        ranks = self.ranks[window]
        return (ranks >= first) & (ranks < end)


def merge_tree(labels: np.ndarray, colour: np.ndarray, size_power: float = 0.15) -> Tree:
    """Merges the two neighbouring regions of most similar mean colour, until none is left (Uijlings et al., 2013).

    Args:
        labels: (H, W) int, 0 to n - 1, every number used.
        colour: (H, W, 3), Lab.
        size_power: the colours' distance is multiplied by this power of a b / (a + b), a and b the areas, so that
            crumbs are merged first; our choice.
    """
    flat = labels.ravel()
    count = int(flat.max()) + 1
    sizes: list[float] = np.bincount(flat, minlength=count).astype(float).tolist()
    sums = np.stack([np.bincount(flat, colour[..., band].ravel(), count) for band in range(3)], axis=1)
    means = list(sums / np.array(sizes)[:, None])
    pairs = _neighbours(labels)
    near: list[set[int]] = [set() for _ in range(count)]
    for one, two in pairs:
        near[one].add(two)
        near[two].add(one)

    def distance(one: int, two: int) -> float:
        gap = means[one] - means[two]
        return float(np.sqrt(gap @ gap)) * (sizes[one] * sizes[two] / (sizes[one] + sizes[two])) ** size_power

    heap = [(distance(one, two), one, two) for one, two in pairs]
    heapq.heapify(heap)
    alive = set(range(count))
    children: list[tuple[int, int]] = []
    while heap:
        _, one, two = heapq.heappop(heap)
        if one not in alive or two not in alive:
            continue
        merged = len(sizes)
        children.append((one, two))
        sizes.append(sizes[one] + sizes[two])
        means.append((means[one] * sizes[one] + means[two] * sizes[two]) / sizes[merged])
        alive -= {one, two}
        alive.add(merged)
        around = (near[one] | near[two]) - {one, two}
        near.append(around)
        for other in sorted(around):
            near[other] -= {one, two}
            near[other].add(merged)
            heapq.heappush(heap, (distance(other, merged), other, merged))
    leaves = [1] * count
    for one, two in children:
        leaves.append(leaves[one] + leaves[two])
    spans = np.zeros((len(sizes), 2), np.int64)
    start = 0
    for root in sorted(alive):
        spans[root] = start, start + leaves[root]
        start += leaves[root]
    for region in range(len(sizes) - 1, count - 1, -1):
        one, two = children[region - count]
        first, end = spans[region]
        spans[one], spans[two] = (first, first + leaves[one]), (first + leaves[one], end)
    return Tree(spans[:count, 0][labels].astype(np.int32), spans)


def region_boxes(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Returns the regions' boxes (R, 4) int64, x0, y0, x1, y1, the ends exclusive, and areas (R,) int64."""
    count = int(tree.ranks.max()) + 1
    rows, columns = np.indices(tree.ranks.shape)
    flat = tree.ranks.ravel()
    low, high = np.full((count, 2), max(tree.ranks.shape), np.int64), np.zeros((count, 2), np.int64)
    for axis, places in enumerate((columns.ravel(), rows.ravel())):
        np.minimum.at(low[:, axis], flat, places)
        np.maximum.at(high[:, axis], flat, places + 1)
    total = np.concatenate([[0], np.bincount(flat, minlength=count).cumsum()])
    boxes = [np.concatenate([low[a:b].min(axis=0), high[a:b].max(axis=0)]) for a, b in tree.spans.tolist()]
    return np.stack(boxes), total[tree.spans[:, 1]] - total[tree.spans[:, 0]]


def window_of(box: np.ndarray) -> tuple[slice, slice]:
    """Returns rows and columns of a box x0, y0, x1, y1 and a margin around it, thinned where it is large."""
    x0, y0, x1, y1 = (int(side) for side in box)
    step = max(x1 - x0, y1 - y0) // _SIDE + 1
    return slice(max(y0 - _MARGIN, 0), y1 + _MARGIN, step), slice(max(x0 - _MARGIN, 0), x1 + _MARGIN, step)


def objectness(inside: np.ndarray, area: int, colour: np.ndarray, image_area: int) -> float:
    """Returns how much a region looks like an object of its own, a fixed formula of ours.

    It is `contrast · solidity² · size / sqrt((spread + 3) · elongation)`. Contrast is the lower quartile, over a
    ring four pixels wide, of the distance to the mean colour: it is high only where nearly all of the surroundings
    differ. Solidity is the share of the convex hull that the region fills; size is the area to the power of 0.75, and
    beyond 0.5 % of the image of 0.1; spread is the mean distance of the region's own pixels to their mean colour,
    elongation the ratio of the sides of the smallest rectangle around it.

    Args:
        inside: (h, w) bool, its mask in a window.
        area: its pixels in the whole image.
        colour: (h, w, 3) Lab, of the window.
        image_area: pixels of the whole image.
    """
    pixels = inside.astype(np.uint8)
    ring = cv2.dilate(pixels, _RING) > pixels
    if not ring.any() or not inside.any():
        return 0.0
    mean = colour[inside].mean(axis=0)
    around, within = (np.sqrt(np.square(colour[part] - mean).sum(axis=1)) for part in (ring, inside))
    contrast = float(np.partition(around, len(around) // 4)[len(around) // 4])
    hull = cv2.convexHull(_outline(pixels))
    # the hull runs through the pixels' centres: half a pixel all around is missing
    filled = cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1
    solidity = min(float(np.count_nonzero(inside)) / filled, 1.0)
    sides = cv2.minAreaRect(hull)[1]
    elongation = (max(sides) + 1) / (min(sides) + 1)
    large = _LARGE * image_area
    size = min(area, large) ** 0.75 * max(area / large, 1.0) ** 0.1
    return contrast * solidity**2 * size / float(np.sqrt((within.mean() + 3) * elongation))


def complete(mask: np.ndarray, solidity: float = 0.7) -> np.ndarray:
    """Returns a region as the object that it is likely to be: without holes, and grown by the pixel of its edge.

    Windows, shadows and markings leave holes and notches in a region, and the mixed pixels of an edge belong to no
    segment. A region that fills at least the given share of its convex hull becomes the hull. Our choice.

    Args:
        mask: (H, W) bool, not empty.
        solidity: that share.
    """
    pixels = mask.astype(np.uint8)
    outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(pixels), outlines, -1, 1, cv2.FILLED)
    hull = cv2.fillConvexPoly(np.zeros_like(pixels), cv2.convexHull(np.concatenate(outlines)), 1)
    whole = hull if mask.sum() >= solidity * hull.sum() else filled
    return cv2.dilate(whole, _EDGE).astype(bool)


def _outline(pixels: np.ndarray) -> np.ndarray:
    outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.concatenate(outlines)


def _neighbours(labels: np.ndarray) -> list[tuple[int, int]]:
    """Returns the pairs of segments that touch (4 neighbours), the lower number first, in order."""
    across = np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], axis=1)
    down = np.stack([labels[:-1].ravel(), labels[1:].ravel()], axis=1)
    pairs = np.concatenate([across, down])
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    return [(one, two) for one, two in pairs.tolist()]
