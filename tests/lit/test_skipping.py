import json
import math
import os
from functools import partial

import pytest
import torch
import torch._dynamo  # FSDP's hooks import it: here, once
from lightning import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader

from forked import in_two
from s4eca.data.sampler import EpochSampler
from s4eca.decoders.lavt import LAVTDecoder
from s4eca.errors import S4ecaError
from s4eca.lit import EMA
from s4eca.lit.distributed import DDP
from s4eca.lit.referring import ReferringModule
from s4eca.lit.sharded import FSDP, gathered
from s4eca.lit.skipping import spread
from s4eca.losses import BCEDice
from s4eca.segmenter import ReferringSegmenter
from tiny import tiny_text, tiny_vision
from toy import RandomState, every_step, fit, toy_data, toy_method, toy_module, toy_trainer

STEPS = 4


class Poisoned(nn.Module):
    """BCE and Dice, spoilt while `kind` is set."""

    kind = None

    def forward(self, logits, masks):
        loss = BCEDice()(logits, masks)
        if self.kind == "nan":
            return loss * math.nan
        return loss + math.inf if self.kind == "inf" else loss  # an infinite loss with finite gradients


def with_batch_norm(fused, **options):
    torch.manual_seed(0)
    network = ReferringSegmenter(tiny_text(), tiny_vision(), toy_method(), partial(LAVTDecoder, factor=8))
    return ReferringModule(network, Poisoned(), lr=3e-3, warmup_steps=2, fused_optimizer=fused, **options)


class Poison(Callback):
    """Spoils the batch in which one sample is: its loss, or all activations behind the towers."""

    def __init__(self, id, kind):
        self.id, self.kind, self.bad = id, kind, False

    def on_fit_start(self, trainer, pl_module):
        def spoil(module, inputs, output):
            return output * math.nan if self.bad and self.kind == "forward" else output

        pl_module.segmenter.norms[-1].register_forward_hook(spoil)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.bad = self.id in batch.ids
        pl_module.loss.kind = self.kind if self.bad else None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.bad, pl_module.loss.kind = False, None


def everything(module, trainer, ema):
    """What training changes, as one flat list of tensors."""
    state = trainer.optimizers[0].state_dict()["state"]
    moments = [value for name in sorted(state) for _, value in sorted(state[name].items())]
    return [*module.segmenter.state_dict().values(), *moments, *ema.raw.values(), *ema.shadow.values()]


def order(data, batches):
    """Ids of the first training batches."""
    loader = iter(data.train_dataloader())
    return [next(loader).ids for _ in range(batches)]


@pytest.mark.parametrize(
    ("fused", "kind", "accumulate"),
    [(True, "inf", 1), (True, "forward", 2), (False, "forward", 1)],
)
def test_a_poisoned_step_is_as_if_it_had_been_left_out(tmp_path, fused, kind, accumulate):
    data = toy_data(tmp_path / "data", train=4 * STEPS * accumulate)
    ids = order(data, STEPS * accumulate)
    place = 2 * accumulate  # the first batch of the third step
    options = {"max_epochs": 1, "limit_val_batches": 0, "accumulate_grad_batches": accumulate}
    options["gradient_clip_val"] = 1.0 if fused else None
    module, ema = with_batch_norm(fused), EMA(0.5)
    trainer = toy_trainer(tmp_path / "run", Poison(ids[place][1], kind), ema, **options)
    (tmp_path / "run").mkdir()
    fit(module, data, trainer)

    class LeavesOut(ReferringModule):
        def training_step(self, batch, batch_idx):
            if batch_idx == place:
                self.before = {name: value.clone() for name, value in self.segmenter.named_buffers()}
            return super().training_step(batch, batch_idx)

        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            if batch_idx // accumulate != 2:
                return super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            optimizer_closure()
            for name, value in self.segmenter.named_buffers():
                value.copy_(self.before[name])
            # Lightning counts steps in here
            trainer = self.trainer
            trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.increment_ready()
            return None

    torch.manual_seed(0)
    other, expected = with_batch_norm(fused), EMA(0.5)
    other.__class__ = LeavesOut
    reference = toy_trainer(tmp_path / "reference", expected, **options)
    fit(other, data, reference)
    found, wanted = everything(module, trainer, ema), everything(other, reference, expected)
    assert len(found) == len(wanted)
    assert all(value.isfinite().all() for value in found)
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))
    steps = {float(state["step"]) for state in trainer.optimizers[0].state.values()}
    assert steps == {STEPS - 1.0}
    written = json.loads((tmp_path / "run" / "skipped_steps.json").read_text())
    together = [id for batch in ids[place : place + accumulate] for id in batch]
    assert written == {
        "skipped_steps": 1,
        "max_skipped_steps": 20,
        "steps": [{"step": 2, "epoch": 0, "ids": together}],
    }
    assert not (tmp_path / "reference" / "skipped_steps.json").exists()


