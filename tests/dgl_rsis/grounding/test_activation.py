import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_rsis.grounding.phrases import make_phrase
from s4eca.dgl_rsis.grounding.activation import (
    KINDS,
    cell_weights,
    fuse,
    iterprime_map,
    spatial_prior,
    upsample,
)
from s4eca.dgl_rsis.parts import Maps
from s4eca.errors import S4ecaError

SHIP = make_phrase("gray ship on the left", local="ship", context="gray left")
FLAT = np.zeros((2, 2), np.float32)


def maps(local, context, whole=((5, 5), (5, 6)), average=((1, 2), (3, 5))):
    return Maps(*(np.array(values, np.float32) for values in (local, context, whole, average)), score=0.0)


# normalised by hand: local (0, 0.5, 1, 0.25), context (1, 0, 0.5, 0)
TWO = maps([[1, 3], [5, 2]], [[6, 2], [4, 2]])


@pytest.mark.parametrize(
    ("kind", "lam", "expected"),
    [
        ("mul", 1.0, [[0, 1 / 3], [1, 1 / 6]]),  # (0, 0.5, 1.5, 0.25) / 1.5
        ("mul", 2.0, [[0, 1 / 4], [1, 1 / 8]]),  # (0, 0.5, 2, 0.25) / 2
        ("mul", 0.0, [[0, 0.5], [1, 0.25]]),
        ("add", 1.0, [[0.6, 0.2], [1, 0]]),  # (1, 0.5, 1.5, 0.25), less 0.25, over 1.25
        ("add", 0.5, [[0.25, 0.25], [1, 0]]),  # (0.5, 0.5, 1.25, 0.25), less 0.25, over 1
        ("local", 1.0, [[0, 0.5], [1, 0.25]]),
        ("whole", 1.0, [[0, 0], [0, 1]]),
        ("average", 1.0, [[0, 0.25], [0.5, 1]]),
    ],
)
def test_the_maps_are_joined_as_worked_out_by_hand(kind, lam, expected):
    activation, fallback = fuse(TWO, SHIP, kind, lam)
    np.testing.assert_allclose(activation, expected, atol=1e-6)
    assert activation.dtype == np.float32
    assert fallback is None


@pytest.mark.parametrize("kind", ["mul", "add"])
@pytest.mark.parametrize("context", [FLAT, FLAT + 3])
def test_without_modifiers_the_noun_alone_decides(kind, context):
    activation, fallback = fuse(maps([[1, 3], [5, 2]], context), make_phrase("ship", local="ship"), kind)
    np.testing.assert_allclose(activation, [[0, 0.5], [1, 0.25]], atol=1e-6)
    assert fallback is None


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_noun_the_sentence_decides(kind):
    activation, fallback = fuse(TWO, make_phrase("on the left", context="left"), kind)
    if kind in ("mul", "add", "local"):
        np.testing.assert_array_equal(activation, [[0, 0], [0, 1]])
        assert fallback == "no noun"
    else:
        assert fallback is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 0.1, 1e-30])
def test_a_flat_map_is_named(kind, value):
    same = FLAT + np.float32(value)
    activation, fallback = fuse(Maps(same, same, same, same, 0.0), SHIP, kind)
    assert fallback == "flat map"
    np.testing.assert_array_equal(activation, FLAT)


def test_modifiers_can_outweigh_each_other_in_a_sum():
    # normalised, the two add up to 1 everywhere
    assert fuse(maps([[0, 1], [1, 0]], [[1, 0], [0, 1]]), SHIP, "add")[1] == "flat map"


def test_an_unknown_way_of_joining_is_refused():
    with pytest.raises(S4ecaError, match=r"selector\.map=avg .*mul, add, local, whole, average"):
        fuse(TWO, SHIP, "avg")


@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=6, max_size=6),
    st.sampled_from([1e-12, 0.125, 1e12]),
    st.floats(0, 10),
    st.sampled_from(KINDS),
)
@settings(max_examples=60, deadline=None)
def test_an_activation_spans_0_to_1_whatever_the_scale(values, scale, lam, kind):
    local = np.array(values).reshape(2, 3) * scale
    found = maps(local, np.roll(local, 1), local.T.reshape(2, 3), local + scale)
    activation, fallback = fuse(found, SHIP, kind, lam)
    assert activation.min() == 0
    assert activation.max() == (0 if fallback else 1)
    assert (fallback == "flat map") == (not activation.any())


