import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from s4eca.cli.config import run_folder
from s4eca.cli.resuming import ENDED, differences, start_or_go_on, write_ended
from s4eca.errors import S4ecaError

CONFIG = {
    "seed": 0,
    "budget": None,
    "resume": None,
    "evaluate": None,
    "model": {"lr": 1e-4, "segmenter": {"grad_checkpointing": "none", "start_stage": 1}},
    "tuning": {"_target_": "s4eca.tuning.Bottleneck", "form": "houlsby", "width": 8},
    "data": {"root": "old", "batch_size": 8, "num_workers": 2, "parts": {"a": {"root": "there"}}},
    "vision": {"weights": "hub", "name": "swin"},
    "logger": {},
    "trainer": {"max_steps": 10},
}


def but(**changes):
    """Returns the config with single keys changed; `__` stands for a dot."""
    config = OmegaConf.create(CONFIG)
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    return OmegaConf.to_container(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"data__root": "new", "data__parts__a__root": "elsewhere", "data__num_workers": 8},
        {"vision__weights": "/models/swin", "weights_folder": "/models"},
        {"logger__wandb": {"project": "mine"}, "evaluate": "test", "resume": "auto"},
        {"model__segmenter__grad_checkpointing": "block"},
    ],
)
def test_places_and_what_fits_the_machine_may_differ(changes):
    assert differences(CONFIG, but(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model__lr": 2e-4, "seed": 1}, ["seed: 0, now 1", "model.lr: 0.0001, now 0.0002"]),
        ({"data__batch_size": 4}, ["data.batch_size: 8, now 4"]),
        ({"trainer__max_steps": 20}, ["trainer.max_steps: 10, now 20"]),
        ({"trainer__precision": "bf16-mixed"}, ["trainer.precision: not there, now bf16-mixed"]),
        ({"tuning__width": 16}, ["tuning.width: 8, now 16"]),
    ],
)
def test_what_makes_another_training_is_named(changes, named):
    assert differences(CONFIG, but(**changes)) == named


def test_widths_that_a_budget_has_set_are_no_difference():
    assert differences(but(budget=2.4, tuning__width=31), but(budget=2.4)) == []
    assert differences(but(budget=2.4, tuning__width=31), but(budget=3.0)) == ["budget: 2.4, now 3.0"]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(but(budget=2.4, tuning__width=31)), folder / "config.yaml")
    torch.save({"global_step": 3}, folder / "checkpoints" / "last.ckpt")
    return folder


def test_an_empty_folder_and_one_without_checkpoint_are_started(run, tmp_path):
    assert start_or_go_on(but(resume="auto"), tmp_path / "new").config == CONFIG
    shutil.rmtree(run / "checkpoints")
    start = start_or_go_on(but(resume="auto"), run)
    assert (start.config, start.checkpoint, start.ended) == (CONFIG, None, None)
    assert not (run / "config.yaml").exists()


def test_a_run_is_gone_on_with_in_its_widths_and_the_commands_places(run):
    start = start_or_go_on(but(budget=2.4, resume="auto", data__root="new"), run)
    assert start.checkpoint == run / "checkpoints" / "last.ckpt"
    assert start.ended is None
    assert start.config == but(budget=2.4, tuning__width=31, data__root="new")
    write_ended(run, {"step": 10, "best": 0.5, "checkpoint": "checkpoints/last.ckpt"})
    assert start_or_go_on(but(budget=2.4), run).ended == json.loads((run / ENDED).read_text())


def test_a_run_of_another_config_is_refused_with_its_keys(run):
    changed = but(budget=2.4, **{f"model__k{i}": i for i in range(7)})
    with pytest.raises(
        S4ecaError, match=r"another config \(model\.k0: not there, now 0.* and 2 more\); choose another"
    ):
        start_or_go_on(changed, run)


def test_what_is_no_whole_run_is_refused(run):
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-30])
    with pytest.raises(S4ecaError, match=r"last\.ckpt is damaged"):
        start_or_go_on(but(budget=2.4), run)
    (run / "config.yaml").unlink()
    with pytest.raises(S4ecaError, match=r"has no config\.yaml"):
        start_or_go_on(but(budget=2.4), run)


def test_auto_needs_a_folder_that_stays_the_same(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(S4ecaError, match=r"give hydra\.run\.dir=PATH"):
        run_folder("auto", "demo", "now")
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    assert Path(run_folder("auto", "demo", "now")) == Path("outputs/demo/slurm_41")
