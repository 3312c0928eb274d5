import numpy as np
import pytest

from dgl_rsis.selection.made_evidence import NOUNLESS, SHIP, evidence, maps, proposals
from s4eca.dgl_rsis.selection.iterprime import IterPrimeSelector
from s4eca.errors import S4ecaError

LOCAL = [[0, 0, 0, 0], [0, 4, 2, 0], [0, 0, 1, 0]]  # 3 x 4 pixels and as many cells
NEAR = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]  # holds the peak: 2 pixels, 1.5 inside
AROUND = [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]  # holds it: 3 pixels, 1.5
BESIDE = [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]  # does not: 1 pixel, 0.5
LOOSE = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]  # holds it in one of two parts: 2 pixels, 1
FAR = [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]  # 1 pixel, 0


def made(*masks, phrase=SHIP, **options):
    return evidence(proposals(np.array(masks, bool), **options), maps(LOCAL), phrase=phrase)


def score(pixels, inside):
    return (pixels + inside) / (pixels + 1e-5)


def test_scores_by_hand():
    selection = IterPrimeSelector().select(made(AROUND, NEAR, BESIDE, LOOSE))
    expected = [score(3, 1.5), score(2, 1.5), -1, score(2, 1)]
    np.testing.assert_allclose(selection.scores, expected, rtol=1e-7)
    assert (selection.chosen, selection.fallback) == ((1,), None)
    assert (selection.mask == np.array(NEAR, bool)).all()


@pytest.mark.parametrize(("most", "chosen"), [(2, 0), (1, 1)])
def test_proposals_of_many_parts_are_left_out(most, chosen):
    selection = IterPrimeSelector(max_components=most).select(made(LOOSE, np.ones((3, 4))))
    assert (selection.chosen, selection.fallback) == ((chosen,), None)


def test_many_parts_are_taken_where_nothing_else_holds_the_peak():
    selection = IterPrimeSelector(max_components=1).select(made(BESIDE, LOOSE))
    assert (selection.chosen, selection.fallback) == ((1,), "screens")


def test_the_best_of_all_where_nothing_holds_the_peak():
    selection = IterPrimeSelector().select(made(FAR, BESIDE))
    assert (selection.chosen, selection.fallback) == ((1,), "peak outside all proposals")
    np.testing.assert_allclose(selection.scores, [score(1, 0), score(1, 0.5)], rtol=1e-7)


def test_the_peak_outside_and_many_parts():
    loose = [[1, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    selector = IterPrimeSelector(max_components=1)
    assert selector.select(made(FAR, loose)).chosen == (0,)
    selection = selector.select(made(loose))
    assert (selection.chosen, selection.fallback) == ((0,), "peak outside all proposals; screens")


def test_the_peak_is_the_centre_of_its_cell():
    # 2 x 2 cells of 3 x 5 pixels; the centre of the strongest is (4, 7)
    masks = np.zeros((2, 6, 10), bool)
    masks[0, 4:, 8:] = True
    masks[1, 3:, 5:8] = masks[1, 0] = True
    selection = IterPrimeSelector().select(evidence(proposals(masks), maps([[0, 0], [0, 1]])))
    assert (selection.chosen, selection.scores[0]) == ((1,), -1)


def test_a_flat_map_leaves_the_proposers_choice():
    found = proposals(np.array([FAR, NEAR, BESIDE], bool), scores=np.array([0.3, 0.8, 0.5]))
    selection = IterPrimeSelector().select(evidence(found, maps(np.ones((3, 4)))))
    assert (selection.chosen, selection.fallback) == ((1,), "flat map")
    np.testing.assert_allclose(selection.scores, [0.3, 0.8, 0.5])


def test_without_a_proposal():
    selection = IterPrimeSelector().select(evidence(proposals(None, size=(3, 4)), maps(LOCAL)))
    expected = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert (selection.mask == np.array(expected, bool)).all()
    assert (selection.chosen, selection.fallback) == ((), "no proposal")
    empty = IterPrimeSelector().select(evidence(proposals(None, size=(3, 4)), maps(np.zeros((2, 2)))))
    assert (empty.mask.any(), empty.fallback) == (False, "no proposal; flat map")


def test_a_single_proposal_is_chosen():
    assert IterPrimeSelector().select(made(FAR)).chosen == (0,)


def test_of_equal_means_the_larger_proposal_is_chosen():
    # 400 and 800 pixels of activation 1: their scores differ by 2.5e-8
    words, masks = np.zeros((1, 40)), np.zeros((3, 40, 40), bool)
    words[:, :30], masks[0, :, :10], masks[1:, :, :20] = 1, True, True
    selection = IterPrimeSelector().select(evidence(proposals(masks), maps(words)))
    assert selection.scores[0] == selection.scores[1]
    assert selection.chosen == (1,)


def test_of_equal_proposals_the_earlier_one_is_chosen():
    assert IterPrimeSelector().select(made(FAR, NEAR, NEAR)).chosen == (1,)


@pytest.mark.parametrize(("kind", "chosen"), [("iterprime", 1), ("whole", 0), ("local", 1), ("mul", 2), ("average", 3)])
def test_the_map_that_is_asked_for_is_used(kind, chosen):
    words = maps([[0, 2, 1.5, 0]], context=[[0, 0, 3, 0]], whole=[[5, 4, 0, 0]], average=[[0, 0, 0, 1]])
    # mean of (1, .8, 0, 0), (0, 1, .75, 0) and (0, 0, 1, 0): (1, 1.8, 1.75, 0) / 3
    selector = IterPrimeSelector(map=kind)
    selection = selector.select(evidence(proposals(np.eye(4, dtype=bool).reshape(4, 1, 4)), words))
    assert selection.chosen == (chosen,)
    if kind == "iterprime":
        np.testing.assert_allclose(selection.activation, [[1 / 1.8, 1, 1.75 / 1.8, 0]], rtol=1e-6)


def test_lam_weighs_the_context():
    words = maps([[0, 1, 0.9, 0]], context=[[0, 0, 1, 0]])
    found = evidence(proposals(np.eye(4, dtype=bool).reshape(4, 1, 4)), words)
    assert [IterPrimeSelector(map="mul", lam=lam).select(found).chosen for lam in (0.1, 0.12)] == [(1,), (2,)]


def test_an_expression_without_a_noun():
    assert IterPrimeSelector(map="mul").select(made(NEAR, phrase=NOUNLESS)).fallback == "no noun"
    assert IterPrimeSelector().select(made(NEAR, phrase=NOUNLESS)).fallback is None  # its map needs none


@pytest.mark.parametrize(("key", "value"), [("map", "peak"), ("lam", -1), ("max_components", 0)])
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(S4ecaError, match=rf"^selector\.{key}={value} "):
        IterPrimeSelector(**{key: value})