def test_the_iterprime_map_is_the_mean_of_its_three_sources():
    # normalised: whole (0, 0, 0, 1), local (0, 0.5, 1, 0.25), context (1, 0, 0.5, 0); sums (1, 0.5, 1.5, 1.25)
    activation, fallback = iterprime_map(TWO)
    np.testing.assert_allclose(activation, [[0.5, 0], [1, 0.75]], atol=1e-6)
    assert fallback is None
    without_context = maps([[1, 3], [5, 2]], FLAT)
    np.testing.assert_allclose(iterprime_map(without_context)[0], [[0, 0.4], [0.8, 1]], atol=1e-6)
    assert iterprime_map(Maps(FLAT, FLAT, FLAT, FLAT, 0.0))[1] == "flat map"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((), [[1, 1], [1, 1]]),
        (("left",), [[0.825, 0.475], [0.825, 0.475]]),  # the cells' centres are a quarter and three quarters across
        (("right",), [[0.475, 0.825], [0.475, 0.825]]),
        (("top",), [[0.825, 0.825], [0.475, 0.475]]),
        (("bottom",), [[0.475, 0.475], [0.825, 0.825]]),
        (("bottom", "right"), [[0.475**2, 0.475 * 0.825], [0.825 * 0.475, 0.825**2]]),
        (("middle",), [[0.65**2, 0.65**2], [0.65**2, 0.65**2]]),
        (("middle", "left"), [[0.65 * 0.825, 0.65 * 0.475]] * 2),
        (("top", "middle"), [[0.825 * 0.65] * 2, [0.475 * 0.65] * 2]),
    ],
)
def test_the_ramp_falls_from_the_place_that_is_meant(place, expected):
    ramp = spatial_prior((2, 2), place)
    np.testing.assert_allclose(ramp, expected, rtol=1e-6)
    assert ramp.dtype == np.float32


def test_the_ramp_runs_from_1_to_three_tenths():
    fine = spatial_prior((1, 7000), ("left",))[0]
    assert fine[0] == pytest.approx(1, abs=1e-3)
    assert fine[-1] == pytest.approx(0.3, abs=1e-3)
    centre = spatial_prior((701, 701), ("middle",))
    assert centre[350, 350] == 1
    assert centre[350, 0] == pytest.approx(0.3, abs=1e-3)
    assert centre[0, 350] == pytest.approx(0.3, abs=1e-3)


def test_an_unknown_place_is_refused():
    with pytest.raises(ValueError, match="north"):
        spatial_prior((2, 2), ("left", "north"))


def slow_sum(values, mask):
    """Sum of a bilinearly upsampled map inside a mask, by the formula, pixel by pixel."""
    rows, columns = values.shape
    height, width = mask.shape
    total = 0.0
    for y, x in np.argwhere(mask):
        v = max((y + 0.5) * rows / height - 0.5, 0)
        u = max((x + 0.5) * columns / width - 0.5, 0)
        top, left = int(v), int(u)
        bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        v, u = v - top, u - left
        total += (1 - v) * ((1 - u) * values[top, left] + u * values[top, right])
        total += v * ((1 - u) * values[bottom, left] + u * values[bottom, right])
    return total


sides = st.integers(1, 40)
cells = st.integers(1, 9)


@given(sides, sides, cells, cells, st.integers(0, 11), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_cells_sum_up_the_upsampled_map_inside_a_mask(height, width, rows, columns, count, seed):
    random = np.random.default_rng(seed)
    masks = random.random((count, height, width)) < random.random()
    values = random.random((rows, columns)).astype(np.float32)
    weights = cell_weights(masks, rows, columns)
    assert weights.shape == (count, rows, columns)
    assert weights.dtype == np.float32
    up = F.interpolate(torch.from_numpy(values)[None, None], size=(height, width), mode="bilinear", align_corners=False)
    up = up[0, 0].double().numpy()
    np.testing.assert_allclose(upsample(values, (height, width)), up, atol=1e-7)
    for weight, mask in zip(weights, masks, strict=True):
        assert (weight.astype(np.float64) * values).sum() == pytest.approx(up[mask].sum(), rel=1e-5, abs=1e-6)
        assert weight.sum(dtype=np.float64) == pytest.approx(mask.sum(), rel=1e-5)


@pytest.mark.parametrize(("size", "grid"), [((13, 29), (4, 6)), ((5, 4), (7, 9)), ((8, 8), (1, 1))])
def test_cells_and_upsampling_follow_the_formula(size, grid):
    random = np.random.default_rng(5)
    masks = random.random((3, *size)) < 0.4
    values = random.random(grid)
    weights = cell_weights(masks, *grid)
    for weight, mask in zip(weights, masks, strict=True):
        assert (weight * values).sum() == pytest.approx(slow_sum(values, mask), rel=1e-5)
        assert upsample(values, size)[mask].sum() == pytest.approx(slow_sum(values, mask), rel=1e-5)


def test_full_size_images_are_exact_and_quick():
    random = np.random.default_rng(1)
    masks = np.zeros((20, 800, 800), bool)
    for mask in masks:
        y, x = random.integers(0, 780, 2)
        mask[y : y + random.integers(4, 800), x : x + random.integers(4, 800)] = True
    values = random.random((24, 24)).astype(np.float32)
    started = time.process_time()
    weights = cell_weights(masks, 24, 24)
    assert time.process_time() - started < 1  # 0.04 s on a free core
    up = upsample(values, (800, 800)).astype(np.float64)
    expected = [up[mask].sum() for mask in masks]
    np.testing.assert_allclose((weights.astype(np.float64) * values).sum((1, 2)), expected, rtol=1e-5)
