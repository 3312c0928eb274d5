"""Trials that really train: complete, ended early, stopped by SIGTERM, and repeated by the command that is printed."""

import csv
import gc
import os
import shlex
import signal
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from runs import TINY, composed
from s4eca.checkpoint import read_checkpoint
from s4eca.cli.training import train
from s4eca.lit import ReferringModule
from s4eca.sweep.status import reproduce
from s4eca.sweep.storage import open_storage
from s4eca.sweep.study import join_study
from s4eca.sweep.worker import Worker
from sweep.made_sweep import CONFIG, SPACE, made_space

OVERRIDES = [
    *(item for item in TINY if not item.startswith("tuning.visual.width")),
    "data.train=8", "data.val=4", "data.test=2", "data.scene_size=64", "data.batch_size=2", "data.num_workers=0",
    "trainer.max_steps=6", "trainer.val_check_interval=2", "callbacks.pictures=null",
    "callbacks.cost=null", "callbacks.progress_bar=null", "trainer.enable_progress_bar=false",
]  # fmt: skip


class EndsTheSecond(optuna.pruners.BasePruner):
    """Ends trial 1 at its second validation, and the process in trial 2's first."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        if trial.number == 2 and trial.last_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return trial.number == 1 and trial.last_step == 2


def validations(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["val/mIoU"]) for row in csv.DictReader(file) if row["val/mIoU"]]


def modules() -> int:
    gc.collect()
    return sum(type(thing) is ReferringModule for thing in gc.get_objects())


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    space, overrides = made_space(folder, SPACE), [*OVERRIDES, f"data.root={folder}/data"]
    storage = open_storage(f"sqlite:///{folder}/study.db", heartbeat=60, max_retry=1)
    study = join_study("real", storage, space, CONFIG, overrides)
    study.pruner = EndsTheSecond()
    before = modules()
    worker = Worker(study, storage, space, overrides, folder / "runs")
    with pytest.raises(SystemExit) as ended:
        worker.work(4)
    assert ended.value.code == 143
    del ended
    return study, folder / "runs", modules() - before


def test_a_complete_trial_has_the_best_validation_of_its_run(swept):
    study, runs, _ = swept
    trial, scores = study.trials[0], validations(runs / "trial_00000")
    assert trial.state == TrialState.COMPLETE
    assert len(scores) == 3
    assert trial.value == pytest.approx(max(scores), abs=1e-6)
    assert trial.intermediate_values == pytest.approx(dict(enumerate(scores, 1)), abs=1e-6)
    saved = yaml.safe_load((runs / "trial_00000" / "config.yaml").read_text())
    assert saved["model"]["lr"] == trial.params["model.lr"]
    assert saved["tuning"]["visual"]["width"] == trial.params["tuning.visual.width"]
    assert saved["name"] == "real_trial_00000"


def test_a_pruned_trial_ends_as_any_training_does(swept):
    study, runs, _ = swept
    trial = study.trials[1]
    assert trial.state == TrialState.PRUNED
    assert len(validations(runs / "trial_00001")) == 2
    assert trial.value == pytest.approx(validations(runs / "trial_00001")[1], abs=1e-6)
    assert read_checkpoint(runs / "trial_00001" / "checkpoints" / "best.ckpt").config["name"] == "real_trial_00001"


def test_sigterm_ends_a_training_and_puts_its_trial_back(swept):
    study, runs, _ = swept
    stopped, again = study.trials[2:]
    assert (stopped.state, again.state) == (TrialState.FAIL, TrialState.WAITING)
    assert again.params == stopped.params
    assert len(validations(runs / "trial_00002")) == 1


def test_trials_leave_nothing_in_memory(swept):
    assert swept[2] == 0


def test_the_command_that_is_printed_gives_the_trial_again(swept, tmp_path):
    study, _, _ = swept
    python, script, *overrides = shlex.split(reproduce(study, study.trials[0]))
    assert (python, script) == ("python", "train.py")
    assert train(composed(*overrides), tmp_path / "again") == study.trials[0].value
