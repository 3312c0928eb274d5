from pathlib import Path

import pytest
from omegaconf import OmegaConf

from s4eca.cli.config import apply_overrides, conf_dir, run_folder
from s4eca.cli.eval import default_folder, merge
from s4eca.cli.evaluating import Options
from s4eca.errors import S4ecaError

TRAINED = {
    "model": {"lr": 1e-4, "feature_cache": "theirs"},
    "name": "trained",
    "weights_folder": None,
    "image_size": 64,
    "data": {"_target_": "s4eca.data.SyntheticDataModule", "root": "old", "batch_size": 4, "cache": "elsewhere"},
    "vision": {"weights": "hub", "name": "swin"},
    "text": {"weights": "hub"},
    "trainer": {"precision": "bf16-mixed", "accelerator": "gpu", "limit_test_batches": 2},
    "logger": {"wandb": {"project": "theirs"}},
}
NOTHING = {
    "name": None,
    "logger": {},
    "weights_folder": None,
    "data": {"root": None, "batch_size": None},
    "vision": {"weights": None},
    "text": {"weights": None},
    "trainer": {"accelerator": None, "precision": None},
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


def test_configs_are_beside_the_package_in_a_checkout():
    assert (Path(conf_dir()) / "train.yaml").is_file()


def test_a_resumed_run_keeps_its_folder():
    assert run_folder(None, "demo", "now") == "outputs/demo/now"
    assert run_folder("outputs/demo/before", "demo", "now") == "outputs/demo/before"


def test_overrides_change_single_known_keys():
    config = OmegaConf.create({"trainer": {"max_steps": 5}, "name": "x"})
    apply_overrides(config, ["trainer.max_steps=9", "name=y"], "the run")
    assert config == {"trainer": {"max_steps": 9}, "name": "y"}
    with pytest.raises(S4ecaError, match=r"the run has no key trainer\.max_stepps"):
        apply_overrides(config, ["trainer.max_stepps=9"], "the run")
    for item in ("trainer=gpu", "+trainer.devices=2", "~name"):
        with pytest.raises(S4ecaError, match="only single keys can be changed"):
            apply_overrides(config, [item], "the run")


def test_an_evaluation_is_the_checkpoints_config_where_nothing_is_said():
    # but for the caches and the logger of the machine that trained, and for what would leave samples out
    data, trainer = {**TRAINED["data"], "cache": None}, {**TRAINED["trainer"], "limit_test_batches": 1.0}
    trainer |= {"strategy": "auto", "num_nodes": 1, "sync_batchnorm": False, "fast_dev_run": False}
    changed = {"data": data, "trainer": trainer, "logger": {}, "model": {"lr": 1e-4, "feature_cache": None}}
    assert merge(TRAINED, OmegaConf.create(NOTHING)) == {**TRAINED, **changed}


def test_an_evaluation_turns_no_features():
    augmentation = {"rotation": 0.75, "turn_features": True}
    merged = merge({**TRAINED, "data": {**TRAINED["data"], "augmentation": augmentation}}, OmegaConf.create(NOTHING))
    assert merged["data"]["augmentation"] == {"rotation": 0.75, "turn_features": False}
    assert merge({**TRAINED, "data": {**TRAINED["data"], "augmentation": None}}, OmegaConf.create(NOTHING))


def test_an_evaluation_changes_what_is_said():
    data = {"root": "new", "batch_size": None, "cache": "mine"}
    logger = {"wandb": {"name": "${name}"}}
    given = {**NOTHING, "data": data, "vision": {"weights": "here"}, "name": "again", "logger": logger}
    merged = merge(TRAINED, OmegaConf.create(given))
    assert merged["data"] == {**TRAINED["data"], "root": "new", "cache": "mine"}
    assert merged["logger"] == {"wandb": {"name": "again"}}
    assert merged["vision"] == {"weights": "here", "name": "swin"}


def test_an_evaluation_compiles_and_shares_as_it_says_and_runs_without_the_trainings_gpu(monkeypatch):
    trained = {**TRAINED, "model": {**TRAINED["model"], "segmenter": {"compile": "block", "encode_once": True}}}
    given = OmegaConf.create({**NOTHING, "model": {"segmenter": {"compile": "none", "encode_once": None}}})
    for there, accelerator in ((True, "gpu"), (False, "auto")):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        merged = merge(trained, given)
        assert merged["model"]["segmenter"] == {"compile": "none", "encode_once": True}
        assert merged["trainer"]["accelerator"] == accelerator
    given.trainer.accelerator = "gpu"
    assert merge(trained, given)["trainer"]["accelerator"] == "gpu", "the command line decides"


def test_other_data_takes_the_checkpoints_image_size():
    data = {"_target_": "s4eca.data.RefSegRSDataModule", "root": "rs", "image_size": "${image_size}"}
    merged = merge({**TRAINED, "seed": 3}, OmegaConf.create({**NOTHING, "data": data}))
    assert merged["data"] == {**data, "image_size": 64}


def test_results_go_beside_the_checkpoints_of_a_run():
    folder = default_folder(Path("run/checkpoints/best.ckpt"), "rrsis_d", Options(split="val"))
    assert folder == Path("run/eval/best_rrsis_d_val")
    assert default_folder(Path("mine.ckpt"), "joint", Options(shuffled=3)) == Path("eval/mine_joint_test_shuffled")


def test_results_of_shared_folders_with_dots_in_their_names_go_to_places_of_their_own():
    places = {name: default_folder(Path("shared") / name, "rrsis_d", Options()) for name in ("v1.2", "v1.3", "v1")}
    assert places["v1.2"] == Path("shared/eval/v1.2_rrsis_d_test")
    assert len(set(places.values())) == 3
    remote = [default_folder(Path(f"cache/{v}"), "rrsis_d", Options(), f"hf:me/repo/{v}") for v in ("v1.2", "v1.3")]
    assert remote[0] != remote[1]


@pytest.mark.parametrize("wrong", [{"predictions": "tiff"}, {"pictures": -1}, {"bootstrap": -5}, {"pictures": 1.5}])
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(S4ecaError, match=next(iter(wrong))):
        Options(**wrong)


def test_a_shuffling_seed_that_cannot_be_is_refused():
    with pytest.raises(S4ecaError, match="seed=abc"):
        Options(shuffled="abc")
