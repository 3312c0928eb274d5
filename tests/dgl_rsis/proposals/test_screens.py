import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.dgl_rsis.parts import Proposals
from s4eca.dgl_rsis.proposals.screens import check_screens, mask_iou, nothing, screen
from s4eca.errors import S4ecaError


def slow_iou(one, two):
    return np.count_nonzero(one & two) / np.count_nonzero(one | two)


def made(seed, count, height=7, width=11):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, height, width)) < rng.random((count, 1, 1))
    masks[:, 0, 0] |= ~masks.any(axis=(1, 2))
    for place in range(1, count, 3):  # near-copies, which chance does not make
        masks[place] = masks[place - 1]
        masks[place, 3, 3] = True
    return Proposals.from_masks(masks, rng.integers(0, 4, count) / 4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 12),
    nms_iou=st.sampled_from([0.3, 0.5, 0.8, 1.0]),
    limit=st.sampled_from([None, 1, 4]),
    max_components=st.sampled_from([None, 1, 3]),
    min_area=st.sampled_from([1, 20]),
)
def test_screen_is_the_plain_loop(seed, count, nms_iou, limit, max_components, min_area):
    proposals = made(seed, count)
    masks = proposals.masks()
    wanted = []
    for place in sorted(range(count), key=lambda place: (-proposals.scores[place], place)):
        if not min_area <= masks[place].sum() <= 0.6 * 77:
            continue
        if max_components is not None and proposals.components[place] > max_components:
            continue
        if all(slow_iou(masks[place], masks[other]) <= nms_iou for other in wanted):
            wanted.append(place)
    kept = screen(
        proposals, min_area=min_area, max_share=0.6, max_components=max_components, nms_iou=nms_iou, limit=limit
    )
    np.testing.assert_array_equal(kept.masks(), masks[wanted[:limit]])
    np.testing.assert_array_equal(kept.scores, proposals.scores[wanted[:limit]])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
def test_mask_iou_is_the_plain_loop(seed, count):
    proposals = made(seed, count)
    wanted = [[slow_iou(one, two) for two in proposals.masks()] for one in proposals.masks()]
    table = mask_iou(proposals)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, wanted, rtol=1e-6)


def test_nothing_passes_through():
    assert len(screen(nothing((3, 5)))) == 0
    assert mask_iou(nothing((3, 5))).shape == (0, 0)


@pytest.mark.parametrize(
    "setting",
    [{"min_area": 0}, {"max_share": 0.0}, {"max_share": 1.5}, {"max_components": 0}, {"nms_iou": 0.0}, {"limit": 0}],
)
def test_settings_that_make_no_sense_are_named(setting):
    with pytest.raises(S4ecaError, match=f"proposer.{next(iter(setting))}="):
        check_screens(**setting)
