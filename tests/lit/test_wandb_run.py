import json

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from s4eca.build import build_loggers
from s4eca.lit.wandb_run import keep_wandb_run

CONFIG = {
    "logger": {
        "wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger", "project": "tests", "offline": True},
        "none": None,
    }
}


def start(folder):
    """Starts a run's logger, logs, and ends; returns the id that W&B knows the run by."""
    config = keep_wandb_run(CONFIG, folder)
    (logger,) = build_loggers({"logger": {"wandb": config["logger"]["wandb"]}}, folder)
    assert isinstance(logger, WandbLogger)
    logger.log_metrics({"loss": 1.0}, step=0)
    found = logger.experiment.id
    assert logger.experiment._settings.resume == "allow"
    wandb.finish()
    return found


def test_a_run_goes_on_under_its_id_and_another_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    ids = [start(tmp_path / "one"), start(tmp_path / "one"), start(tmp_path / "two")]
    assert ids[0] == ids[1] != ids[2]
    assert json.loads((tmp_path / "one" / "wandb.json").read_text()) == {"id": ids[0]}
    names = [path.name for path in (tmp_path / "one" / "wandb").glob("offline-run-*")]
    assert names
    assert all(ids[0] in name for name in names)


def test_an_id_that_is_given_stays(tmp_path, monkeypatch):
    mine = {"logger": {"wandb": {**CONFIG["logger"]["wandb"], "id": "mine"}}}
    assert keep_wandb_run(mine, tmp_path) == mine
    assert keep_wandb_run({"logger": {}}, tmp_path) == {"logger": {}}
    assert not (tmp_path / "wandb.json").exists()
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    assert keep_wandb_run(CONFIG, tmp_path)["logger"]["wandb"]["id"] == "agents"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert keep_wandb_run(CONFIG, tmp_path)["logger"]["wandb"]["id"] == "agents"
    with pytest.raises(KeyError):
        CONFIG["logger"]["wandb"]["id"]
