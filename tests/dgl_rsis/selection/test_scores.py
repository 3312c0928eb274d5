import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from dgl_rsis.selection.made_evidence import proposals, scene
from s4eca.dgl_rsis.grounding.activation import cell_weights
from s4eca.dgl_rsis.selection.scores import (
    activation_shares,
    class_probabilities,
    contains_pixel,
    count_bits,
    peak_cell,
    peak_pixel,
    rescale,
    touches_peak,
)

SIZES = st.tuples(st.integers(5, 40), st.integers(5, 40))
GRIDS = st.tuples(st.integers(1, 7), st.integers(1, 7))
SEEDS = st.integers(0, 10_000)


def test_shares_of_an_activation_by_hand():
    activation = np.array([[0, 0.5, 1.0], [0, 0, 0.5]], np.float32)  # one cell a pixel, 2.0 in all
    masks = np.array(
        [
            [[0, 1, 1], [0, 0, 0]],  # 1.5 of 2 pixels; 0.5 of the other 4
            [[1, 0, 0], [1, 1, 0]],  # 0 of 3; 2 of the other 3
            [[1, 1, 1], [1, 1, 1]],  # all; no others
        ],
        bool,
    )
    shares = activation_shares(masks.astype(np.float32), proposals(masks), activation)
    np.testing.assert_allclose(shares.inside, [0.75, 0, 2 / 6])
    np.testing.assert_allclose(shares.outside, [0.125, 2 / 3, 0])
    np.testing.assert_allclose(shares.coverage, [0.75, 0, 1])


def test_no_activation_covers_nothing():
    masks = np.ones((1, 2, 3), bool)
    shares = activation_shares(masks.astype(np.float32), proposals(masks), np.zeros((2, 3), np.float32))
    assert [part.tolist() for part in shares] == [[0], [0], [0]]


@given(SEEDS, SIZES, GRIDS)
@settings(max_examples=40, deadline=None)
def test_shares_are_those_of_the_upsampled_map(seed, size, grid):
    activation = np.random.default_rng(seed).random(grid).astype(np.float32)
    masks, _ = scene(seed, (size[0] + 15, size[1] + 15), 4)
    shares = activation_shares(cell_weights(masks, *grid), proposals(masks), activation)
    # another library's bilinear upsampling, and its pixels one mask at a time
    pixels = cv2.resize(activation, masks.shape[:0:-1], interpolation=cv2.INTER_LINEAR).astype(np.float64)
    for place, mask in enumerate(masks):
        outside = pixels[~mask].mean() if not mask.all() else 0
        expected = pixels[mask].mean(), outside, pixels[mask].sum() / pixels.sum()
        np.testing.assert_allclose([part[place] for part in shares], expected, atol=1e-4)


def test_equal_proposals_have_equal_shares():
    masks, _ = scene(3, (37, 41), 9)
    masks = np.concatenate([masks, masks])
    activation = np.random.default_rng(0).random((7, 6)).astype(np.float32)
    for part in activation_shares(cell_weights(masks, 7, 6), proposals(masks), activation):
        assert part[:9].tolist() == part[9:].tolist()


def test_the_first_of_equal_peaks_counts():
    assert peak_cell(np.array([[0, 1, 0], [2, 0, 2]])) == (1, 0)


@pytest.mark.parametrize(
    ("grid", "cell", "size", "pixel"),
    [
        ((1, 1), (0, 0), (5, 7), (2, 3)),  # the pixel in the middle
        ((2, 2), (1, 0), (4, 8), (3, 2)),  # cells of 2 x 4 pixels: the one after the middle
        ((24, 24), (23, 0), (800, 600), (783, 12)),  # cells of 33.3 x 25: from 766.7 to 800, from 0 to 25
        ((3, 2), (2, 1), (3, 2), (2, 1)),
    ],
)
def test_the_peak_pixel_is_in_the_middle_of_its_cell(grid, cell, size, pixel):
    activation = np.zeros(grid)
    activation[cell] = 1
    assert peak_pixel(activation, size) == pixel


@given(SEEDS, GRIDS, st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5]))
@settings(max_examples=40, deadline=None)
def test_upsampling_is_highest_at_the_peak_pixel(seed, grid, down, across):
    activation = np.random.default_rng(seed).random(grid).astype(np.float32)
    size = grid[0] * down, grid[1] * across
    pixels = cv2.resize(activation, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert pixels[peak_pixel(activation, size)] == pytest.approx(pixels.max(), abs=1e-6)


@given(SEEDS, SIZES)
@settings(max_examples=20, deadline=None)
def test_contains_pixel(seed, size):
    masks, _ = scene(seed, (size[0] + 15, size[1] + 15), 5)
    generator = np.random.default_rng(seed)
    y, x = int(generator.integers(masks.shape[1])), int(generator.integers(masks.shape[2]))
    assert contains_pixel(proposals(masks), y, x).tolist() == masks[:, y, x].tolist()


@given(SEEDS, SIZES, st.tuples(st.integers(1, 60), st.integers(1, 60)))
@settings(max_examples=80, deadline=None)
def test_touches_peak_is_a_pixel_near_the_peak_cell(seed, size, grid):
    generator = np.random.default_rng(seed)
    masks = generator.random((6, *size)) < 0.03
    masks[:, 0, 0] |= ~masks.any(axis=(1, 2))
    activation = generator.random(grid)
    row, column = np.unravel_index(activation.argmax(), grid)
    expected = np.zeros(6, bool)
    for y in range(size[0]):
        for x in range(size[1]):
            down, across = int((y + 0.5) / size[0] * grid[0] + 1e-9), int((x + 0.5) / size[1] * grid[1] + 1e-9)
            if abs(down - row) <= 1 and abs(across - column) <= 1:
                expected |= masks[:, y, x]
    assert touches_peak(proposals(masks), activation).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([2, 6, 4, 3], "minmax", [0, 1, 0.5, 0.25]),
        ([2, 60, 4, 3], "rank", [0, 1, 2 / 3, 1 / 3]),
        ([5, 1, 5], "rank", [0.75, 0, 0.75]),  # both share the places 1 and 2 of 0 to 2
        ([5, 1, 5], "minmax", [1, 0, 1]),
        ([7], "rank", [0.5]),
        ([7], "minmax", [0.5]),
        ([3, 3], "rank", [0.5, 0.5]),
        ([3, 3], "minmax", [0.5, 0.5]),
        ([1, 1 + 1e-12, 2], "rank", [0.25, 0.25, 1]),  # rounding is no order
        ([], "rank", []),
        ([], "minmax", []),
    ],
)
def test_rescale_by_hand(values, kind, expected):
    np.testing.assert_allclose(rescale(np.array(values, float), kind), expected)


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=30))
@settings(max_examples=40, deadline=None)
def test_ranks_are_scipys(values):
    if len(set(values)) > 1:
        expected = (rankdata(values, method="average") - 1) / (len(values) - 1)
        np.testing.assert_allclose(rescale(np.array(values, float), "rank"), expected)


@pytest.mark.parametrize("tau", [1.0, 100.0, 1e5])
def test_class_probabilities_are_torchs_softmax(tau):
    similarity = np.random.default_rng(0).uniform(-1, 1, (5, 4)).astype(np.float32)
    expected = torch.softmax(tau * torch.from_numpy(similarity).double(), dim=1)
    np.testing.assert_allclose(class_probabilities(similarity, tau), expected, rtol=1e-9)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 31])
def test_count_bits(length):
    bits = np.random.default_rng(length).integers(0, 256, length + 3, dtype=np.uint8)[3:]
    assert count_bits(bits) == sum(int(byte).bit_count() for byte in bits)
