import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning import Callback

from s4eca.errors import S4ecaError
from s4eca.evaluation.metrics import AREA, INTERSECTION, UNION
from s4eca.evaluation.results import build_evaluation
from s4eca.evaluation.summary import summarise_evaluation
from s4eca.fusion.pwam import PWAM
from s4eca.tuning import FullFineTuning
from tiny import shake, tiny_inputs
from toy import RandomState, every_step, fit, toy_data, toy_method, toy_module, toy_trainer


def test_warm_up_then_poly(tmp_path):
    data = toy_data(tmp_path / "data")
    module = toy_module(lr=1.0, warmup_steps=4)
    seen = []
    module.on_train_batch_start = lambda batch, batch_idx: seen.append(module.optimizers().param_groups[0]["lr"])
    fit(module, data, toy_trainer(tmp_path, max_epochs=2))
    expected = [min((step + 1) / 4, 1) * (1 - step / 12) ** 0.9 for step in range(12)]
    assert seen == pytest.approx(expected)


def test_a_schedule_needs_an_end(tmp_path):
    with pytest.raises(S4ecaError, match=r"set trainer\.max_epochs or trainer\.max_steps"):
        fit(toy_module(), toy_data(tmp_path / "data"), toy_trainer(tmp_path, max_epochs=-1))


def test_accumulated_batches_are_one_large_batch(tmp_path):
    weights = []
    for batch_size, accumulate in ((4, 2), (8, 1)):
        data = toy_data(tmp_path / "data", batch_size=batch_size)
        module = toy_module(method=None, warmup_steps=0)
        for part in module.segmenter.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        trainer = toy_trainer(tmp_path / str(batch_size), max_steps=2, accumulate_grad_batches=accumulate)
        fit(module, data, trainer)
        assert trainer.global_step == 2
        weights.append(module.segmenter.decoder.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_learns_and_only_what_should_be_learned(tmp_path):
    data = toy_data(tmp_path / "data")
    module = toy_module(lr=1e-2)
    before = {name: value.clone() for name, value in module.segmenter.state_dict().items()}
    losses = []
    original = module.training_step
    module.training_step = lambda batch, batch_idx: losses.append(float(loss := original(batch, batch_idx))) or loss
    fit(module, data, toy_trainer(tmp_path, max_epochs=6))
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:3])
    learned = set(module.segmenter.learned_state())
    for name, value in module.segmenter.state_dict().items():
        assert torch.equal(before[name], value) == (name not in learned), name


def test_validation_scores_are_those_of_a_plain_loop(tmp_path):
    data = toy_data(tmp_path / "data")
    module = toy_module()
    trainer = toy_trainer(tmp_path)
    fit(module, data, trainer)
    module.eval()
    ious, intersections, unions = [], 0, 0
    with torch.no_grad():
        for sample in data.dataset("val"):
            tokens = data.tokenizer([sample.expression], padding="max_length", max_length=22, return_tensors="pt")
            logits = module.segmenter(sample.image[None], tokens.input_ids, tokens.attention_mask)
            intersection = int(((logits[0] > 0) & sample.mask).sum())
            union = int(((logits[0] > 0) | sample.mask).sum())
            ious.append(intersection / union)
            intersections, unions = intersections + intersection, unions + union
    assert float(trainer.callback_metrics["val/mIoU"]) == pytest.approx(np.mean(ious), abs=1e-6)
    assert float(trainer.callback_metrics["val/oIoU"]) == pytest.approx(intersections / unions, abs=1e-6)
    assert module.scores["original"]["n"] == 6


@pytest.mark.parametrize("every", [1, 2])
def test_resumed_from_any_step_it_ends_with_the_same_bits(tmp_path, every):
    """All steps of two epochs, the last of an epoch included; the killed processes are in tests/system."""
    data = toy_data(tmp_path / "data")
    module = toy_module()
    fit(module, data, toy_trainer(tmp_path, every_step(tmp_path), RandomState(), accumulate_grad_batches=every))
    wanted = module.segmenter.state_dict()
    steps = 12 // every
    for step in range(1, steps):
        again = toy_module(seed=99)
        torch.manual_seed(1000 + step)
        path = tmp_path / "checkpoints" / f"step={step}.ckpt"
        trainer = toy_trainer(tmp_path / f"again_{step}", RandomState(), accumulate_grad_batches=every)
        fit(again, toy_data(tmp_path / "data"), trainer, resume=path)
        assert trainer.global_step == steps
        got = again.segmenter.state_dict()
        assert [name for name in wanted if not torch.equal(got[name], wanted[name])] == [], step


