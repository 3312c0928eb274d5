import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dgl_rsis.selection.made_evidence import NOUNLESS, evidence, maps, proposals, scene
from s4eca.dgl_rsis.selection.outcome import threshold_map
from s4eca.dgl_rsis.selection.threshold import ThresholdSelector
from s4eca.errors import S4ecaError

LOCAL = [[0, 1, 0, 2, 4], [0, 1, 0, 0, 3]]  # as many pixels: 0.25, 0.25, 0.5, 1, 0.75


def made(words, size=(2, 5)):
    return evidence(proposals(np.ones((2, *size), bool)), words)


@pytest.mark.parametrize(
    ("threshold", "largest", "expected"),
    [
        (0.5, False, [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]),  # the threshold itself is in
        (0.6, False, [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]),
        (0.25, False, [[0, 1, 0, 1, 1], [0, 1, 0, 0, 1]]),
        (0.25, True, [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]),
        (1.0, True, [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]),
    ],
)
def test_masks_by_hand(threshold, largest, expected):
    selection = ThresholdSelector(threshold=threshold, largest_component=largest).select(made(maps(LOCAL)))
    assert selection.mask.astype(int).tolist() == expected
    assert (selection.chosen, selection.scores.tolist(), selection.fallback) == ((), [0, 0], None)


@given(st.integers(0, 10_000), st.floats(0.01, 1.0), st.booleans())
@settings(max_examples=40, deadline=None)
def test_masks_are_those_of_the_upsampled_map(seed, threshold, largest):
    generator = np.random.default_rng(seed)
    grid, size = generator.integers(2, 7, 2), generator.integers(8, 40, 2)
    activation = generator.random(grid).astype(np.float32)
    mask = threshold_map(activation, tuple(size.tolist()), threshold, largest_component=largest)
    pixels = cv2.resize(activation, size[::-1].tolist(), interpolation=cv2.INTER_LINEAR)
    expected = pixels >= min(threshold, pixels.max())
    if largest:
        labels, _ = ndimage.label(expected, np.ones((3, 3)))
        expected = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    near = abs(pixels - min(threshold, pixels.max())) < 1e-5  # there the two libraries may round differently
    if not near.any() or not largest:
        assert (mask == expected)[~near].all()
    assert mask.any()


def test_the_first_of_equal_parts_is_kept():
    # the part further right starts in an earlier row
    activation = np.array([[0, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0]], np.float32)
    mask = threshold_map(activation, (3, 4), 0.5, largest_component=True)
    assert mask.astype(int).tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_corners_connect():
    mask = threshold_map(np.eye(3, dtype=np.float32), (3, 3), 0.5, largest_component=True)
    assert mask.sum() == 3


def test_a_peak_that_upsampling_flattens_is_kept():
    # 2 pixels a cell: the peak is 0.75² of what it was, at 4 pixels
    activation = np.zeros((3, 4), np.float32)
    activation[1, 2] = 1
    mask = threshold_map(activation, (6, 8), 0.9, largest_component=False)
    assert np.argwhere(mask).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


def test_a_flat_map_gives_an_empty_mask():
    selection = ThresholdSelector().select(made(maps(np.full((2, 5), 7))))
    assert (selection.mask.shape, selection.mask.any(), selection.fallback) == ((2, 5), False, "flat map")


def test_proposals_play_no_part():
    masks, _ = scene(2, (19, 26), 4)
    words = maps(np.eye(3, 5))
    one = ThresholdSelector().select(evidence(proposals(masks), words))
    none = ThresholdSelector().select(evidence(proposals(None, size=(19, 26)), words))
    assert (one.mask == none.mask).all()
    assert (len(one.scores), len(none.scores), none.fallback) == (4, 0, None)


@pytest.mark.parametrize(("kind", "place"), [("mul", 2), ("add", 2), ("local", 1), ("whole", 0), ("average", 3)])
def test_the_map_that_is_asked_for_is_used(kind, place):
    words = maps([[0, 1, 0.9, 0]], context=[[0, 0, 1, 0]], whole=[[1, 0, 0, 0]], average=[[0, 0, 0, 1]])
    selection = ThresholdSelector(map=kind, threshold=1.0).select(made(words, (1, 4)))
    assert np.flatnonzero(selection.mask).tolist() == [place]


def test_lam_weighs_the_context():
    words = maps([[0, 1, 0.9, 0]], context=[[0, 0, 1, 0]])
    masks = [ThresholdSelector(lam=lam, threshold=1.0).select(made(words, (1, 4))).mask for lam in (0.1, 0.12)]
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [[1], [2]]


def test_an_expression_without_a_noun():
    found = evidence(proposals(None, size=(2, 5)), maps(LOCAL), phrase=NOUNLESS)
    assert ThresholdSelector().select(found).fallback == "no noun"
    assert ThresholdSelector(map="whole").select(found).fallback is None


@pytest.mark.parametrize(
    ("key", "value"), [("map", "peak"), ("lam", -1), ("threshold", 0), ("threshold", 1.5), ("largest_component", 1)]
)
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(S4ecaError, match=rf"^selector\.{key}={value} "):
        ThresholdSelector(**{key: value})
