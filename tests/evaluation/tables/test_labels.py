import numpy as np
import pytest

from s4eca.evaluation.tables.labels import place_labels

AREA = (0.0, 0.0, 400.0, 300.0)


def place(points, width=40.0, bars=None):
    """Places of names 40 wide and 10 high, as boxes (left, bottom, right, top), and the places themselves."""
    points = np.array(points, dtype=float)
    bars = points[:, [1, 1]] if bars is None else np.array(bars, dtype=float)
    places = place_labels(points, np.tile([width, 10.0], (len(points), 1)), bars, AREA)
    lefts = [at.x if at.right else at.x - width for at in places]
    return [(left, at.y - 5, left + width, at.y + 5) for left, at in zip(lefts, places, strict=True)], places


def overlap(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_a_name_alone_stands_right_of_its_point():
    (box,), (at,) = place([(100, 100)])
    assert (at.right, at.y) == (True, 100)
    assert 100 < box[0] < 110


def test_no_points_have_no_places():
    assert place_labels(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2)), AREA) == []


def test_a_name_keeps_off_another_point_and_its_bar():
    # 25 right of the first, which leaves no room for its name there
    boxes, places = place([(100, 100), (125, 100)])
    assert (places[0].right, places[1].right) == (False, True)
    # a bar over the whole height stands where the name would be
    boxes, places = place([(100, 100), (125, 250)], bars=[(100, 100), (0, 300)])
    assert not places[0].right
    assert boxes[0][2] < 100


@pytest.mark.parametrize("x", [5, 200, 395])
def test_names_stay_in_their_room(x):
    boxes, _ = place([(x, 2), (x, 150), (x, 298)])
    for left, bottom, right, top in boxes:
        assert left >= 0
        assert right <= 400
        assert bottom >= -5.1  # a point at the edge may keep its name at its side
        assert top <= 305.1


def test_names_of_many_points_above_one_another_are_in_their_order_and_apart():
    points = [(200, 150 + 2 * number) for number in range(9)]
    boxes, places = place(points)
    for number, box in enumerate(boxes):
        assert not any(overlap(box, other) for other in boxes[number + 1 :])
        assert not any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in points)
    for side in (True, False):
        heights = [at.y for at in places if at.right == side]
        assert heights == sorted(heights)


def test_points_at_one_place_have_names_of_their_own():
    boxes, _ = place([(200, 150)] * 6)
    assert not any(overlap(box, other) for number, box in enumerate(boxes) for other in boxes[number + 1 :])


def test_the_same_points_have_the_same_places():
    points = np.random.default_rng(0).uniform((50, 50), (350, 250), (8, 2))
    assert place(points)[1] == place(points)[1]
