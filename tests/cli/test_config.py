from pathlib import Path

import pytest
from omegaconf import OmegaConf

from s4eca.cli.config import apply_overrides, conf_dir, run_folder
from s4eca.cli.eval import default_folder, merge
from s4eca.errors import S4ecaError

TRAINED = {
    "image_size": 64,
    "data": {"_target_": "s4eca.data.SyntheticDataModule", "root": "old", "batch_size": 4},
    "vision": {"weights": "hub", "name": "swin"},
    "text": {"weights": "hub"},
    "trainer": {"precision": "bf16-mixed", "accelerator": "gpu"},
}
NOTHING = {
    "data": {"root": None, "batch_size": None},
    "vision": {"weights": None},
    "text": {"weights": None},
    "trainer": {"accelerator": None, "precision": None},
}


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
    assert merge(TRAINED, OmegaConf.create(NOTHING)) == TRAINED


def test_an_evaluation_changes_what_is_said():
    given = OmegaConf.create({**NOTHING, "data": {"root": "new", "batch_size": None}, "vision": {"weights": "here"}})
    merged = merge(TRAINED, given)
    assert merged["data"] == {**TRAINED["data"], "root": "new"}
    assert merged["vision"] == {"weights": "here", "name": "swin"}


def test_other_data_takes_the_checkpoints_image_size():
    data = {"_target_": "s4eca.data.RefSegRSDataModule", "root": "rs", "image_size": "${image_size}"}
    merged = merge({**TRAINED, "seed": 3}, OmegaConf.create({**NOTHING, "data": data}))
    assert merged["data"] == {**data, "image_size": 64}


def test_results_go_beside_the_checkpoints_of_a_run():
    assert default_folder(Path("run/checkpoints/best.ckpt"), "val", False) == Path("run/eval/best_val")
    assert default_folder(Path("mine.ckpt"), "test", True) == Path("eval/mine_test_shuffled")
