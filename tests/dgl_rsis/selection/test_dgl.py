from dataclasses import replace

import numpy as np
import pytest

from dgl_rsis.selection.made_evidence import NOUNLESS, SHIP, UNKNOWN, evidence, maps, proposals, scene
from s4eca.dgl_rsis.selection.dgl import DglSelector
from s4eca.errors import S4ecaError

# 4 x 5 pixels and as many cells; the activation is 1, 0.5, 0.5 and nothing else
LOCAL = [[0, 0, 0, 0, 0], [0, 4, 2, 0, 0], [0, 2, 0, 0, 0], [0, 0, 0, 0, 0]]
OUTLINE, CORE, EDGE = np.zeros((3, 4, 5), bool)
OUTLINE[[1, 1, 2], [1, 2, 1]] = True  # inside 2/3, coverage 1, outside 0: s_glob = 7/6
CORE[1, 1] = True  # inside 1, coverage 1/2, outside 1/19: s_glob = 91/76
EDGE[:, 4] = True  # inside 0, coverage 0, outside 1/8: s_glob = -1/8
PROBABILITIES = [[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1]]  # ship, plane, bare ground
OPTIONS = {"tau": 1.0, "min_area": 1}
GLOBAL = (7 / 6 + 1 / 8) / (91 / 76 + 1 / 8)  # the outline's on the scale from the edge's to the core's


def by_hand(**options):
    return evidence(proposals(np.stack([OUTLINE, CORE, EDGE])), maps(LOCAL), PROBABILITIES, **options)


@pytest.mark.parametrize(
    ("normalise", "expected", "chosen"),
    [
        ("minmax", [0.6 * GLOBAL + 0.4 * 0.5 + 0.1, 0.6 + 0.1, 0.4], 0),
        ("rank", [0.6 * 0.5 + 0.4 * 0.5 + 0.1, 0.6 + 0.1, 0.4], 1),
    ],
)
def test_scores_by_hand(normalise, expected, chosen):
    selection = DglSelector(normalise=normalise, **OPTIONS).select(by_hand())
    np.testing.assert_allclose(selection.scores, expected, rtol=1e-6)
    assert (selection.chosen, selection.fallback) == ((chosen,), None)
    assert (selection.mask == [OUTLINE, CORE][chosen]).all()
    np.testing.assert_array_equal(selection.activation, np.array(LOCAL) / 4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"alpha": 0.0, "peak_bonus": 0.0}, [0.5, 0, 1]),
        ({"alpha": 1.0, "peak_bonus": 0.0}, [GLOBAL, 1, 0]),
        ({"alpha": 1.0, "peak_bonus": 0.7}, [GLOBAL + 0.7, 1.7, 0]),
        # inside - outside alone: 2/3, 18/19, -1/8
        ({"alpha": 1.0, "peak_bonus": 0.0, "coverage_weight": 0.0}, [(2 / 3 + 1 / 8) / (18 / 19 + 1 / 8), 1, 0]),
    ],
)
def test_every_weight_acts(options, expected):
    selection = DglSelector(normalise="minmax", **OPTIONS, **options).select(by_hand())
    np.testing.assert_allclose(selection.scores, expected, rtol=1e-6)


def test_tau_is_the_factor_of_the_cosines():
    # squares of the probabilities: 25/38, 4/54, 64/66
    selection = DglSelector(tau=2.0, alpha=0.0, normalise="minmax", min_area=1, peak_bonus=0.0).select(by_hand())
    np.testing.assert_allclose(selection.scores[0], (25 / 38 - 4 / 54) / (64 / 66 - 4 / 54), rtol=1e-5)


@pytest.mark.parametrize("kind", ["mul", "add", "local", "whole", "average"])
def test_every_kind_of_map_acts(kind):
    # the sentence's map is highest at the edge, the mean of all words over the core
    words = maps([[0, 1], [0, 0.9]], context=[[0, 0], [0, 1]], whole=[[0, 0], [1, 0]], average=[[1, 0], [0, 0]])
    cells = np.eye(4, dtype=bool).reshape(4, 2, 2)
    selector = DglSelector(map=kind, min_area=1, alpha=1.0, peak_bonus=0.0)
    chosen = {"mul": 3, "add": 3, "local": 1, "whole": 2, "average": 0}[kind]
    assert selector.select(evidence(proposals(cells), words)).chosen == (chosen,)


def test_lam_weighs_the_context():
    words = maps([[0, 1], [0, 0.9]], context=[[0, 0], [0, 1]])
    cells = np.eye(4, dtype=bool).reshape(4, 2, 2)
    made = evidence(proposals(cells), words)
    options = {"min_area": 1, "alpha": 1.0, "peak_bonus": 0.0}
    # 0.9 · (1 + lam) is above 1 from lam = 1/9 on
    assert [DglSelector(lam=lam, **options).select(made).chosen for lam in (0.1, 0.12)] == [(1,), (3,)]


