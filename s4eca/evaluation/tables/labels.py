"""Places for the names of points in a plot: near their points, on top of nothing, in reach of a thin line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 6
GAPS = (7.0, 16.0, 30.0, 50.0, 75.0, 105.0)
REACH = 190.0
CLOSE = 25.0
# what faults of a place cost, in units of a line's length: a name over another is worse than any line
_OVER_NAME, _OVER_POINT, _OVER_LINE, _PAST_POINT, _CROSSING, _STEEP = 4000.0, 1200.0, 500.0, 250.0, 500.0, 25.0


@dataclass(frozen=True)
class Place:
    """Where a name stands.

    Attributes:
        x: edge of the name on the side of its point.
        y: middle of the name.
        right: the name is on the right of its point.
    """

    x: float
    y: float
    right: bool


@dataclass(frozen=True)
class _Candidates:
    """Places for one name: line ends (M, 2), lower left and upper right corners (M, 2), whether on the right (M,)."""

    ends: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    right: np.ndarray


def place_labels(
    points: np.ndarray, sizes: np.ndarray, bars: np.ndarray, area: tuple[float, float, float, float]
) -> list[Place]:
    """Chooses places so that names cover neither one another nor points, and their lines cross as little as possible.

    Every name is tried at some distances left and right of its point and at many heights; the best place given those of
    the others is taken, name after name, until nothing moves any more or `ROUNDS` are over. That begins with names
    stacked right of their points, left of them, and in turn, and the best end is kept. The same input gives the same
    places.

    Args:
        points: (N, 2), in points of a page (1/72 inch), y upwards.
        sizes: width and height of the names (N, 2).
        bars: lowest and highest end of the points' error bars (N, 2).
        area: left, bottom, right and top of the room for names.
    """
    if not len(points):
        return []
    candidates = [_find_candidates(point, size, area) for point, size in zip(points, sizes, strict=True)]
    fixed = [_own_costs(number, points, bars, place, area) for number, place in enumerate(candidates)]
    best, least = [], np.inf
    for sides in ("r", "l", "rl"):
        chosen = _stack(points, sizes, candidates, sides)
        total = _settle(points, candidates, fixed, chosen)
        if total < least:
            best, least = chosen, total
    places = []
    for place, choice in zip(candidates, best, strict=True):
        places.append(Place(float(place.ends[choice, 0]), float(place.ends[choice, 1]), bool(place.right[choice])))
    return places


def _find_candidates(point: np.ndarray, size: np.ndarray, area: tuple[float, float, float, float]) -> _Candidates:
    width, height = size
    heights = np.arange(area[1] + height / 2, area[3] - height / 2, height / 2)
    heights = np.concatenate([[point[1]], heights[np.abs(heights - point[1]) < REACH]])
    gaps = np.repeat([*GAPS, *(-gap for gap in GAPS)], len(heights))
    ends = np.stack([point[0] + gaps, np.tile(heights, 2 * len(GAPS))], 1)
    lows = ends - np.stack([np.where(gaps > 0, 0, width), np.full(len(gaps), height / 2)], 1)
    return _Candidates(ends, lows, lows + size, gaps > 0)


def _own_costs(
    number: int, points: np.ndarray, bars: np.ndarray, place: _Candidates, area: Sequence[float]
) -> np.ndarray:
    """Returns what a name's places (M,) cost whatever the other names do."""
    across, up = np.abs(place.ends - points[number]).T
    # steep lines of points above one another cannot be told apart
    cost = np.hypot(across, up) + _STEEP * np.maximum(up / across - 1.2, 0)
    low, high = np.array(area[:2]), np.array(area[2:])
    cost += 600.0 * (np.maximum(low - place.lows, 0) + np.maximum(place.highs - high, 0)).sum(1)
    lows = np.stack([points[:, 0] - 4, np.minimum(bars[:, 0], points[:, 1] - 4)], 1)
    highs = np.stack([points[:, 0] + 4, np.maximum(bars[:, 1], points[:, 1] + 4)], 1)
    cost += _OVER_POINT * _overlap(place.lows[:, None], place.highs[:, None], lows, highs).sum(1)
    others = np.delete(points, number, 0)
    return cost + _PAST_POINT * _hit(points[number], place.ends[:, None], others - 5, others + 5).sum(1)


