import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dgl_rsis.selection.made_evidence import evidence, maps, proposals, scene
from s4eca.dgl_rsis.selection.glclip import GlClipSelector
from s4eca.errors import S4ecaError


def made(sentence, noun_phrase, words=None):
    masks, _ = scene(1, (21, 34), len(sentence))
    words = maps(np.eye(3, 5)) if words is None else words
    return evidence(proposals(masks), words, sentence=sentence, noun_phrase=noun_phrase), masks


@pytest.mark.parametrize(
    ("r", "scores", "chosen"), [(0.5, [0.35, 0.5, 0.45], 1), (1.0, [0.6, 0.2, 0.5], 0), (0.0, [0.1, 0.8, 0.4], 1)]
)
def test_scores_by_hand(r, scores, chosen):
    found, masks = made([0.6, 0.2, 0.5], [0.1, 0.8, 0.4])
    selection = GlClipSelector(r=r).select(found)
    np.testing.assert_allclose(selection.scores, scores, rtol=1e-6)
    assert (selection.chosen, selection.fallback) == ((chosen,), None)
    assert (selection.mask == masks[chosen]).all()


@pytest.mark.parametrize("r", [0.0, 0.3, 0.5, 1.0])
def test_the_order_is_that_of_the_cosine_with_the_mixed_text(r):
    torch.manual_seed(0)
    regions, texts = F.normalize(torch.randn(12, 8), dim=1), F.normalize(torch.randn(2, 8), dim=1)
    cosine = F.cosine_similarity(regions, (r * texts[0] + (1 - r) * texts[1])[None])
    found, _ = made((regions @ texts[0]).numpy(), (regions @ texts[1]).numpy())
    scores = GlClipSelector(r=r).select(found).scores
    assert (-scores).argsort().tolist() == cosine.argsort(descending=True).tolist()


def test_negative_cosines_are_scores_too():
    found, _ = made([-0.3, -0.1], [-0.3, -0.1])
    assert GlClipSelector().select(found).chosen == (1,)


def test_of_equal_proposals_the_earlier_one_is_chosen():
    found, _ = made([0.1, 0.4, 0.4], [0.1, 0.4, 0.4])
    assert GlClipSelector().select(found).chosen == (1,)


def test_a_single_proposal_is_chosen_whatever_the_map():
    found, masks = made([-0.2], [-0.2], maps(np.zeros((2, 3))))
    selection = GlClipSelector().select(found)
    assert (selection.chosen, selection.fallback) == ((0,), None)
    assert (selection.mask == masks[0]).all()


def test_the_sentences_map_is_shown_and_stands_in_for_proposals():
    words = maps(np.zeros((2, 3)), whole=[[0, 0, 1], [0, 0, 2]])
    assert GlClipSelector().select(made([0.1], [0.1], words)[0]).activation.tolist() == [[0, 0, 0.5], [0, 0, 1]]
    selection = GlClipSelector().select(evidence(proposals(None, size=(2, 3)), words))
    assert selection.mask.tolist() == [[False, False, True], [False, False, True]]
    assert (selection.chosen, selection.fallback) == ((), "no proposal")
    flat = GlClipSelector().select(evidence(proposals(None, size=(2, 3)), maps(np.zeros((2, 3)))))
    assert (flat.mask.any(), flat.fallback) == (False, "no proposal; flat map")


@pytest.mark.parametrize("r", [-0.1, 1.01, float("nan"), None])
def test_settings_out_of_range_are_named(r):
    with pytest.raises(S4ecaError, match=rf"^selector\.r={r} "):
        GlClipSelector(r=r)
