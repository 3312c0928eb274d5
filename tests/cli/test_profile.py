import json

import pytest
import typer
import yaml
from typer.testing import CliRunner

from runs import TINY, composed
from s4eca.cli.profile import for_steps, profile, sort_arguments
from s4eca.errors import S4ecaError
from s4eca.profiling.parts import LOADER, METHOD, VISION

DATA = ["data.train=8", "data.val=2", "data.test=2", "data.num_workers=0", "data.batch_size=2"]
app = typer.Typer()
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(profile)


def test_the_command_profiles_a_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*TINY, *DATA, "steps=2", "out=here"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    printed = " ".join(done.output.split())
    for line in ("profile of demo", "2 steps of batch 2, wall time", "The largest part is the", "ui.perfetto.dev"):
        assert line in printed
    content = json.loads((tmp_path / "here" / "profile.json").read_text())
    assert content["overrides"] == [*TINY, *DATA]
    for step, seconds in enumerate(content["step_seconds"]):
        assert sum(part["seconds"][step] for part in content["parts"].values()) == pytest.approx(seconds)
    assert {LOADER, VISION, METHOD} <= content["parts"].keys()
    assert content["advice"] in (tmp_path / "here" / "profile.md").read_text()
    assert (tmp_path / "here" / "trace.json.gz").stat().st_size > 1000
    files = ("profile.json", "profile.md", "trace.json.gz", "config.yaml", "environment.json")
    assert {path.name for path in (tmp_path / "here").iterdir()} == set(files)
    # the run folder's own record says what was measured
    assert yaml.safe_load((tmp_path / "here" / "config.yaml").read_text())["image_size"] == 64
    with pytest.raises(S4ecaError, match="here holds a profile or a run already"):
        CliRunner().invoke(app, [*TINY, "out=here"], catch_exceptions=False)


def test_arguments():
    assert sort_arguments(["steps=5", "seed=1", "out=a=b"])[:2] == (["seed=1"], 5)
    assert str(sort_arguments(["out=a=b"])[2]) == "a=b"
    assert sort_arguments([]) == ([], 20, None)
    for wrong in ("steps=1", "steps=x", "steps="):
        with pytest.raises(S4ecaError, match="cannot be measured"):
            sort_arguments([wrong])
    with pytest.raises(S4ecaError, match="out= names no folder"):
        sort_arguments(["out="])


def test_only_what_is_beside_the_step_is_changed():
    config = composed("experiment=demo", "callbacks=[default,ema,early_stopping]", "logger=wandb")
    measured = for_steps(config, 12)
    assert {"best", "last", "early_stopping", "cost", "parameters", "pictures"}.isdisjoint(measured["callbacks"])
    assert {"ema", "throughput", "learning_rate", "progress_bar"} <= measured["callbacks"].keys()
    assert (measured["logger"], measured["trainer"]["max_steps"]) == ({}, 12)
    same = ("data", "model", "tuning", "vision", "text", "fusion", "decoder", "loss")
    assert all(measured[group] == config[group] for group in same)
    kept = ("precision", "accumulate_grad_batches", "gradient_clip_val", "accelerator", "log_every_n_steps")
    assert all(measured["trainer"][key] == config["trainer"][key] for key in kept)


def test_what_cannot_be_profiled():
    with pytest.raises(S4ecaError, match="leave resume away"):
        for_steps({**composed("experiment=demo"), "resume": "outputs/x"}, 12)
    for devices in (2, "auto", -1, [0, 1]):
        with pytest.raises(S4ecaError, match=r"set trainer\.devices=1"):
            for_steps(composed("experiment=demo", f"trainer.devices={devices}".replace(" ", "")), 12)
