from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning import Trainer

from dgl_rsis.pipelines import tiny_pipeline
from dgl_rsis.stand_ins import CountingProposer
from s4eca.data import SyntheticDataModule
from s4eca.dgl_rsis.parts import Selection
from s4eca.dgl_rsis.proposals.oracle import Oracle
from s4eca.lit.dgl_rsis import CERTAIN, DglRsis, look, names_of


class Perfect:
    """Chooses the proposal that comes first, which is the oracle's truth."""

    def select(self, evidence):
        scores = -np.arange(len(evidence.proposals), dtype=np.float32)
        return Selection(evidence.proposals.mask(0), (0,), scores, np.zeros((2, 2)), "flat map; no known noun")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    module = SyntheticDataModule(
        root=tmp_path_factory.mktemp("scenes"),
        train=2,
        val=2,
        test=5,
        scene_size=64,
        image_size=64,
        num_workers=0,
        batch_size=2,
    )
    module.prepare_data()
    return module


def run(module, data, what="test"):
    pipeline = module.pipeline
    data.tokenizer = pipeline.regions.tokenizer
    data.max_tokens = pipeline.regions.max_tokens
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    if what == "test":
        trainer.test(module, datamodule=data, verbose=False)
        return trainer
    return trainer.predict(module, dataloaders=data.test_dataloader())


def test_oracle_and_perfect_scorer_give_the_truth(data):
    module = DglRsis(tiny_pipeline(Oracle(CountingProposer()), Perfect()))
    run(module, data)
    for protocol in ("lavt", "original", "detris"):
        rows = module.rows[protocol]
        assert len(rows) == 5
        assert (rows[:, 1] == rows[:, 2]).all(), "intersection and union differ"
    assert module.scores["lavt"]["mIoU"] == 1
    summary = module.summary()
    assert summary["proposal_recall"] == {"mean_best_IoU": 1.0, "share_at_0.5": 1.0}
    assert summary["proposals_per_image"] == 3
    assert summary["fallbacks"]["flat map"] == 5


def test_scores_are_those_of_the_selected_masks(data):
    module = DglRsis(tiny_pipeline())
    trainer = run(module, data)
    dataset = data.dataset("test", train=False)
    ious, ceilings = [], []
    for sample in (dataset[place] for place in range(5)):
        (selection,) = module.pipeline.segment(look(sample.image), [sample.expression])
        truth = sample.mask.numpy()
        ious.append((selection.mask & truth).sum() / (selection.mask | truth).sum())
        left = np.zeros((64, 64), bool)
        left[:, :32] = True
        ceilings.append(max((half & truth).sum() / (half | truth).sum() for half in (left, ~left)))
    assert module.scores["lavt"]["mIoU"] == pytest.approx(np.mean(ious))
    assert trainer.callback_metrics["test/mIoU"].item() == pytest.approx(np.mean(ious), abs=1e-6)
    assert module.summary()["proposal_recall"]["mean_best_IoU"] == pytest.approx(np.mean(ceilings), abs=1e-6)
    assert set(module.findings) == {reference.id for reference in data.references("test")}


def test_predictions_have_the_size_of_the_image_file(data):
    module = DglRsis(tiny_pipeline())
    shrunk = SyntheticDataModule(
        root=data.root, train=2, val=2, test=5, scene_size=64, image_size=48, num_workers=0, batch_size=3
    )
    predictions = [item for batch in run(module, shrunk, "predict") for item in batch]
    references = shrunk.references("test")
    assert [item.id for item in predictions] == [reference.id for reference in references]
    assert [item.expression for item in predictions] == [reference.expression for reference in references]
    for item in predictions:
        assert item.mask.shape == (64, 64)
        assert len(item.scores) == 2
        assert item.mask[:, 32 * (item.chosen[0])].all(), "one of the halves"


def test_an_image_of_several_expressions_is_looked_at_once(data):
    proposer = CountingProposer()
    module = DglRsis(tiny_pipeline(proposer))
    data.tokenizer, data.max_tokens = module.pipeline.regions.tokenizer, 32
    batch = next(iter(data.evaluation_loader("test")))
    image = batch.image[:1].expand(2, -1, -1, -1)
    shared = replace(batch, image=image, expressions=["the ship", "a red windmill"])
    module.test_step(shared, 0)
    assert proposer.calls == 1
    logits = module.test_step(batch, 0)
    assert proposer.calls == 2, "the first image is still at hand"
    assert set(logits.unique().tolist()) <= {CERTAIN, -CERTAIN}
    assert logits.shape == (2, 64, 64)


def test_views_are_the_pixels_of_the_tensor():
    image = torch.arange(2 * 3 * 4, dtype=torch.uint8).reshape(3, 2, 4)
    seen = look(image, "name", torch.ones(2, 4, dtype=torch.bool))
    assert seen.image.shape == (2, 4, 3)
    assert seen.image[1, 2].tolist() == image[:, 1, 2].tolist()
    assert seen.truth.all()
    assert seen.key == look(image.clone()).key


def test_fallbacks_by_name():
    assert names_of(None, "flat map; no known noun", "no proposal") == ["flat map", "no known noun", "no proposal"]
