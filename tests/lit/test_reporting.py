import csv
import itertools
import json
import time
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Callback
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

import s4eca
from s4eca.build import build_callbacks
from s4eca.fusion.pwam import PWAM
from s4eca.lit import ParameterReport, ProgressBar, Throughput, ValidationPictures
from s4eca.lit.cost import Cost
from s4eca.parameters import count_parameters, method_share, parameter_table
from s4eca.tuning import Frozen, FullFineTuning, LoRA
from tiny import tiny_segmenter, tiny_text, tiny_vision
from toy import fit, toy_data, toy_module, toy_trainer


def test_counts_by_hand():
    text = sum(p.numel() for p in tiny_text().parameters())
    vision = sum(p.numel() for p in tiny_vision().parameters())
    lora = tiny_segmenter(LoRA(rank=2, text_layers=["query", "value"], vision_layers=["qkv"]), PWAM)
    counts = count_parameters(lora)
    # query and value of 4 layers of width 32; qkv of blocks 2+2+3+2 of widths 16 to 128
    expected = 4 * 2 * 2 * (32 + 32) + sum(
        n * 2 * (c + 3 * c) for n, c in zip((2, 2, 3, 2), (16, 32, 64, 128), strict=True)
    )
    assert counts["method"].learned == counts["method"].total == expected
    assert (counts["text tower"].total, counts["vision tower"].total) == (text, vision)
    assert (counts["text tower"].learned, counts["vision tower"].learned) == (0, 0)
    assert method_share(lora) == pytest.approx(expected / (text + vision))
    assert method_share(tiny_segmenter(FullFineTuning(), PWAM)) == 1
    assert method_share(tiny_segmenter(Frozen(), PWAM)) == 0


def test_table_shows_share_and_effective_batch():
    console = Console(record=True, width=100)
    console.print(parameter_table(tiny_segmenter(FullFineTuning(), PWAM), effective_batch=32))
    text = console.export_text()
    assert "100.00 %" in text
    assert "effective batch" in text
    assert "32" in text


@pytest.mark.parametrize(
    ("bounds", "says"), [({"max_epochs": -1, "max_steps": 600}, "Epoch 5"), ({"max_epochs": 40}, "Epoch 5/39")]
)
def test_the_bar_counts_to_the_last_epoch_where_there_is_one(tmp_path, bounds, says):
    bar = ProgressBar()
    trainer = toy_trainer(tmp_path, bar, enable_progress_bar=True, **bounds)
    bar.setup(trainer, toy_module(), "fit")
    described = bar._get_train_description(5)
    assert described.strip() == says
    assert len(described) >= len(bar.validation_description), "the bars keep their place"


def test_a_run_reports_itself(tmp_path, capsys):
    data = toy_data(tmp_path / "data")
    callbacks = [ParameterReport(), Throughput(), ValidationPictures(limit=5)]
    fit(toy_module(), data, toy_trainer(tmp_path, *callbacks, max_epochs=1, accumulate_grad_batches=2))
    printed = capsys.readouterr().out
    assert "effective batch" in printed
    assert " 8 " in printed, "4 samples x 2 accumulated"
    assert "step 3" in printed
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert any(float(row["samples/s"] or 0) > 0 for row in rows)
    assert any(0.1 < float(row["memory GiB"] or 0) < 24 for row in rows)
    assert any(0 < float(row["wait %"] or 0) < 100 for row in rows)
    assert len(list((tmp_path / "pictures" / "step_000003").glob("*.png"))) == 5