def test_a_step_that_is_broken_off_leaves_no_statistics(tmp_path):
    data, module = toy_data(tmp_path / "data", train=4), with_batch_norm(True)
    module.train()
    module.guard.start()
    batch = next(iter(data.train_dataloader()))
    before = {name: value.clone() for name, value in module.segmenter.named_buffers()}
    module.guard.open(batch.ids)
    module.guard.close(module.loss(module(batch), batch.mask))
    changed = [name for name, value in module.segmenter.named_buffers() if not torch.equal(value, before[name])]
    assert any("running_mean" in name for name in changed)
    module.guard.undo()
    assert all(torch.equal(value, before[name]) for name, value in module.segmenter.named_buffers())
    # and after a step that was completed there is nothing to put back
    module.guard.open(batch.ids)
    module(batch)
    module.guard._ids = []
    after = {name: value.clone() for name, value in module.segmenter.named_buffers()}
    module.guard.undo()
    assert all(torch.equal(value, after[name]) for name, value in module.segmenter.named_buffers())


def test_a_finite_loss_stays_what_it_is():
    weight = torch.tensor([0.1, -3e30], requires_grad=True)
    (plain,) = torch.autograd.grad((weight * 7).sum(), weight)
    loss = (weight * 7).sum()
    (same,) = torch.autograd.grad(spread(loss), weight)
    assert torch.equal(spread(loss), loss)
    assert torch.equal(plain, same)
    (lost,) = torch.autograd.grad(spread((weight * 7).sum() + math.inf), weight)
    assert lost.isnan().all()


def test_too_many_stop_the_run(tmp_path):
    """The loss is NaN from the second step on; the device is asked every third step."""
    data, module = toy_data(tmp_path / "data", train=40), toy_module(max_skipped_steps=1)
    ids = order(data, 6)
    module.loss = Poisoned()
    module.on_train_batch_start = lambda batch, index: setattr(module.loss, "kind", "nan" if index else None)
    trainer = toy_trainer(tmp_path, max_epochs=1, log_every_n_steps=3)
    with pytest.raises(S4ecaError, match=r"2 optimiser steps .* more than model\.max_skipped_steps=1; look at"):
        fit(module, data, trainer)
    assert trainer.global_step == 3
    written = json.loads((tmp_path / "skipped_steps.json").read_text())
    assert written["steps"] == [{"step": step, "epoch": 0, "ids": ids[step]} for step in (1, 2)]


def test_a_run_that_never_logs_is_stopped_too(tmp_path, monkeypatch):
    monkeypatch.setattr("s4eca.lit.skipping.LOOK", 2)
    module = toy_module(max_skipped_steps=0)
    module.loss = Poisoned()
    module.loss.kind = "nan"
    trainer = toy_trainer(tmp_path, max_steps=6, limit_val_batches=0, log_every_n_steps=0)
    with pytest.raises(S4ecaError, match="2 optimiser steps"):
        fit(module, toy_data(tmp_path / "data"), trainer)


