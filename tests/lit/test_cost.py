import json
import time
from functools import partial

import pytest
import torch
from lightning import Callback

from s4eca.cost import saved_bytes
from s4eca.decoders.fpn import FPNDecoder
from s4eca.features import plan_features
from s4eca.fusion.film import FiLM
from s4eca.fusion.pwam import PWAM
from s4eca.lit.cost import TIMED, WARM_UP, Cost
from s4eca.lit.referring import ReferringModule
from s4eca.lit.reporting import DataWait
from s4eca.losses import BCEDice
from s4eca.parameters import count_parameters
from s4eca.segmenter import ReferringSegmenter
from s4eca.tuning import Frozen
from tiny import tiny_inputs, tiny_segmenter, tiny_text, tiny_vision
from toy import fit, toy_data, toy_module, toy_trainer


def read(folder):
    return json.loads((folder / "cost.json").read_text())


class Slow(Callback):
    """Validation and loading take their time."""

    def on_validation_batch_start(self, *arguments):
        time.sleep(0.05)

    def on_train_epoch_start(self, *arguments):
        time.sleep(0.05)


class Look(Callback):
    """Reads the file after every validation."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append(read(self.folder)["step_seconds"]["steps"])


def test_a_run_writes_its_cost(tmp_path):
    data, module = toy_data(tmp_path / "data"), toy_module()
    look = Look(tmp_path)
    fit(module, data, toy_trainer(tmp_path, Cost(), Slow(), look, max_epochs=2))
    cost = read(tmp_path)
    assert set(cost) == {
        *("parameters", "percent", "saved_bytes", "peak_bytes", "step_seconds", "batch_size", "device", "precision"),
        *("processes", "placement", "grad_checkpointing", "feature_cache", "data_wait"),
    }
    counts = count_parameters(module.segmenter)
    towers = counts["text tower"].total + counts["vision tower"].total
    assert cost["parameters"] == {
        "towers": towers,
        "method": counts["method"].learned,
        "head": counts["norms"].learned + counts["decoder"].learned,
    }
    assert cost["percent"] == pytest.approx(100 * counts["method"].learned / towers)
    # 24 samples in batches of 4, two epochs; the first three batches of the process are a warm-up
    assert look.seen == [6 - WARM_UP, 12 - WARM_UP]
    seconds = cost["step_seconds"]
    assert seconds["steps"] == 12 - WARM_UP
    assert 0 < seconds["q1"] <= seconds["median"] <= seconds["q3"]
    assert (cost["batch_size"], cost["device"], cost["precision"]) == (4, "cpu", "32-true")
    assert (cost["placement"], cost["grad_checkpointing"]) == ("inside", "none")
    assert (cost["processes"], cost["feature_cache"]) == (1, False)
    assert cost["peak_bytes"] is None
    assert 0 < cost["data_wait"] < 1
    assert not module.segmenter.fusion._forward_pre_hooks


def test_waiting_is_the_median_over_logging_intervals(tmp_path, monkeypatch):
    shares = iter([0.5, 0.1, 0.9, 0.3, 0.2, 0.0])
    monkeypatch.setattr(DataWait, "share", lambda self, trainer: next(shares))
    fit(toy_module(), toy_data(tmp_path / "data"), toy_trainer(tmp_path, Cost(), max_epochs=1))
    assert read(tmp_path)["data_wait"] == pytest.approx(0.25)


def test_its_bytes_are_those_of_a_forward_pass(tmp_path):
    """Of the same network on another batch of the same size."""
    data = toy_data(tmp_path / "data")
    fit(toy_module(), data, toy_trainer(tmp_path, Cost(), max_steps=1))
    found = read(tmp_path)
    module = toy_module().train()
    image, ids, mask = tiny_inputs(batch=4, length=data.max_tokens)
    masks = torch.zeros(image[:, 0].shape, dtype=torch.bool)
    inputs = (image, ids, mask)
    saved = saved_bytes(module.segmenter, lambda: module.loss(module.segmenter(*inputs), masks), (*inputs, masks))
    assert found["saved_bytes"] == {"towers_and_method": saved.towers_and_method, "step": saved.step}
    assert found["step_seconds"] == {"median": None, "q1": None, "q3": None, "steps": 0}


def test_training_is_the_same_with_it(tmp_path):
    losses = []
    for callbacks in ([], [Cost()]):
        data, module = toy_data(tmp_path / "data"), toy_module()
        trainer = toy_trainer(tmp_path, *callbacks, max_steps=3)
        fit(module, data, trainer)
        losses.append([value.clone() for value in module.segmenter.learned_state().values()])
    assert all(torch.equal(one, other) for one, other in zip(*losses, strict=True))


def test_a_failing_step_leaves_no_hook(tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, logits, masks):
            raise ValueError("broken")

    module = toy_module()
    module.loss = Broken()
    with pytest.raises(ValueError, match="broken"):
        fit(module, toy_data(tmp_path / "data"), toy_trainer(tmp_path, Cost(), max_steps=1))
    assert not module.segmenter.fusion._forward_pre_hooks
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    assert not (tmp_path / "cost.json").exists()


def test_only_so_many_steps_are_timed():
    callback = Cost()
    timed = 0
    for _ in range(WARM_UP + TIMED + 5):
        if callback._is_timed():
            timed += 1
            callback._marks.append((0.0, 1.0))
        callback._batches += 1
    assert timed == TIMED == 200


def test_a_frozen_network_keeps_nothing_of_its_towers(tmp_path):
    module = toy_module()
    module.segmenter = tiny_segmenter(Frozen(), FiLM)
    fit(module, toy_data(tmp_path / "data"), toy_trainer(tmp_path, Cost(), max_steps=1))
    cost = read(tmp_path)
    assert cost["percent"] == cost["parameters"]["method"] == 0
    assert cost["saved_bytes"]["towers_and_method"] == 0
    assert cost["saved_bytes"]["step"] > 0


def test_steps_that_fill_the_feature_cache_are_not_timed(tmp_path):
    data = toy_data(tmp_path / "data")

    def run(folder):
        settings = {"text": tiny_text(), "vision": tiny_vision(), "method": Frozen(), "fusion": PWAM}
        network = ReferringSegmenter(**settings, decoder=partial(FPNDecoder, width=8), placement="side")
        module = ReferringModule(network, BCEDice(), warmup_steps=1, feature_cache=str(tmp_path / "cache"))
        trainer = toy_trainer(folder, Cost(), max_epochs=2)
        plan_features(module.features, data, trainer)
        fit(module, data, trainer)
        return read(folder)

    first, again = run(tmp_path / "first"), run(tmp_path / "again")
    # six batches an epoch: the first epoch fills, the second reads
    assert (first["step_seconds"]["steps"], again["step_seconds"]["steps"]) == (6, 12 - WARM_UP)
    assert first["feature_cache"]
