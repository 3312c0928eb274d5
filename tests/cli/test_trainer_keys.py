"""Lightning's trainer arguments as config keys: all of them, with Lightning's defaults or a reason."""

import inspect

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer
from omegaconf import OmegaConf

from runs import ROOT, composed
from s4eca.build import build_callbacks, build_trainer
from s4eca.cli.config import apply_overrides, with_trainer_keys
from s4eca.cli.eval import merge
from s4eca.cli.resuming import differences, saved_run
from s4eca.lit import ProgressBar

KEYS = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/trainer/default.yaml"))
LIGHTNINGS = {
    name: parameter.default
    for name, parameter in inspect.signature(Trainer.__init__).parameters.items()
    if name != "self"
}

# by value or by meaning: what Lightning's None stands for
SAME = {"limit_train_batches": 1.0, "limit_val_batches": 1.0, "val_check_interval": 1.0, "enable_progress_bar": True}
OURS = {
    "devices": "one, so that several are asked for",
    "max_epochs": "40, as in the published recipes",
    "gradient_clip_val": "1.0",
    "num_sanity_val_steps": "none, so that a resumed run draws the same",
    "log_every_n_steps": "10",
}
NOT_OFFERED = {
    "precision": "conf/speed has it",
    "logger": "the group logger",
    "callbacks": "the group callbacks",
    "plugins": "checkpoints are written atomically by one",
    "default_root_dir": "the run folder",
    "enable_model_summary": "the parameter table stands for it",
    "enable_checkpointing": "a run without checkpoints could neither go on nor be evaluated",
    "use_distributed_sampler": "the data module's samplers share the data out themselves",
    "limit_predict_batches": "nothing predicts",
    "barebones": "it refuses loggers, callbacks and checkpoints",
    "enable_autolog_hparams": "no module has hyper-parameters of Lightning's kind",
    "model_registry": "a service of Lightning's",
}


def test_every_argument_of_lightning_is_a_key_or_has_a_reason():
    assert KEYS.keys() - {"_target_"} | NOT_OFFERED.keys() == LIGHTNINGS.keys()
    assert not KEYS.keys() & NOT_OFFERED.keys()


def test_defaults_are_lightnings_where_nothing_else_is_said():
    for name in KEYS.keys() - {"_target_"} - OURS.keys():
        assert KEYS[name] == (SAME[name] if name in SAME else LIGHTNINGS[name]), name
    assert all(LIGHTNINGS[name] is None for name in SAME)
    assert all(KEYS[name] != LIGHTNINGS[name] for name in OURS)
    text = (ROOT / "conf/trainer/default.yaml").read_text()
    for name in ("devices", "num_sanity_val_steps", "log_every_n_steps", "gradient_clip_val"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name}:")]
        assert "Lightning's own:" in line


VALUES = {
    "enable_progress_bar": "false", "limit_train_batches": "3", "limit_val_batches": "0.5", "fast_dev_run": "true",
    "min_epochs": "1", "min_steps": "2", "max_time": "00:12:00:00", "overfit_batches": "2", "inference_mode": "false",
    "deterministic": "warn", "benchmark": "true", "profiler": "simple", "detect_anomaly": "true",
    "gradient_clip_algorithm": "value", "reload_dataloaders_every_n_epochs": "1", "num_nodes": "1",
    "limit_test_batches": "2", "strategy": "auto", "sync_batchnorm": "false",
}  # fmt: skip


@pytest.mark.parametrize("trainer", ["default", "gpu", "ddp", "fsdp"])
def test_no_key_needs_a_plus(trainer):
    config = composed(
        "experiment=demo", f"trainer={trainer}", *(f"trainer.{key}={value}" for key, value in VALUES.items())
    )
    assert config["trainer"]["limit_train_batches"] == 3
    assert config["trainer"]["max_time"] == "00:12:00:00"
    assert config["trainer"]["fast_dev_run"] is True
    assert config["trainer"]["strategy"] == "auto"


def test_ddp_keeps_its_strategy():
    assert composed("trainer=ddp")["trainer"]["strategy"]["_target_"] == "s4eca.lit.distributed.DDP"
    assert composed("trainer=fsdp")["trainer"]["strategy"]["_target_"] == "s4eca.lit.sharded.FSDP"
    assert composed("trainer=gpu")["trainer"]["precision"] == "bf16-mixed"
    assert composed()["trainer"]["precision"] == "32-true"


@pytest.mark.parametrize("key", [*VALUES, None])
def test_the_trainer_takes_each_of_them(key, tmp_path):
    given = [] if key is None else [f"trainer.{key}={VALUES[key]}"]
    config = composed("experiment=demo", "trainer.accelerator=cpu", *given)
    callbacks = build_callbacks(config, tmp_path)
    assert any(isinstance(item, ProgressBar) for item in callbacks) == (key != "enable_progress_bar")
    trainer = build_trainer(config, tmp_path, callbacks, [])
    if key == "limit_train_batches":
        assert trainer.limit_train_batches == 3
    if key == "fast_dev_run":
        assert trainer.max_steps == 1


OLD = {
    "_target_": "lightning.pytorch.Trainer", "accelerator": "cpu", "devices": 1, "max_epochs": -1, "max_steps": 600,
    "accumulate_grad_batches": 1, "gradient_clip_val": 1.0, "check_val_every_n_epoch": None, "val_check_interval": 150,
    "limit_train_batches": 1.0, "limit_val_batches": 1.0, "num_sanity_val_steps": 0, "log_every_n_steps": 10,
    "precision": "32-true",
}  # fmt: skip


def test_a_run_of_before_is_the_same_run(tmp_path):
    """Its config has only the keys that there were."""
    now = composed("experiment=demo", "trainer.accelerator=cpu")
    before = {**now, "trainer": OLD}
    assert with_trainer_keys(before) == now
    assert differences(before, now) == []
    assert differences(
        before, composed("experiment=demo", "trainer.accelerator=cpu", "trainer.deterministic=true")
    ) == ["trainer.deterministic: None, now True"]
    # keys of it can be changed when it goes on
    OmegaConf.save(OmegaConf.create(before), tmp_path / "config.yaml")
    (tmp_path / "checkpoints").mkdir()
    torch.save({}, tmp_path / "checkpoints" / "last.ckpt")
    config, _ = saved_run(tmp_path)
    apply_overrides(config, ["trainer.limit_val_batches=2", "trainer.enable_progress_bar=false"], "the run")
    assert config.trainer.enable_progress_bar is False


def test_an_evaluation_scores_all_after_a_trial_run():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        given = compose("eval", overrides=["ckpt=x", "trainer.enable_progress_bar=false"])
    for trained in (composed("experiment=demo", "trainer.fast_dev_run=true"), {**composed(), "trainer": OLD}):
        merged = merge(trained, given)["trainer"]
        assert merged["fast_dev_run"] is False
        assert merged["limit_test_batches"] == 1.0
        assert merged["enable_progress_bar"] is False
        assert Trainer(**{name: value for name, value in merged.items() if name != "_target_"} | {"logger": False})