def test_too_many_are_an_error_at_the_end_too(tmp_path):
    module = toy_module(max_skipped_steps=1)
    module.loss = Poisoned()
    module.loss.kind = "nan"
    trainer = toy_trainer(tmp_path, max_steps=2, limit_val_batches=0, log_every_n_steps=50)
    with pytest.raises(S4ecaError, match="2 optimiser steps"):
        fit(module, toy_data(tmp_path / "data"), trainer)
    assert len(json.loads((tmp_path / "skipped_steps.json").read_text())["steps"]) == 2


def test_the_count_is_logged_and_survives_a_resume(tmp_path):
    data = toy_data(tmp_path / "data")
    ids = order(data, 6)

    def run(folder, steps, resume=None):
        module = toy_module()
        module.loss = Poisoned()
        poison = Poison(ids[1][0], "nan")
        trainer = toy_trainer(folder, poison, RandomState(), every_step(folder), max_steps=steps, limit_val_batches=0)
        fit(module, data, trainer, resume)
        return module

    run(tmp_path, 3)
    resumed = run(tmp_path / "resumed", 4, tmp_path / "checkpoints" / "step=3.ckpt")
    expected = [{"step": 1, "epoch": 0, "ids": ids[1]}]
    assert resumed.guard.skipped == expected
    assert json.loads((tmp_path / "resumed" / "skipped_steps.json").read_text())["steps"] == expected
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    place = lines[0].split(",").index("train/skipped_steps")
    assert [float(line.split(",")[place]) for line in lines[1:]] == [0, 1, 1]


def test_the_search_for_a_scale_is_not_counted(tmp_path):
    """float16 with a scale that overflows for two steps, then a loss that is NaN."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-14)
    settings = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "limit_val_batches": 0}
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    trainer = Trainer(accelerator="cpu", max_steps=6, plugins=[plugin], default_root_dir=tmp_path, **settings)
    data, module = toy_data(tmp_path / "data"), toy_module(fused_optimizer=False)
    module.loss = Poisoned()
    module.on_train_batch_start = lambda batch, index: setattr(module.loss, "kind", "nan" if index == 4 else None)
    fit(module, data, trainer)
    steps = {float(state["step"]) for state in trainer.optimizers[0].state.values()}
    assert len(steps) == 1
    assert 0 < steps.pop() < 5, "the first steps overflow, and the fifth is NaN"
    assert [record["step"] for record in module.guard.skipped] == [4]


def in_two_processes(rank, port, root, bad):
    """Three steps by DDP, and by FSDP, of which the second process spoils the second."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    notes = {}
    for strategy in (DDP(), FSDP()):
        module, data = with_batch_norm(True), toy_data(root / "data", batch_size=2)
        name = type(strategy).__name__
        options = {"max_steps": 3, "limit_val_batches": 0, "strategy": strategy, "devices": 2}
        trainer = toy_trainer(root / name, Poison(bad, "forward"), **options, gradient_clip_val=1.0)
        fit(module, data, trainer)
        notes[name] = {
            "steps": sorted({float(state["step"]) for state in trainer.optimizers[0].state.values()}),
            "skipped": module.guard.skipped,
            "finite": all(bool(gathered(value).isfinite().all()) for value in module.state_dict().values()),
        }
    (root / f"{rank}.json").write_text(json.dumps(notes))
    torch.distributed.destroy_process_group()


def test_processes_decide_alike(tmp_path):
    data = toy_data(tmp_path / "data", batch_size=2)
    common = next(iter(DataLoader(data.dataset("train"), 8, sampler=EpochSampler(24, 0, True), collate_fn=list)))
    ids = [sample.id for sample in common]  # dealt to the processes in turn
    in_two(in_two_processes, tmp_path, ids[5])
    for name in ("DDP", "FSDP"):
        for rank in range(2):
            note = json.loads((tmp_path / f"{rank}.json").read_text())[name]
            own = {"step": 1, "epoch": 0, "ids": [ids[4 + rank], ids[6 + rank]]}
            assert note == {"steps": [2.0], "skipped": [own], "finite": True}, (name, rank)
        written = json.loads((tmp_path / name / "skipped_steps.json").read_text())
        assert written["steps"] == [{"step": 1, "epoch": 0, "ids": [ids[4], ids[6], ids[5], ids[7]]}]
