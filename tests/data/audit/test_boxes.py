"""Which convention boxes follow, and when boxes and areas count as wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.data.audit.boxes import check_areas, check_boxes
from s4eca.data.audit.pixels import MaskFacts
from s4eca.data.audit.records import Record


def record(number, bbox=None, area=None):
    return Record(id=str(number), split="train", expression="a ship", bbox=bbox, area=area)


def rectangle(left, top, width, height):
    return MaskFacts(size=(800, 800), pixels=width * height, extent=(left, top, left + width, top + height))


sides = st.integers(5, 60)
corners = st.integers(30, 700)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(corners, corners, sides, sides), min_size=1, max_size=20))
@pytest.mark.parametrize("convention", ["xywh", "xyxy", "xyxy, last pixel"])
def test_the_convention_is_recognised(convention, rectangles):
    """A rectangle whose corner lies outside its own size in pixels cannot be both."""
    masks = [rectangle(*row) for row in rectangles]
    boxes = {
        "xywh": [[left, top, width, height] for left, top, width, height in rectangles],
        "xyxy": [[left, top, left + width, top + height] for left, top, width, height in rectangles],
        "xyxy, last pixel": [
            [left, top, left + width - 1, top + height - 1] for left, top, width, height in rectangles
        ],
    }
    facts, findings = check_boxes([record(i, box) for i, box in enumerate(boxes[convention])], masks)
    assert facts is not None
    assert facts["convention"] == convention[:4]
    assert facts["median_iou"][convention[:4]] == 1.0
    assert [finding.code for finding in findings] == ["box-convention"]
    assert findings[0].count == len(rectangles)


def test_boxes_that_fit_nothing():
    """Ten masks far from where either reading puts their boxes."""
    facts, findings = check_boxes(
        [record(i, [1, 1, 3, 3]) for i in range(10)], [rectangle(100 + i, 100, 10, 10) for i in range(10)]
    )
    assert facts == {"boxes": 10, "convention": None, "median_iou": {"xywh": 0.0, "xyxy": 0.0}}
    assert [(finding.code, finding.count) for finding in findings] == [("box-convention", 10)]
    assert "neither" in findings[0].text


def test_boxes_of_empty_masks():
    """Only a box that has an area says something that the mask does not."""
    empty = MaskFacts(size=(800, 800), pixels=0, extent=None)
    _, findings = check_boxes([record(i, box) for i, box in enumerate([[0, 0, 0, 0], [1, 1, 3, 3]])], [empty] * 2)
    assert [(finding.code, finding.names) for finding in findings] == [("box-without-mask", ("1",))]


def test_the_loose_box_of_the_literature_is_accepted():
    """RRSIS-D 03600: box 348..389 by 272..389, mask 360..383 by 272..383 (last pixels): 24*112 of 42*118 = 0.54."""
    facts, findings = check_boxes([record(3600, [348, 272, 389, 389])], [rectangle(360, 272, 24, 112)])
    assert facts is not None
    assert facts["median_iou"]["xyxy"] == pytest.approx(24 * 112 / (41 * 117), abs=1e-4)
    assert [finding.code for finding in findings] == ["box-convention"]


@pytest.mark.parametrize(
    "bbox", [[], [1, 2, 3], [1, 2, 3, 4, 5], "1 2 3 4", [1, 2, 3, None], [1, 2, 3, float("nan")], [True] * 4, 7, {}]
)
def test_boxes_that_are_none(bbox):
    facts, findings = check_boxes([record(1, bbox)], [rectangle(5, 5, 5, 5)])
    assert facts == {"boxes": 1, "convention": None, "median_iou": {}}
    assert [(finding.code, finding.names) for finding in findings] == [("bad-box", ("1",))]


def test_nothing_is_said_without_boxes_and_areas():
    assert check_boxes([record(1)], [rectangle(5, 5, 5, 5)]) == (None, [])
    assert check_areas([record(1)], [rectangle(5, 5, 5, 5)]) == (None, [])


def test_masks_that_are_unknown_or_damaged_are_no_evidence():
    records = [record(1, [5, 5, 5, 5], 25), record(2, [5, 5, 5, 5], 25)]
    masks = [None, MaskFacts(problem="broken")]
    facts, findings = check_boxes(records, masks)
    assert facts == {"boxes": 2, "convention": None, "median_iou": {}}
    assert findings == []
    assert check_areas(records, masks) == ({"areas": 2, "differing": 0, "median_ratio": None}, [])


@pytest.mark.parametrize(
    ("area", "pixels", "differs"),
    [
        (100, 100, False),
        (110, 100, False),  # ten pixels
        (111, 100, True),
        (89, 100, True),
        (1_100, 1_000, False),  # a tenth
        (1_101, 1_000, True),
        (0, 0, False),
        (11, 0, True),
        (-5, 4, False),
        (10**400, 100, None),  # no number that a float could hold
        (float("inf"), 100, None),
        ("100", 100, None),
    ],
)
def test_when_an_area_is_wrong(area, pixels, differs):
    facts, findings = check_areas([record(1, area=area)], [MaskFacts(size=(800, 800), pixels=pixels)])
    expected = {None: ["bad-area"], True: ["area"], False: []}[differs]
    assert [finding.code for finding in findings] == expected
    assert facts is not None
    assert facts["differing"] == (differs is True)


def test_the_median_ratio_leaves_out_empty_masks():
    areas = [200, 600, 1_100, 7]
    masks = [MaskFacts(size=(9, 9), pixels=pixels) for pixels in (1, 2, 5, 0)]
    facts, findings = check_areas([record(i, area=area) for i, area in enumerate(areas)], masks)
    assert facts == {"areas": 4, "differing": 3, "median_ratio": 220.0}
    assert findings[0].names == ("0", "1", "2")
    assert "220" in findings[0].text
