import numpy as np
import pytest

from s4eca.dgl_rsis.proposals.joining import hull_of, join_parts


def box(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


BODY = box(0, 0, 39, 9)  # 40 x 10 pixels
HOOD = box(43, 1, 49, 8)  # 7 x 8, three pixels beyond its end


def joined(*hulls, turn=0.0, scores=None, **settings):
    angle = np.deg2rad(turn)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    areas = np.array([np.prod(np.ptp(hull, axis=0) + 1) for hull in hulls])
    scores = np.arange(len(hulls), 0, -1) if scores is None else np.array(scores)
    turned_hulls = [(hull @ turned.T).astype(np.float32) for hull in hulls]
    return join_parts(turned_hulls, areas, scores, **{"limit": 9, **settings})


@pytest.mark.parametrize("turn", [0, 30, 45, 90, 200])
def test_a_part_at_the_end_joins_and_one_beside_does_not(turn):
    beside = box(5, 12, 14, 18)
    assert joined(BODY, beside, HOOD, turn=turn) == [[0, 2], [1]]


@pytest.mark.parametrize(
    "other",
    [
        box(46, 1, 52, 8),  # 6 pixels away, more than half of the width
        box(43, 3, 49, 6),  # 4 wide, less than half
        box(43, 4, 49, 12),  # 3 pixels to the side, more than 0.15 of the width and 1
        box(43, 0, 70, 9),  # 280 pixels, more than half of 400
        box(30, 1, 36, 8),  # inside
    ],
)
def test_what_is_not_a_part_stays_alone(other):
    assert joined(BODY, other) == [[0], [1]]


def test_the_best_part_joins_and_each_only_once():
    front = box(-8, 0, -2, 9)
    behind = box(-52, 0, -12, 9)  # its own end is 3 pixels from that part too
    assert joined(BODY, front, HOOD, behind) == [[0, 1], [2], [3]]
    assert joined(behind, front, BODY, HOOD) == [[0, 1], [2, 3]], "the better one chooses first"
    windscreen = box(40, 0, 42, 9)
    assert joined(BODY, HOOD, windscreen) == [[0, 1], [2]], "not the nearest"


def test_a_part_looks_like_an_object_itself():
    assert joined(BODY, HOOD, scores=[1, 0.02]) == [[0, 1]]
    assert joined(BODY, HOOD, scores=[1, 0.019]) == [[0], [1]], "plain ground at the end is none"


def test_limit_counts_objects_and_parts_come_from_beyond_it():
    assert joined(BODY, box(0, 40, 39, 49), HOOD, limit=1) == [[0, 2]]


def test_gap_is_a_share_of_the_width():
    assert joined(BODY, HOOD, gap=0.3) == [[0, 1]]
    assert joined(BODY, HOOD, gap=0.29) == [[0], [1]]


def test_a_single_pixel_and_no_region_at_all():
    assert joined(box(4, 4, 4, 4)) == [[0]]
    assert join_parts([], np.zeros(0), np.zeros(0), limit=5) == []


def test_hull_by_hand():
    mask = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 1]], bool)
    assert {tuple(point) for point in hull_of(mask, (10, 20)).tolist()} == {(10, 20), (10, 22), (12, 22)}
