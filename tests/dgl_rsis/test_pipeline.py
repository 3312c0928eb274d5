import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dgl_rsis.pipelines import tiny_pipeline
from dgl_rsis.stand_ins import CountingProposer, view
from s4eca.dgl_rsis.decoupling.rules import RuleDecoupler
from s4eca.dgl_rsis.knowledge import Knowledge
from s4eca.dgl_rsis.pipeline import noun_phrase

EXPRESSIONS = [
    "a ship",
    "the small red ship on the upper left of the large gray storage tank",
    "windmill at the bottom",
    "the thing",
]


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


def test_together_and_one_by_one_agree(pipeline):
    scene = view(size=(40, 56))
    together = pipeline.evidence(scene, EXPRESSIONS)
    for expression, evidence in zip(EXPRESSIONS, together, strict=True):
        (alone,) = tiny_pipeline().evidence(scene, [expression])
        assert evidence.phrase == alone.phrase
        for name in ("cells", "similarity", "sentence", "noun_phrase"):
            np.testing.assert_allclose(getattr(evidence, name), getattr(alone, name), atol=1e-6, err_msg=name)
        for name in ("local", "context", "whole", "average"):
            one, other = getattr(evidence.maps, name), getattr(alone.maps, name)
            np.testing.assert_allclose(one, other, atol=1e-6, err_msg=name)
        assert evidence.maps.score == pytest.approx(alone.maps.score, abs=1e-6)
        np.testing.assert_array_equal(
            pipeline.selector.select(evidence).mask, pipeline.selector.select(alone).mask, err_msg=expression
        )


def test_a_module_in_train_mode_leaves_the_models_in_evaluation_mode():
    """What Lightning does to everything that it trains beside it; CLIP's attention would drop half."""
    pipeline = tiny_pipeline()
    pipeline.regions.clip.model.text_model.encoder.layers[0].self_attn.dropout = 0.5
    before = pipeline.evidence(view(size=(40, 56)), EXPRESSIONS[:1])[0].sentence
    pipeline.train()
    for part in (pipeline.proposer, pipeline.regions, pipeline.grounding):
        assert not any(module.training for module in part.modules())
    pipeline.stages = tiny_pipeline().stages.__class__(pipeline.proposer, pipeline.regions, pipeline.grounding)
    np.testing.assert_array_equal(pipeline.evidence(view(size=(40, 56)), EXPRESSIONS[:1])[0].sentence, before)


def test_evidence_is_what_its_parts_say(pipeline):
    scene = view(size=(40, 56))
    (evidence,) = pipeline.evidence(scene, ["the red ship on the left of the windmill"])
    clip = pipeline.regions.clip
    with torch.no_grad():
        ids = clip.tokenizer(
            ["the red ship on the left of the windmill", "red ship"], padding=True, return_tensors="pt"
        )
        texts = F.normalize(clip.model.get_text_features(input_ids=ids.input_ids).pooler_output, dim=-1).numpy()
    regions = pipeline.stages.regions(scene)
    np.testing.assert_allclose(evidence.sentence, regions @ texts[0], atol=1e-5)
    np.testing.assert_allclose(evidence.noun_phrase, regions @ texts[1], atol=1e-5)
    assert evidence.classes[: len(pipeline.knowledge.classes)] == tuple(
        item.name for item in pipeline.knowledge.classes
    )
    assert evidence.classes[-evidence.n_background :] == pipeline.knowledge.background
    assert evidence.similarity.shape == (2, len(evidence.classes))
    # the upsampled map is summed inside each half
    whole = torch.from_numpy(evidence.maps.whole)[None, None]
    upsampled = F.interpolate(whole, size=(40, 56), mode="bilinear", align_corners=False)[0, 0].numpy()
    for place in range(2):
        inside = upsampled[evidence.proposals.mask(place)].sum()
        assert (evidence.cells[place] * evidence.maps.whole).sum() == pytest.approx(inside, rel=1e-4)


def test_no_proposal_still_gives_a_mask():
    pipeline = tiny_pipeline(CountingProposer(count=0))
    (selection,) = pipeline.segment(view(size=(40, 56)), ["a ship"])
    assert "no proposal" in selection.fallback
    assert selection.mask.shape == (40, 56)
    assert selection.mask.any()
    assert pipeline.label(view(size=(40, 56)), {"tau": 100.0}).max() == 0


def test_labels_are_those_of_the_best_class(pipeline):
    scene = view(size=(40, 56))
    labels = pipeline.label(scene, {"tau": 100.0, "threshold": 0.0})
    similarity = pipeline.stages.regions(scene) @ pipeline.bank().features.T
    for place in range(2):
        best = int(similarity[place].argmax())
        wanted = best + 1 if best < len(pipeline.classes) else 0
        assert set(labels[pipeline.stages.proposals(scene).mask(place)].tolist()) == {wanted}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("the small red ship on the left", "small red ship"),
        ("A windmill", "windmill"),
        ("the gray Storage Tank near the ship", "gray Storage Tank"),
        ("", ""),
    ],
)
def test_the_noun_phrase_is_the_head_with_its_attributes(expression, said):
    assert noun_phrase(RuleDecoupler(Knowledge.load("synthetic"))(expression)) == said