def _stack(points: np.ndarray, sizes: np.ndarray, candidates: Sequence[_Candidates], sides: str) -> list[int]:
    """Chooses first places: names of points that are close to one another in x stand in columns, in their order."""
    across = np.argsort(points[:, 0], kind="stable")
    breaks = np.flatnonzero(np.diff(points[across, 0]) > CLOSE) + 1
    chosen = [0] * len(points)
    for cluster in np.split(across, breaks):
        ordered = cluster[np.argsort(-points[cluster, 1], kind="stable")]
        for turn, side in enumerate(sides):
            column = ordered[turn :: len(sides)]
            gap = (GAPS[0] if len(column) < 2 else GAPS[3]) * (1 if side == "r" else -1)
            for rank, number in enumerate(column):
                height = points[column, 1].mean() + ((len(column) - 1) / 2 - rank) * sizes[number, 1]
                wanted = np.array([points[number, 0] + gap, height])
                chosen[number] = int(np.argmin(np.abs(candidates[number].ends - wanted).sum(1)))
    return chosen


def _settle(
    points: np.ndarray, candidates: Sequence[_Candidates], fixed: Sequence[np.ndarray], chosen: list[int]
) -> float:
    """Moves one name after the other to its best place, in `chosen`, and returns what all places cost then."""
    order = np.lexsort((points[:, 0], -points[:, 1]))
    total = np.inf
    for _ in range(ROUNDS):
        before, total = list(chosen), 0.0
        for number in order:
            others = [other for other in range(len(points)) if other != number]
            ends = np.array([candidates[other].ends[chosen[other]] for other in others]).reshape(-1, 2)
            lows = np.array([candidates[other].lows[chosen[other]] for other in others]).reshape(-1, 2)
            highs = np.array([candidates[other].highs[chosen[other]] for other in others]).reshape(-1, 2)
            place, start = candidates[number], points[number]
            cost = _OVER_NAME * _overlap(place.lows[:, None], place.highs[:, None], lows, highs)
            cost = cost + _OVER_LINE * _hit(start, place.ends[:, None], lows, highs)
            cost += _OVER_LINE * _hit(points[others], ends, place.lows[:, None], place.highs[:, None])
            cost += _CROSSING * _cross(start, place.ends[:, None], points[others], ends)
            whole = fixed[number] + cost.sum(1)
            chosen[number] = int(np.argmin(whole))
            total += float(whole[chosen[number]])
        if chosen == before:
            break
    return total


def _overlap(lows: np.ndarray, highs: np.ndarray, other_lows: np.ndarray, other_highs: np.ndarray) -> np.ndarray:
    """Returns whether boxes (..., 2) have something in common."""
    common = (lows < other_highs) & (other_lows < highs)
    return common[..., 0] & common[..., 1]


def _hit(starts: np.ndarray, ends: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """Returns whether lines (..., 2) run into boxes: whether something is left when cut at the boxes' edges."""
    way = ends - starts
    way = np.where(np.abs(way) < 1e-9, 1e-9, way)
    first, second = (lows - starts) / way, (highs - starts) / way
    enter, leave = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    return (enter < leave) & (enter < 1) & (leave > 0)


def _cross(starts: np.ndarray, ends: np.ndarray, other_starts: np.ndarray, other_ends: np.ndarray) -> np.ndarray:
    """Returns whether lines (..., 2) cross."""
    apart = _side(starts, ends, other_starts) * _side(starts, ends, other_ends) < 0
    return apart & (_side(other_starts, other_ends, starts) * _side(other_starts, other_ends, ends) < 0)


def _side(starts: np.ndarray, ends: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns a positive number where points (..., 2) are on the left of lines."""
    way, there = ends - starts, points - starts
    return way[..., 0] * there[..., 1] - way[..., 1] * there[..., 0]