def test_dropout_is_at_work_in_the_resume_test():
    network = toy_module().segmenter.train()
    for parameter in network.method.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert not torch.equal(network(*tiny_inputs()), network(*tiny_inputs()))


def test_warm_up_of_zero_starts_at_the_peak(tmp_path):
    module = toy_module(lr=0.25, warmup_steps=0)
    trainer = toy_trainer(tmp_path, max_steps=1)
    rates = []
    module.on_train_batch_start = lambda batch, batch_idx: rates.append(module.optimizers().param_groups[0]["lr"])
    fit(module, toy_data(tmp_path / "data"), trainer)
    assert rates == [0.25]
    assert math.isfinite(float(trainer.callback_metrics["train/loss"]))


def test_rows_and_sizes_of_a_test_make_an_evaluation(tmp_path):
    """Images of 80 pixels at an input of 64: everything but lavt is counted at the file's size."""
    data = toy_data(tmp_path / "data", test=5, scene_size=80)
    module = toy_module()
    shake(module.segmenter, scale=0.3)
    trainer = toy_trainer(tmp_path)
    trainer.test(module, datamodule=data, verbose=False)
    evaluation = build_evaluation({"split": "test"}, data.references("test"), module.rows, module.sizes)
    areas = [int(reference.mask.decode().sum()) for reference in data.references("test")]
    assert [sample.area for sample in evaluation.samples] == areas
    assert {sample.size for sample in evaluation.samples} == {(80, 80)}
    assert evaluation.rows["original"][:, AREA].tolist() == areas
    assert evaluation.rows["lavt"][:, AREA].tolist() == [int(sample.mask.sum()) for sample in data.dataset("test")]
    summary = summarise_evaluation(evaluation, replicates=0)
    for protocol, scores in summary["protocols"].items():
        assert scores == pytest.approx(module.scores[protocol], rel=0, abs=0, nan_ok=True)
        assert float(trainer.callback_metrics[f"test/{protocol}/mIoU"]) == pytest.approx(scores["mIoU"], abs=1e-6)
        assert f"test/{protocol}/N-acc" not in trainer.callback_metrics


def test_no_target_samples_are_logged_by_their_accuracies(tmp_path):
    data = toy_data(tmp_path / "data", test=4)
    # the first two name nothing on purpose
    flags = [True, True, False, False]
    references = [replace(item, no_target=flag) for item, flag in zip(data.references("test"), flags, strict=True)]
    data.replace("test", references)
    module = toy_module()
    trainer = toy_trainer(tmp_path)
    trainer.test(module, datamodule=data, verbose=False)
    rows = module.rows["original"]
    predicted = (rows[:, UNION] - rows[:, AREA] + rows[:, INTERSECTION]) > 0
    logged = trainer.callback_metrics
    assert float(logged["test/original/N-acc"]) == np.mean(~predicted[:2])
    assert float(logged["test/original/T-acc"]) == np.mean(predicted[2:])
    assert (module.scores["original"]["n"], module.scores["original"]["n_no_target"]) == (2, 2)


def test_what_is_trained_is_in_train_mode_while_a_trainer_fits(tmp_path):
    seen = []

    class Spy(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            network = pl_module.segmenter
            parts = [network.text.block(0), network.vision.block(0), network.decoder]
            seen.append([part.training for part in parts])

    for method, expected in ((FullFineTuning(), [True, True, True]), (toy_method(), [False, False, True])):
        seen.clear()
        module = toy_module(method=method, fusion=PWAM)
        data = toy_data(tmp_path / "data", train=8)  # validations between the epochs
        fit(module, data, toy_trainer(tmp_path / "run", Spy(), max_epochs=2))
        assert seen == [expected] * 4, type(method)