class Fetches(TorchDispatchMode):
    """Counts numbers that are fetched from tensors: on a GPU each would wait for all that is queued."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class PerStep(Callback):
    """Notes how many there were when each batch starts."""

    def __init__(self, mode):
        self.mode, self.counts = mode, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.counts.append(self.mode.count)


def default_callbacks(folder):
    nodes = yaml.safe_load((Path(s4eca.__file__).parents[1] / "conf" / "callbacks" / "default.yaml").read_text())
    return build_callbacks({"callbacks": nodes}, folder)


def test_nothing_is_fetched_between_the_steps_that_are_logged(tmp_path):
    """A real run of 12 steps with all default callbacks and a log every fourth; the first batch measures its cost."""
    mode = Fetches()
    watch = PerStep(mode)
    options = {"max_epochs": 1, "log_every_n_steps": 4, "enable_progress_bar": True, "gradient_clip_val": 1.0}
    trainer = toy_trainer(tmp_path, watch, *default_callbacks(tmp_path), **options)
    module, data = toy_module(), toy_data(tmp_path / "data", train=48)
    with mode:
        fit(module, data, trainer)
    fetched = [after - before for before, after in itertools.pairwise(watch.counts)]
    assert len(fetched) == 11
    assert [index for index, count in enumerate(fetched) if count] == [3, 7], fetched
    bar = next(callback for callback in trainer.callbacks if isinstance(callback, ProgressBar))
    shown = bar.get_metrics(trainer, module)
    assert {"train/loss", "samples/s", "wait %", "memory GiB", "val/mIoU"} <= set(shown)
    assert "train/skipped_steps" not in shown
    assert shown["train/loss"] > 0


@pytest.mark.gpu
def test_no_step_waits_for_the_gpu(tmp_path):
    """CUDA itself raises where a step between two logs waits for the device."""

    class Strict(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            between = batch_idx not in (0, 1, 3, 7, 11)
            torch.cuda.set_sync_debug_mode("error" if between else "default")

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx in (2, 6, 10):  # what follows is the step that is logged
                torch.cuda.set_sync_debug_mode("default")

    options = {"accelerator": "gpu", "precision": "bf16-mixed", "max_epochs": 1, "log_every_n_steps": 4}
    trainer = toy_trainer(
        tmp_path, *default_callbacks(tmp_path), Strict(), **options, enable_progress_bar=True, gradient_clip_val=1.0
    )
    try:
        fit(toy_module(), toy_data(tmp_path / "data", train=48, pin_memory=True), trainer)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.global_step == 12


def test_waiting_for_a_slow_loader_is_reported(tmp_path):
    """Each batch takes 0.2 s to load, and each step 0.1 s and some more."""
    data = toy_data(tmp_path / "data")
    load = data.train_dataloader

    class SlowCollate:
        def __init__(self, collate):
            self.collate = collate

        def __call__(self, samples):
            time.sleep(0.2)
            return self.collate(samples)

    def slow():
        loader = load()
        loader.collate_fn = SlowCollate(loader.collate_fn)
        return loader

    data.train_dataloader = slow
    marks = []

    class Steps(Callback):
        def on_train_batch_start(self, *arguments):
            marks.append(time.perf_counter())

        def on_train_batch_end(self, *arguments):
            time.sleep(0.1)
            marks.append(time.perf_counter())

    trainer = toy_trainer(tmp_path, Steps(), Throughput(), max_epochs=1, log_every_n_steps=3, limit_val_batches=0)
    fit(toy_module(), data, trainer)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        found = [float(row["wait %"]) for row in csv.DictReader(file) if row["wait %"]]
    assert len(found) == 2
    # of the second interval all ends were seen: at least the 0.2 s of a batch, at most all that is no step
    total, steps = marks[11] - marks[5], sum(marks[k + 1] - marks[k] for k in (6, 8, 10))
    assert 60 / total - 2 < found[1] < 100 * (1 - steps / total) + 2
    assert data.waited > 1.2


def test_without_our_data_module_waiting_is_not_reported(tmp_path):
    data = toy_data(tmp_path / "data")
    trainer = toy_trainer(tmp_path, Throughput(), Cost(), max_steps=2, enable_checkpointing=False)
    trainer.fit(toy_module(), data.train_dataloader())
    assert "wait %" not in (tmp_path / "metrics.csv").read_text()
    assert json.loads((tmp_path / "cost.json").read_text())["data_wait"] is None
