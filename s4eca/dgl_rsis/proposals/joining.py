"""The part at a region's end belongs to the same object: a hood beyond its windscreen, to the body of a bus."""

from collections.abc import Sequence

import cv2
import numpy as np

_SMALLER = 0.5  # most that a part's area is of the region's
_WIDE = 0.5  # least that its width is of the region's
_SLACK = 0.15  # of the region's width, and a pixel: most that a part sticks out sideways
_LOOKS = 0.02  # least that its score is of the region's: plain ground at the end is no part


def hull_of(mask: np.ndarray, corner: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Returns the convex hull (N, 2) float32, x and y, of a mask (h, w) bool whose upper left pixel is `corner`."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.convexHull(np.concatenate(outlines))[:, 0].astype(np.float32) + np.array(corner, np.float32)


def join_parts(
    hulls: Sequence[np.ndarray], areas: np.ndarray, scores: np.ndarray, limit: int, gap: float = 0.5
) -> list[list[int]]:
    """Returns objects, each the places of its regions: one alone, or one and the best part at its end.

    Superpixels follow colour, and a windscreen parts a vehicle in two that no merge tree joins before the shadows
    around it. A part lies beyond an end of the longer axis, within the region's width, and is smaller; what lies beside
    the region is another object. Our choice. A region is in one object at most, and the better ones choose first.

    Args:
        hulls: of each region, (N, 2) float32, x and y; the best region first.
        areas: (R,) their pixels.
        scores: (R,) how much each looks like an object.
        limit: most objects; parts are looked for among all regions.
        gap: widest gap between both, as a share of the region's width.
    """
    points = np.concatenate(hulls) if hulls else np.zeros((0, 2), np.float32)
    starts = np.cumsum([0, *(len(hull) for hull in hulls[:-1])])
    free = np.ones(len(hulls), bool)
    objects: list[list[int]] = []
    for place, hull in enumerate(hulls):
        if len(objects) == limit:
            break
        if not free[place]:
            continue
        free[place] = False
        axis = _long_axis(hull)
        first, last = _spans(points @ axis, starts)
        low, high = _spans(points @ np.array([-axis[1], axis[0]]), starts)
        width = high[place] - low[place] + 1
        slack = _SLACK * width + 1
        away = np.maximum(first - last[place], first[place] - last) - 1
        fits = free & (areas <= _SMALLER * areas[place]) & (scores >= _LOOKS * scores[place])
        fits &= high - low + 1 >= _WIDE * width
        fits &= (low >= low[place] - slack) & (high <= high[place] + slack)
        fits &= (away >= -1) & (away <= gap * width)
        objects.append([place])
        if fits.any():
            part = int(np.argmax(np.where(fits, scores, -np.inf)))
            free[part] = False
            objects[-1].append(part)
    return objects


def _long_axis(hull: np.ndarray) -> np.ndarray:
    """Returns the direction (2,) of the longer side of the smallest rectangle around a hull."""
    corners = cv2.boxPoints(cv2.minAreaRect(hull))
    one, two = corners[1] - corners[0], corners[2] - corners[1]
    side = max(one, two, key=lambda vector: float(vector @ vector))
    length = float(np.sqrt(side @ side))
    return side / length if length > 0 else np.array([1, 0], np.float32)


def _spans(values: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the greatest value of each run of points."""
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