@pytest.mark.parametrize(
    ("place", "chosen"),
    [(("left",), 0), (("right",), 1), ((), 0)],
)
def test_spatial_prior_weighs_the_place(place, chosen):
    # two equal ships; centres of the outer columns at 1/8 of the width: 1 - 0.7/8 and 1 - 0.7 · 7/8
    words = maps([[1, 0, 0, 1]])
    cells = np.eye(4, dtype=bool).reshape(4, 1, 4)
    made = evidence(proposals(cells[[0, 3]]), words, phrase=replace(SHIP, place=place))
    selection = DglSelector(spatial_prior=True, min_area=1).select(made)
    assert selection.chosen == (chosen,)
    far = (1 - 0.7 * 7 / 8) / (1 - 0.7 / 8)
    expected = {("left",): [1, 0, 0, far], ("right",): [far, 0, 0, 1], (): [1, 0, 0, 1]}[place]
    np.testing.assert_allclose(selection.activation, [expected], rtol=1e-5)
    assert DglSelector(min_area=1).select(made).chosen == (0,)


@pytest.mark.parametrize(
    ("options", "passing"),
    [
        ({"min_area": 9}, [0, 2, 3]),
        ({"min_area": 10}, [2, 3]),
        ({"max_share": 0.5}, [0, 1, 2]),
        ({"max_components": 1}, [0, 1, 3]),
    ],
)
def test_screens(options, passing):
    masks = np.zeros((4, 10, 8), bool)
    masks[0, :3, :3] = masks[1, :2, :2] = True
    masks[2, ::2] = True  # 5 stripes, half of the image
    masks[3, :6] = True
    selector = DglSelector(**{"min_area": 1, **options})
    selection = selector.select(evidence(proposals(masks), maps(np.eye(10, 8))))
    assert np.flatnonzero(selection.scores >= 0).tolist() == passing
    assert selection.scores[selection.scores < 0].tolist() == [-1] * (4 - len(passing))
    assert selection.chosen[0] in passing
    assert selection.fallback is None


def test_what_is_screened_out_does_not_move_the_scale():
    # the core is screened out, so the outline is the highest and the edge the lowest
    selection = DglSelector(tau=1.0, min_area=2, alpha=1.0, normalise="minmax", peak_bonus=0.0).select(by_hand())
    assert selection.scores.tolist() == [1, -1, 0]


def test_screens_are_dropped_where_nothing_passes():
    selection = DglSelector(tau=1.0, min_area=5, normalise="minmax").select(by_hand())
    expected = DglSelector(normalise="minmax", **OPTIONS).select(by_hand())
    assert (selection.fallback, selection.chosen) == ("screens", (0,))
    assert selection.scores.tolist() == expected.scores.tolist()


def test_a_noun_without_a_class_is_compared_as_a_phrase():
    made = by_hand(phrase=UNKNOWN, noun_phrase=[0.1, 0.3, 0.2])
    selection = DglSelector(alpha=0.0, normalise="minmax", peak_bonus=0.0, **OPTIONS).select(made)
    np.testing.assert_allclose(selection.scores, [0, 1, 0.5], rtol=1e-5)
    assert (selection.chosen, selection.fallback) == ((1,), "no known noun")


def test_a_category_that_the_text_bank_lacks_is_no_known_noun():
    made = by_hand(phrase=replace(SHIP, category="windmill"), noun_phrase=[0.1, 0.3, 0.2])
    assert DglSelector(**OPTIONS).select(made).fallback == "no known noun"


def test_an_expression_without_a_noun():
    selection = DglSelector(**OPTIONS).select(by_hand(phrase=NOUNLESS, noun_phrase=[0.1, 0.3, 0.2]))
    assert selection.fallback == "no known noun; no noun"  # the second is of the map
    assert selection.chosen == (1,)


def test_a_flat_map_leaves_the_class():
    made = evidence(proposals(np.stack([OUTLINE, CORE, EDGE])), maps(np.full((4, 5), 3.0)), PROBABILITIES)
    selection = DglSelector(normalise="minmax", **OPTIONS).select(made)
    np.testing.assert_allclose(selection.scores, [0.5, 0, 1], rtol=1e-6)
    assert (selection.chosen, selection.fallback) == ((2,), "flat map")
    both = DglSelector(min_area=5, tau=1.0).select(replace(made, phrase=UNKNOWN))
    assert both.fallback == "flat map; screens; no known noun"
    assert both.mask.any()


