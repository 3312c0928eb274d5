"""Runs that are interrupted and told to go on by the same command."""

import os
import signal

import pytest
import torch
from lightning import Callback

from runs import TINY, composed, train, train_until
from s4eca.cli.resuming import start_or_go_on
from s4eca.cli.training import tell_ended
from s4eca.cli.training import train as run_training
from s4eca.errors import S4ecaError

pytestmark = pytest.mark.system

RUN = [
    *TINY,
    *("data.train=12", "data.val=2", "data.test=2", "data.scene_size=64", "data.batch_size=4", "data.num_workers=0"),
    *("callbacks.pictures.limit=0", "trainer.log_every_n_steps=1", "trainer.val_check_interval=3"),
]


class OutOfMemoryAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step == self.step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity")


def test_a_run_that_had_too_little_memory_goes_on_ends_and_is_evaluated_once(tmp_path, capsys):
    folder = tmp_path / "run"
    command = [*RUN, "trainer.max_steps=4", f"data.root={tmp_path}/data", "evaluate=null", "resume=auto"]

    def start(*changes):
        return start_or_go_on(composed(*command, *changes), folder)

    fresh = start()
    assert fresh.checkpoint is None
    with pytest.raises(
        S4ecaError, match=r"\(CUDA out of memory\. Tried .*grad_checkpointing=block leaves 14 %.*resume="
    ):
        run_training(fresh.config, folder, more=[OutOfMemoryAt(2)])
    with pytest.raises(S4ecaError, match=r"another config \(model\.lr: "):
        start("model.lr=1")
    again = start("model.segmenter.grad_checkpointing=block")
    assert torch.load(again.checkpoint, weights_only=True)["global_step"] == 2
    best = run_training(again.config, folder, again.checkpoint)
    ended = start("evaluate=val")
    assert (ended.ended["step"], ended.ended["best"]) == (4, best)
    capsys.readouterr()
    for done in (False, True):
        assert tell_ended(ended.config, folder, ended.ended) == best
        said = capsys.readouterr().out
        assert "has ended at step 4; nothing is left to train" in said
        assert ("evaluated: " in said) == done
    assert (folder / "eval" / "best_synthetic_val" / "metrics.json").is_file()


def test_a_slurm_job_that_is_warned_goes_back_into_the_queue_and_on(tmp_path, monkeypatch):
    """The variables make Lightning find SLURM too, whose own handling of the signal must not be what acts."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    job = {"JOB_ID": "41", "NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**job, "JOB_NAME": "train", "NNODES": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    command = [*RUN, "trainer.max_steps=14", "evaluate=null", "name=long", "resume=auto"]
    folder = tmp_path / "outputs" / "long" / "slurm_41"
    log = folder / "metrics.csv"
    status = train_until(
        lambda: log.exists() and len(log.read_text().splitlines()) > 3, signal.SIGUSR1, *command, cwd=tmp_path
    )
    printed = (tmp_path / "killed.log").read_text()
    assert status == 138, printed
    assert "stopped by SIGUSR1 at step" in printed
    assert "go on with: python train.py resume=outputs/long/slurm_41" in printed
    assert "job 41 is back in the queue" in printed
    assert (tmp_path / "asked").read_text() == "requeue 41\n"
    assert list(folder.glob("hpc_ckpt*")) == []
    reached = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert f"at step {reached};" in printed
    assert 0 < reached < 14
    assert "Traceback" not in train(*command, cwd=tmp_path)
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 14
    steps = {line.split(",")[0] for line in log.read_text().splitlines()[1:]}
    assert {str(step) for step in range(14)} <= steps
