"""One notion of a run: every key of train.yaml either matters to all who ask, or to none."""

import copy
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from runs import composed
from s4eca.cli.resuming import differences
from s4eca.evaluation.about import list_entries
from s4eca.identity import differing, flatten, settings, tokenizer_hash, training
from s4eca.sweep.composing import common

# written down here, whatever the code says: what may differ between two starts of one run
FREE = {
    "name", "resume", "evaluate", "weights_folder",
    "logger.wandb._target_", "logger.wandb.project", "logger.wandb.name", "logger.wandb.offline",
    "logger.wandb.log_model",
    "vision.weights", "text.weights", "text.tokenizer", "model.feature_cache",
    "data.root", "data.parts.rrsis_d.root", "data.parts.refsegrs.root", "data.cache",
    "data.num_workers", "data.pin_memory", "data.strict_counts", "data.eval_batch_size",
    "model.segmenter.grad_checkpointing", "model.segmenter.compile",
    "trainer.accelerator", "trainer.strategy._target_", "trainer.strategy.timeout_minutes",
    "trainer.log_every_n_steps", "trainer.num_sanity_val_steps",
    "callbacks.last.filename", "callbacks.last.every_n_train_steps", "callbacks.last.save_top_k",
    "callbacks.last.enable_version_counter", "callbacks.pictures.limit", "callbacks.learning_rate.logging_interval",
}  # fmt: skip
# common keys of Lightning's trainer, whether the configs have them or not
FREE_TRAINER = {
    *("enable_progress_bar", "enable_model_summary", "profiler", "detect_anomaly", "inference_mode"),
    *("limit_test_batches", "limit_predict_batches", "default_root_dir"),
}
STRICT_TRAINER = {
    *("overfit_batches", "fast_dev_run", "min_epochs", "min_steps", "max_time", "deterministic", "benchmark"),
    *("gradient_clip_algorithm", "reload_dataloaders_every_n_epochs", "precision", "limit_train_batches"),
}
SEEDS = {"seed", "data.seed", "init_from"}


@pytest.fixture(scope="module")
def config():
    """The whole of train.yaml, with what its groups can add."""
    return composed("trainer=ddp", "trainer.devices=1", "callbacks=[default,ema]", "data=joint", "logger=wandb")


def another(value):
    """Another value, as different as its type allows."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, 1] if isinstance(value, list) else "another"


def three_answers(before, now):
    """Whether a run folder is refused, a worker of a study is, and seeds are split."""
    shared = [common(config) for config in (before, now)]
    entries = [list_entries({"tuning": "s4eca", "config": training(config)}) for config in (before, now)]
    return bool(differences(before, now)), shared[0] != shared[1], entries[0] != entries[1]


def test_a_listed_key_matters_to_nobody_and_any_other_to_all(config):
    flat = flatten(config)
    keys = {*flat, *(f"trainer.{key}" for key in FREE_TRAINER | STRICT_TRAINER)}
    # the class of a callback decides what it is; that it shows is tried below
    free = FREE | {f"trainer.{key}" for key in FREE_TRAINER}
    assert free <= keys
    for key in sorted(keys):
        resume, sweep, split = three_answers(flat, {**flat, key: another(flat.get(key))})
        expected = key not in free
        assert (resume, sweep) == (expected, expected), key
        # seeds are what a table merges; batch norms of one process see one batch either way
        assert split == (expected and key not in SEEDS and key != "trainer.sync_batchnorm"), key


@pytest.mark.parametrize(
    "changes",
    [
        {"callbacks.progress_bar": None},
        {"callbacks.bar": {"_target_": "lightning.pytorch.callbacks.RichProgressBar"}},
        {"callbacks.progress_bar": {"_target_": "lightning.pytorch.callbacks.TQDMProgressBar", "refresh_rate": 9}},
        {"callbacks.cost": None, "callbacks.pictures": None, "callbacks.last": None},
        {"callbacks.stats": {"_target_": "lightning.pytorch.callbacks.DeviceStatsMonitor"}},
        {"callbacks.best.dirpath": "/elsewhere"},
        {"trainer.devices": [3]},
        {"trainer.devices": "1"},
        # what a newer version writes down as Lightning has it by default
        {"trainer.fast_dev_run": False, "trainer.overfit_batches": 0.0, "trainer.min_epochs": None},
    ],
)
def test_what_shows_saves_and_names_a_device_is_no_other_run(config, changes):
    now = OmegaConf.create(copy.deepcopy(config))
    for key, value in changes.items():
        OmegaConf.update(now, key, value, merge=False, force_add=True)
    assert three_answers(config, OmegaConf.to_container(now)) == (False, False, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"callbacks.second": {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "monitor": "val/oIoU"}},
        {"callbacks.best": None},
        {"callbacks.ema": None},
        {"callbacks.stop": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/mIoU"}},
    ],
)
def test_callbacks_that_choose_or_change_weights_make_another_run(config, changes):
    now = OmegaConf.create(copy.deepcopy(config))
    for key, value in changes.items():
        OmegaConf.update(now, key, value, merge=False, force_add=True)
    assert three_answers(config, OmegaConf.to_container(now)) == (True, True, True)


def batches(size, devices=1, accumulated=1, nodes=1, sync=False):
    trainer = {"devices": devices, "accumulate_grad_batches": accumulated, "num_nodes": nodes, "sync_batchnorm": sync}
    return training({"data": {"batch_size": size}, "trainer": trainer})


def test_seeds_share_the_samples_of_a_step_and_of_a_batch_norm():
    one = batches(16)
    assert one == {"effective batch": 16, "batch of a norm": 16}
    assert batches(4, devices=2, nodes=2, sync=True) == one
    assert batches(4, devices=[0, 1], nodes=2, sync=True) == one
    assert batches(4, devices="0,1", nodes=2, sync=True) == one
    assert batches(4, devices=4) == {"effective batch": 16, "batch of a norm": 4}
    assert batches(4, accumulated=4) == {"effective batch": 16, "batch of a norm": 4}
    assert batches(16, devices=2) == {"effective batch": 32, "batch of a norm": 16}
    assert batches(16, devices="auto")["effective batch"] == "16 x auto", "how many that was is not known"
    assert batches(16, devices=-1) == batches(16, devices="auto")


def test_settings_are_the_same_once_flat(config):
    """Studies keep them flat; those that an earlier version kept still hold what does not matter."""
    assert settings(flatten(config)) == settings(config)
    assert differing(settings(flatten(config)), settings(config)) == []


def test_a_tokenizer_is_what_it_does():
    text = '{"version": "1.0", "truncation": %s, "padding": null, "model": {"vocab": {"%s": 0}}}'
    files = {"tokenizer.json": text % ("null", "a"), "tokenizer_config.json": '{"name_or_path": "here"}'}
    called = {"tokenizer.json": text % ('{"max_length": 22}', "a"), "tokenizer_config.json": "{}"}
    assert tokenizer_hash(files) == tokenizer_hash(called)
    assert tokenizer_hash(files) != tokenizer_hash({"tokenizer.json": text % ("null", "b")})


def test_it_needs_no_torch():
    code = "import sys, s4eca.identity; assert not {'torch', 'lightning'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
