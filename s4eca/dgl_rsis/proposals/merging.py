"""Unions of neighbouring segments by a merge tree, and a score that says which of them look like objects."""

import heapq
from dataclasses import dataclass

import cv2
import numpy as np

_RING = np.ones((5, 5), np.uint8)  # two pixels around a region
_SIDE = 64  # crops are thinned to about this side before they are scored


@dataclass(frozen=True, eq=False)
class Tree:
    """All regions of a merge tree.

    Attributes:
        ranks: (H, W) int32, each pixel's segment, numbered so that every region is a range of numbers.
        spans: (R, 2) int64, that range, the end exclusive; segments first, then unions in the order they were made.
    """

    ranks: np.ndarray
    spans: np.ndarray

    def mask(self, region: int) -> np.ndarray:
        """Returns a region's mask (H, W) bool."""
        first, end = self.spans[region]
        return (self.ranks >= first) & (self.ranks < end)


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


def objectness(mask: np.ndarray, box: np.ndarray, colour: np.ndarray) -> float:
    """Returns how much a region looks like an object of its own: contrast · solidity², a fixed formula of ours.

    Contrast is the lower quartile, over a ring two pixels wide, of the distance to the mean colour, at most 40:
    it is high only where nearly all of the surroundings differ. Solidity is the share of the convex hull that the
    region fills.

    Args:
        mask: (H, W) bool.
        box: of it.
        colour: (H, W, 3) Lab.
    """
    x0, y0, x1, y1 = (int(side) for side in box)
    step = max(x1 - x0, y1 - y0) // _SIDE + 1
    rows, columns = slice(max(y0 - 3, 0), y1 + 3, step), slice(max(x0 - 3, 0), x1 + 3, step)
    inside = np.ascontiguousarray(mask[rows, columns])
    pixels = inside.view(np.uint8)
    ring = cv2.dilate(pixels, _RING) > pixels
    if not ring.any() or not inside.any():
        return 0.0
    crop = colour[rows, columns]
    distance = np.sqrt(np.square(crop[ring] - crop[inside].mean(axis=0)).sum(axis=1))
    quartile = float(np.partition(distance, len(distance) // 4)[len(distance) // 4])
    outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(outlines))
    # the hull runs through the pixels' centres: half a pixel all around is missing
    filled = cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1
    return min(quartile, 40.0) * min(float(np.count_nonzero(inside)) / filled, 1.0) ** 2


def _neighbours(labels: np.ndarray) -> list[tuple[int, int]]:
    """Returns the pairs of segments that touch (4 neighbours), the lower number first, in order."""
    across = np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], axis=1)
    down = np.stack([labels[:-1].ravel(), labels[1:].ravel()], axis=1)
    pairs = np.concatenate([across, down])
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    return [(one, two) for one, two in pairs.tolist()]
