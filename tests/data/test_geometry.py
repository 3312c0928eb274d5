"""Whatever stands where a segmentation should be is refused by name, or painted as an independent hand paints it."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layouts import box_mask, rle
from s4eca.data.geometry import check_fit, check_segmentation, read_regions
from s4eca.data.masks import AnnotationFile, StoredMask
from s4eca.data.rle import MAX_PIXELS, check_size
from s4eca.errors import S4ecaError

HEIGHT, WIDTH = 9, 14


def expand(rle: dict) -> np.ndarray:
    """COCO's run-length code by its definition, a character at a time."""
    height, width = rle["size"]
    runs = rle["counts"]
    if isinstance(runs, str):
        runs, value, shift = [], 0, 0
        for character in rle["counts"]:
            code = ord(character) - 48
            value |= (code & 31) << shift
            shift += 5
            if not code & 32:
                value -= (1 << shift) if code & 16 else 0
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                value, shift = 0, 0
        assert shift == 0
    assert sum(runs) == height * width
    pixels = [number % 2 == 1 for number, run in enumerate(runs) for _ in range(run)]
    return np.array(pixels, dtype=bool).reshape(width, height).T


def inside(polygon: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels have their centre inside by the even-odd rule, and which are so near the outline as to be open."""
    points = np.array(polygon, float).reshape(-1, 2)
    covered, near = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            x, y = column + 0.5, row + 0.5
            for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
                if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
                    covered[row, column] ^= True
                length = math.hypot(x2 - x1, y2 - y1) ** 2
                along = min(1, max(0, ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length)) if length else 0
                distance = math.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1))
                near[row, column] |= distance < 1.0
    return covered, near


def agrees(mask: np.ndarray, parts: list) -> bool:
    """Whether a mask is the union of its parts, open pixels aside."""
    expected, near = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
    for part in parts:
        if isinstance(part, dict):
            expected |= expand(part)
        else:
            covered, open_ = inside(part)
            expected |= covered & ~open_
            near |= open_
    return bool((mask == expected)[~near | expected].all())


numbers = st.one_of(
    st.integers(-30, 40),
    st.floats(-20, 30),
    st.sampled_from([math.nan, math.inf, -math.inf, 2e8, -2e8, 1e308, 10**30, 10**400, True, "4", None, [4]]),
)
sizes = st.one_of(
    st.just([HEIGHT, WIDTH]), st.lists(numbers, max_size=3), st.sampled_from([[0, 0], [10**6, 10**6], "914", None])
)
counts = st.one_of(
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(0, HEIGHT * WIDTH).map(lambda run: [run, HEIGHT * WIDTH - run]),
    st.lists(numbers, max_size=4),
    st.text("0123OPQo~é", max_size=8),
    st.integers(0, 9).map(lambda number: rle(box_mask(number, HEIGHT, WIDTH))["counts"]),
    st.none(),
)
regions = st.fixed_dictionaries({}, optional={"size": sizes, "counts": counts})
polygons = st.one_of(
    st.lists(st.floats(-9, 20), min_size=6, max_size=10).map(lambda values: values[: len(values) // 2 * 2]),
    st.lists(numbers, max_size=9),
    st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=4),
)
segmentations = st.one_of(regions, polygons, numbers, st.lists(st.one_of(regions, polygons, numbers), max_size=3))


@settings(max_examples=250, deadline=None)
@given(segmentations)
@example([[0, 0, 14, 0, 14, 9, 0, 9], rle(box_mask(3, HEIGHT, WIDTH))])
@example({"size": [HEIGHT, WIDTH], "counts": [2**63, 2**63, HEIGHT * WIDTH]})  # which is right modulo 2**64
@example([[10**400, 0, -(10**400), 5, 3, 3]])
def test_anything_is_painted_or_refused_by_name(tmp_path_factory, segmentation):
    path = tmp_path_factory.getbasetemp() / "segmentation.json"
    path.write_text(json.dumps({"segmentation": segmentation}))
    content = path.read_bytes()
    stored = StoredMask(AnnotationFile.of(path), (0, len(content)), (HEIGHT, WIDTH), "ref 77")
    try:
        check_fit([check_segmentation(segmentation)], (HEIGHT, WIDTH))
        refused = False
    except ValueError:
        refused = True
    if refused:
        with pytest.raises(S4ecaError, match=rf"ref 77 in {path}"):
            stored.decode()
        return
    mask = stored.decode()
    assert mask.dtype == bool
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    assert any(isinstance(part, dict) for part in parts) or mask.shape == (HEIGHT, WIDTH)
    if mask.shape == (HEIGHT, WIDTH):
        assert agrees(mask, parts)
    else:  # an RLE of about the image's shape
        assert np.array_equal(mask, np.logical_or.reduce([expand(part) for part in parts]))


points = st.tuples(st.floats(-WIDTH, 2 * WIDTH), st.floats(-HEIGHT, 2 * HEIGHT))
within = st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT))


@settings(max_examples=100, deadline=None)
@given(within, st.lists(points, min_size=2, max_size=5))
def test_polygons_may_reach_beyond_their_image(first, others):
    """By its own width and height on every side; what lies outside is cut off."""
    polygon = [value for point in [first, *others] for value in point]
    check_fit([check_segmentation([polygon])], (HEIGHT, WIDTH))
    (size, runs), *_ = read_regions([polygon], (HEIGHT, WIDTH))
    assert agrees(expand({"size": list(size), "counts": runs.tolist()}), [polygon])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 9_999), st.floats(0, 1), st.sampled_from([1, 7]))
def test_rle_agrees_with_its_definition(height, width, seed, share, scale):
    mask = np.kron(np.random.default_rng(seed).random((height, width)) < share, np.ones((scale, scale), bool))
    encoded = rle(mask)
    assert np.array_equal(expand(encoded), mask)  # the reference itself
    (size, runs), *_ = read_regions(encoded, None)
    assert np.array_equal(expand({"size": list(size), "counts": runs.tolist()}), mask)


@pytest.mark.parametrize(
    ("polygon", "fits"),
    [
        ([-WIDTH, 0, 3, 0, 3, 3], True),
        ([-WIDTH - 0.1, 0, 3, 0, 3, 3], False),
        ([0, 0, 2 * WIDTH, 0, 3, 3], True),
        ([0, 0, 2 * WIDTH + 0.1, 0, 3, 3], False),
        ([0, 0, 3, 2 * HEIGHT, 3, 3], True),
        ([0, 0, 3, 2 * HEIGHT + 0.1, 3, 3], False),
        ([0, -HEIGHT - 0.1, 3, 0, 3, 3], False),
        ([WIDTH + 1, 0, WIDTH + 4, 0, WIDTH + 4, 4], False),  # nothing of it is inside
        ([-5, 0, -1, 0, -1, 4], False),
        ([0, HEIGHT + 1, 4, HEIGHT + 1, 4, HEIGHT + 3], False),
    ],
)
def test_how_far_is_too_far(polygon, fits):
    extent = check_segmentation([polygon])
    if fits:
        check_fit([extent], (HEIGHT, WIDTH))
        return
    with pytest.raises(ValueError, match=rf"polygons reach .* image of {WIDTH} x {HEIGHT}"):
        check_fit([extent], (HEIGHT, WIDTH))
    check_fit([extent], None)  # of an image whose size is not known


def test_an_rle_of_another_shape_than_its_image():
    extent = check_segmentation(rle(np.ones((HEIGHT, WIDTH), bool)))
    for size in ((HEIGHT, WIDTH), (800, 800 * WIDTH // HEIGHT), (HEIGHT, WIDTH + 1)):
        check_fit([extent], size)
    with pytest.raises(ValueError, match=f"it is {HEIGHT}x{WIDTH} and its image {WIDTH}x{HEIGHT}"):
        check_fit([extent], (WIDTH, HEIGHT))


def test_outlines_that_would_fill_the_memory():
    """Each edge of the zigzag crosses the image: a hundred thousand of them are 1.3e9 pixels of outline."""
    side = 13_000
    zigzag = [value for number in range(100_000) for value in (side * (number % 2), number % side)]
    with pytest.raises(ValueError, match="outline is longer than"):
        read_regions([zigzag], (side, side))


@pytest.mark.parametrize(
    "size", [None, "914", [9], [9, 14, 1], [0, 9], [-9, -14], [9.0, 14], ["9", 14], [True, 14], [math.nan, 9]]
)
def test_what_is_no_size(size):
    with pytest.raises(ValueError, match="whole pixels"):
        check_size(size)


def test_sizes_that_would_fill_the_memory():
    assert check_size([MAX_PIXELS, 1]) == (MAX_PIXELS, 1)
    with pytest.raises(ValueError, match="pixels that an image may have"):
        check_size([MAX_PIXELS, 2])
    with pytest.raises(ValueError, match="pixels that an image may have"):
        read_regions({"size": [10**6, 10**6], "counts": [0, 10**12]}, None)
