"""conf/wandb_sweep.yaml: what `wandb agent` makes of it is a training that train.yaml knows."""

import pytest
import wandb.wandb_agent
import yaml

from runs import ROOT, composed

SWEEP = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text())


def choices(parameter: dict) -> list:
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


def agents_command(values: dict, monkeypatch) -> list[str]:
    """Hands values to W&B's own agent, and returns the command that it would start."""
    started = []
    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", lambda command, **_: started.append(command) or Process())
    agent = wandb.wandb_agent.Agent.__new__(wandb.wandb_agent.Agent)
    agent._in_jupyter, agent._function, agent._forward_signals, agent._run_processes = False, None, False, {}
    agent._sweep_command = list(SWEEP["command"])
    agent._command_run(
        {"run_id": "abc", "program": SWEEP["program"], "args": {key: {"value": v} for key, v in values.items()}}
    )
    return started[0]


class Process:
    last_sigterm_time = None


def test_the_agents_command_composes_with_train_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the agent writes a file
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # and leaves these behind
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("S4ECA_DATA", "/data/rrsis_d")
    keys = list(SWEEP["parameters"])
    assert len(SWEEP["parameters"]["fusion"]["values"]) == 3
    columns = [choices(parameter) for parameter in SWEEP["parameters"].values()]
    for place in (0, 1, -1):  # both ends, and every option of the group
        values = {key: column[place] for key, column in zip(keys, columns, strict=True)}
        command = agents_command(values, monkeypatch)
        assert command[:3] == ["/usr/bin/env", "python", "train.py"]
        assert not any(word.startswith("-") or "$" in word for word in command)
        config = composed(*command[3:])
        assert config["model"]["lr"] == values["model.lr"]
        assert config["tuning"]["text"]["proxies"] == values["tuning.text.proxies"]
        assert config["tuning"]["visual"]["width"] == values["tuning.visual.width"]
        assert config["fusion"]["_target_"].startswith(f"s4eca.fusion.{values['fusion']}.")
        assert config["data"]["root"] == "/data/rrsis_d"
        assert "WandbLogger" in config["logger"]["wandb"]["_target_"]


def test_the_metric_is_the_one_that_runs_select_by():
    best = composed()["callbacks"]["best"]
    assert SWEEP["metric"] == {"name": best["monitor"], "goal": {"max": "maximize", "min": "minimize"}[best["mode"]]}


def test_a_key_that_train_yaml_does_not_know_would_be_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")
    with pytest.raises(Exception, match="lrr"):
        composed(*agents_command({"model.lrr": 1.0}, monkeypatch)[3:])
