"""One checkpoint, evaluated by one process and by two that share the samples."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback

from forked import in_two
from tiny import shake
from toy import every_step, fit, toy_data, toy_module, toy_trainer

PROTOCOLS = ("lavt", "original", "detris")


class Store(Callback):
    """Writes what this process saw and what it has in the end."""

    def __init__(self, path: Path) -> None:
        self.path, self.seen = path, []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.seen += batch.index.tolist()

    def on_test_end(self, trainer, pl_module):
        numbers = {"seen": self.seen, "scores": pl_module.scores, "world": trainer.world_size}
        self.path.with_suffix(".json").write_text(json.dumps(numbers))
        np.savez(self.path.with_suffix(".npz"), sizes=pl_module.sizes, **pl_module.rows)


def evaluate(folder: Path, samples: int, name: str, **options) -> None:
    data = toy_data(folder / f"data_{samples}", test=samples, scene_size=80, eval_batch_size=2)
    trainer = toy_trainer(folder / name, Store(folder / name), **options)
    module = toy_module(seed=99)  # whatever the checkpoint does not bring would show
    trainer.test(module, datamodule=data, ckpt_path=str(folder / "run.ckpt"), weights_only=True, verbose=False)


def join(rank: int, port: int, folder: Path, samples: int) -> None:
    """One of two processes, as a launcher outside Lightning starts them."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    evaluate(folder, samples, f"rank{rank}", strategy="ddp", devices=2)
    torch.distributed.destroy_process_group()


def stored(folder: Path, name: str) -> tuple[dict, dict[str, np.ndarray]]:
    with np.load(folder / f"{name}.npz") as arrays:
        return json.loads((folder / f"{name}.json").read_text()), dict(arrays)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with `run.ckpt`, a checkpoint of a network whose masks are neither empty nor full."""
    folder = tmp_path_factory.mktemp("shared")
    module = toy_module()
    shake(module.segmenter, scale=0.3)
    trainer = toy_trainer(folder / "run", every_step(folder / "run"), max_steps=1)
    fit(module, toy_data(folder / "data_train"), trainer)
    (folder / "run" / "checkpoints" / "step=1.ckpt").rename(folder / "run.ckpt")
    return folder


@pytest.mark.parametrize("samples", [3, 7])
def test_two_processes_give_the_metrics_of_one(folder, samples):
    evaluate(folder, samples, "alone")
    in_two(join, folder, samples, timeout=60)

    alone, wanted = stored(folder, "alone")
    assert (alone["world"], alone["seen"]) == (1, list(range(samples)))
    predicted = wanted["original"][:, 2] - wanted["original"][:, 3] + wanted["original"][:, 1]
    assert ((predicted > 0) & (predicted < 80 * 80)).any(), "the network predicts something"
    for rank in range(2):
        numbers, arrays = stored(folder, f"rank{rank}")
        shared = [number for number in range(samples) if number // 2 % 2 == rank]  # in batches of two
        assert (numbers["world"], numbers["seen"]) == (2, shared)
        assert arrays.keys() == {*PROTOCOLS, "sizes"}
        for name, array in arrays.items():
            assert array.tolist() == wanted[name].tolist(), name
        for protocol in PROTOCOLS:
            assert numbers["scores"][protocol] == pytest.approx(alone["scores"][protocol], rel=0, abs=0, nan_ok=True)