def test_without_a_proposal_the_map_is_the_mask():
    # the left part is larger, the right one higher; cells of 2 x 2 pixels
    grid = np.zeros((6, 10), np.float32)
    grid[1:3, 1:4], grid[4, 8] = 0.9, 1.0
    selection = DglSelector().select(evidence(proposals(None, size=(12, 20)), maps(grid)))
    assert (selection.chosen, selection.scores.shape, selection.fallback) == ((), (0,), "no proposal")
    # upsampled, a part's outermost pixels are 0.9 · 0.75, its corners 0.9 · 0.75², the pixels around it 0.9 · 0.25
    expected = np.zeros((12, 20), bool)
    expected[2:6, 2:8] = True
    assert (selection.mask == expected).all()


def test_the_mask_is_empty_only_without_proposal_and_map():
    selection = DglSelector().select(evidence(proposals(None, size=(6, 7)), maps(np.zeros((3, 2)))))
    assert selection.fallback == "no proposal; flat map"
    assert selection.mask.shape == (6, 7)
    assert not selection.mask.any()


@pytest.mark.parametrize("mode", ["argmax", "union"])
@pytest.mark.parametrize("normalise", ["rank", "minmax"])
def test_a_single_proposal_is_chosen(mode, normalise):
    masks, _ = scene(4, (31, 23), 1)
    selection = DglSelector(mode=mode, normalise=normalise).select(evidence(proposals(masks), maps(np.eye(3, 5))))
    assert selection.chosen == (0,)
    assert (selection.mask == masks[0]).all()


@pytest.mark.parametrize("mode", ["argmax", "union"])
def test_of_equal_proposals_the_earlier_one_is_chosen(mode):
    masks, _ = scene(5, (31, 23), 1)
    made = evidence(proposals(np.repeat(masks, 3, axis=0)), maps(np.eye(3, 5)))
    assert DglSelector(mode=mode).select(made).chosen == (0,)


@pytest.mark.parametrize(
    ("ratio", "probabilities", "chosen"),
    [
        (0.85, PROBABILITIES, (0,)),  # 0.886, 0.7 and 0.4
        (0.75, PROBABILITIES, (0,)),  # the core is more of a plane
        (0.4, PROBABILITIES, (0, 2)),
        (0.75, [[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.8, 0.1, 0.1]], (0,)),  # the core brings no new pixel
    ],
)
def test_union_joins_what_is_of_the_same_class(ratio, probabilities, chosen):
    made = evidence(proposals(np.stack([OUTLINE, CORE, EDGE])), maps(LOCAL), probabilities)
    selection = DglSelector(mode="union", union_ratio=ratio, normalise="minmax", **OPTIONS).select(made)
    assert selection.chosen == chosen
    assert (selection.mask == np.stack([OUTLINE, CORE, EDGE])[list(chosen)].any(axis=0)).all()


@pytest.mark.parametrize(("overlap", "chosen"), [(1.0, (0, 1, 2, 3)), (0.5, (0, 2, 3)), (0.24, (0, 3)), (0.0, (0, 3))])
def test_union_overlap_leaves_out_other_outlines(overlap, chosen):
    masks = np.zeros((5, 3, 12), bool)
    masks[0, :, :4] = True
    masks[1, :, :5] = True  # all of the first
    masks[2, :, 3:7] = True  # a quarter of either
    masks[3, :, 8:11] = True  # none
    masks[4, :, 11] = True  # the lowest, whose score is 0
    words, cosines = maps(np.zeros((3, 12))), [0.9, 0.8, 0.7, 0.6, 0.5]
    made = evidence(proposals(masks), words, phrase=UNKNOWN, noun_phrase=cosines)
    selector = DglSelector(mode="union", union_ratio=1e-9, union_overlap=overlap, min_area=1)
    assert selector.select(made).chosen == chosen


def test_union_overlap_is_of_the_pixels_that_are_joined():
    masks = np.zeros((4, 1, 18), bool)
    masks[0, :, :4] = masks[1, :, 3:7] = True  # joined they are 7 pixels, not 8
    masks[2, :, 3:17] = True  # 4 of them, more than half
    masks[3, :, 17] = True  # the lowest, whose score is 0
    made = evidence(proposals(masks), maps(np.zeros((1, 18))), phrase=UNKNOWN, noun_phrase=[0.9, 0.8, 0.7, 0.6])
    selector = DglSelector(mode="union", union_ratio=1e-9, union_overlap=0.5, min_area=1)
    assert selector.select(made).chosen == (0, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("map", "mean"),
        ("lam", -0.1),
        ("lam", float("nan")),
        ("lam", float("inf")),
        ("alpha", 1.1),
        ("alpha", "much"),
        ("tau", 0),
        ("coverage_weight", -1),
        ("normalise", "softmax"),
        ("mode", "all"),
        ("union_ratio", 0),
        ("union_overlap", 1.5),
        ("peak_bonus", -0.1),
        ("max_components", 0),
        ("max_components", 1.5),
        ("min_area", 0),
        ("max_share", 0),
        ("max_share", True),
        ("spatial_prior", "no"),
    ],
)
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(S4ecaError, match=rf"^selector\.{key}={value} "):
        DglSelector(**{key: value})
