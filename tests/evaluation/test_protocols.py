import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from s4eca.errors import S4ecaError
from s4eca.evaluation.protocols import (
    PROTOCOLS,
    TENTHS,
    count_pixels,
    exceeds,
    plain_iou,
    reaches,
    select,
    smoothed_iou,
)


def hits(rule, intersection: int, union: int) -> list[bool]:
    return rule(np.array([intersection]), np.array([union]))[0].tolist()


def test_detris_never_counts_an_exact_5_6_or_8_tenths():
    union = np.arange(10, 1_000_001, 10)
    for column, tenth in ((0, 5), (1, 6), (3, 8)):
        assert not exceeds(union // 10 * tenth, union)[:, column].any()


@pytest.mark.parametrize(("column", "tenth", "first"), [(2, 7, 60), (4, 9, 40)])
def test_detris_counts_an_exact_7_or_9_tenths_from_a_size_on(column, tenth, first):
    union = np.arange(10, 1_000_001, 10)
    counted = exceeds(union // 10 * tenth, union)[:, column]
    assert union[counted][0] == first  # the first multiple of ten from 59, from 38
    assert counted[union >= first].all()


@pytest.mark.parametrize(("tenth", "first"), [(7, 59), (9, 38)])
def test_the_sizes_are_those_of_exact_arithmetic(tenth, first):
    """t·U / (U + 1e-6) exceeds the float32 number nearest to t from this U on."""
    threshold = Fraction(float(np.float32(tenth / 10)))
    counted = [Fraction(tenth, 10) * u / (u + Fraction(1, 10**6)) > threshold for u in range(1, 200)]
    assert counted.index(True) + 1 == first


def test_detris_agrees_with_a_loop_over_torchs_own_thresholds():
    rng = np.random.default_rng(0)
    union = np.concatenate([rng.integers(1, 400_000, 3000), rng.integers(0, 30, 2000) * 10])
    intersection = np.concatenate([rng.integers(0, union[:3000] + 1), union[3000:] // 10 * rng.integers(5, 10, 2000)])
    ious = torch.from_numpy(np.array([i / (u + 1e-6) for i, u in zip(intersection, union, strict=True)]))
    expected = torch.stack([ious > threshold for threshold in torch.arange(0.5, 1.0, 0.1)], dim=1).numpy()
    assert (exceeds(intersection, union) == expected).all()


@pytest.mark.parametrize("tenth", TENTHS)
def test_reaches_counts_exact_thresholds_at_every_size_and_nothing_below(tenth):
    for tens in (1, 3, 7, 123_457):
        assert sum(hits(reaches, tenth * tens, 10 * tens)) == tenth - 4
        assert sum(hits(reaches, tenth * tens - 1, 10 * tens)) == tenth - 5 or tens == 1


def test_reaches_is_exact_where_floats_are_not():
    # 10 * 0.7 in floats is 7.000000000000001 for some spellings; fractions have no such spelling
    for union in range(1, 120):
        for intersection in range(union + 1):
            expected = [Fraction(intersection, union) >= Fraction(tenth, 10) for tenth in TENTHS]
            assert hits(reaches, intersection, union) == expected


def test_empty_unions_score_zero_and_hit_nothing():
    nothing = np.array([0])
    for protocol in PROTOCOLS.values():
        assert protocol.iou(nothing, nothing).tolist() == [0.0]
        assert not protocol.hits(nothing, nothing).any()


def test_iou_by_hand():
    assert plain_iou(np.array([3]), np.array([4])).tolist() == [0.75]
    assert smoothed_iou(np.array([3]), np.array([4])).tolist() == [3 / 4.000001]


def test_lavt_compares_with_the_truth_that_pil_resized(make_batch):
    """Only row 2 and column 2 of a 5x5 truth are set. PIL's nearest takes rows 0, 2, 4 for a size of 3."""
    original = np.zeros((5, 5), bool)
    original[2, :] = original[:, 2] = True
    resized = np.array(Image.fromarray(original).resize((3, 3), Image.Resampling.NEAREST))
    assert resized.tolist() == [[False, True, False], [True, True, True], [False, True, False]]
    # torch's and OpenCV's nearest take rows 0, 1, 3 and see nothing at all
    assert not torch.nn.functional.interpolate(torch.tensor(original)[None, None].float(), size=3).any()

    batch = make_batch(resized[None], [torch.tensor(original)])
    logits = torch.tensor([[[-1.0, 1, 1], [1, 0, 1], [-1, -1, -1]]])
    ((prediction, truth),) = PROTOCOLS["lavt"].masks(logits, batch)
    assert prediction.tolist() == [[False, True, True], [True, False, True], [False, False, False]]
    assert count_pixels(prediction, truth).tolist() == [3, 6, 5]


def test_original_resizes_the_logits_before_it_thresholds(make_batch):
    # bilinear weights of a doubling are 1/4 and 3/4: -1, 3 becomes -1, 0, 2, 3
    batch = make_batch(torch.ones(1, 1, 2), [torch.ones(1, 4)])
    ((prediction, truth),) = PROTOCOLS["original"].masks(torch.tensor([[[-1.0, 3.0]]]), batch)
    assert prediction.tolist() == [[False, False, True, True]]
    assert truth.shape == (1, 4)
    ((prediction, _),) = PROTOCOLS["original"].masks(torch.tensor([[[-1.0, 3.1]]]), batch)
    assert prediction.tolist() == [[False, True, True, True]]


def test_each_sample_has_its_own_original_size(make_batch):
    batch = make_batch(torch.ones(2, 4, 4), [torch.ones(8, 6), torch.zeros(3, 5)])
    for name in ("original", "detris"):
        shapes = [(p.shape, t.shape) for p, t in PROTOCOLS[name].masks(torch.ones(2, 4, 4), batch)]
        assert shapes == [((8, 6), (8, 6)), ((3, 5), (3, 5))]


def test_detris_thresholds_the_probability(make_batch):
    # log(0.35 / 0.65) = -0.61904
    logits = torch.tensor([[[-0.62, -0.618, 0.1]]])
    ((prediction, _),) = PROTOCOLS["detris"].masks(logits, make_batch(torch.ones(1, 1, 3)))
    assert prediction.tolist() == [[False, True, True]]


def test_detris_resizes_the_probability_bicubically(make_batch):
    # a doubling between logits -20 and 4, replicated edges: the first new pixel's cubic weights (a = -0.75) at
    # distance 0.25 are -0.10547, 0.87891, 0.26172, -0.03516, so its probability is 0.26172 - 0.03516 of 0.982, below
    # 0.35; the next one has 0.87891 - 0.10547 of it
    batch = make_batch(torch.ones(1, 1, 2), [torch.ones(1, 4)])
    ((prediction, _),) = PROTOCOLS["detris"].masks(torch.tensor([[[-20.0, 4.0]]]), batch)
    assert prediction.tolist() == [[False, False, True, True]]
    # probabilities 0.15 and 1: the second pixel has 0.15 · 0.77344 + 0.22656 = 0.3426; bilinear would give 0.3625, and
    # logits resized first a probability near 1
    ((prediction, _),) = PROTOCOLS["detris"].masks(torch.tensor([[[math.log(0.15 / 0.85), 20.0]]]), batch)
    assert prediction.tolist() == [[False, False, True, True]]


def test_bf16_logits_are_resized_in_float32(make_batch):
    logits = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    batch = make_batch(torch.ones(1, 6, 6), [torch.ones(31, 29)])
    for name in ("original", "detris"):
        ((rough, _),) = PROTOCOLS[name].masks(logits, batch)
        ((exact, _),) = PROTOCOLS[name].masks(logits.float(), batch)
        assert torch.equal(rough, exact)


def test_missing_original_masks_and_unknown_names_are_refused(make_batch):
    batch = make_batch(torch.ones(1, 2, 2), [])
    for name in ("original", "detris"):
        with pytest.raises(S4ecaError, match="no original masks"):
            list(PROTOCOLS[name].masks(torch.ones(1, 2, 2), batch))
    with pytest.raises(S4ecaError, match="'coco' is unknown: use one of lavt, original, detris"):
        select(["lavt", "coco"])
