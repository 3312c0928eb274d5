"""`s4eca profile`: where a step's time and memory go."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from s4eca.errors import S4ecaError
from s4eca.overrides import plain_text

STEPS = 20


def profile(context: typer.Context) -> None:
    """Profile training steps: s4eca profile experiment=demo [steps=20] [out=FOLDER] (other KEY=VALUE as for train)."""
    overrides, steps, out = sort_arguments(context.args)
    profile_training(overrides, steps, out)


def sort_arguments(given: Sequence[str]) -> tuple[list[str], int, Path | None]:
    """Tells `steps=N` and `out=FOLDER` from the overrides.

    Raises:
        S4ecaError: `steps` is no whole number.
    """
    own = {item.partition("=")[0]: item.partition("=")[2] for item in given if item.startswith(("steps=", "out="))}
    overrides = [item for item in given if not item.startswith(("steps=", "out="))]
    steps = own.get("steps", str(STEPS))
    if not steps.isdecimal() or int(steps) < 2:
        raise S4ecaError(f"steps={steps} cannot be measured; give a whole number from 2 up.")
    if "out" in own and not own["out"]:
        raise S4ecaError("out= names no folder; give out=FOLDER, or leave it away.")
    return overrides, int(steps), Path(plain_text(own["out"])) if "out" in own else None


def profile_training(overrides: Sequence[str], steps: int = STEPS, out: Path | None = None) -> Path:
    """Trains for a few steps, prints where they go, and writes it down.

    Args:
        overrides: of `conf/train.yaml`, as KEY=VALUE.
        steps: steps to measure.
        out: folder for `profile.json`, `profile.md`, `trace.json.gz`, and the run's `config.yaml` and
            `environment.json`; None makes one under `outputs/profile`.

    Returns:
        The folder.

    Raises:
        S4ecaError: a config that cannot be profiled, or a folder that holds a profile or a run already.
    """
    import json
    import os
    import shutil
    import sys
    from contextlib import redirect_stdout
    from datetime import datetime

    from rich.console import Console

    from s4eca.cli.train_config import compose_train
    from s4eca.cli.training import train
    from s4eca.files import make_folder, write_text
    from s4eca.profiling import Profiling
    from s4eca.profiling.advice import advice

    config, _ = compose_train(overrides)
    folder = out or Path("outputs/profile") / config["name"] / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if (folder / "profile.json").exists() or (folder / "config.yaml").exists():
        raise S4ecaError(f"{folder} holds a profile or a run already; choose another out=FOLDER.")
    trace = folder / "trace.json.gz"  # both viewers read it compressed
    profiling = Profiling(steps, trace)
    measured = for_steps(config, profiling.batches)
    make_folder(folder)
    run = folder / "run"
    try:
        # what a training says of itself is no part of the profile
        with redirect_stdout(sys.stderr):
            train(measured, run, more=[profiling])
        for name in ("config.yaml", "environment.json"):
            (run / name).replace(folder / name)
    finally:
        shutil.rmtree(run, ignore_errors=True)  # its weights are those of a few steps
    report = profiling.report
    assert report is not None, "Profiling raises where it has none"
    title, said = f"profile of {config['name']}", advice(report, config)
    content = {"name": config["name"], "overrides": list(overrides), **report.to_dict(), "advice": said}
    write_text(folder / "profile.json", json.dumps(content, indent=2) + "\n")
    write_text(folder / "profile.md", report.markdown(title, said))
    console = Console(soft_wrap=True)
    for table in report.tables(title):
        console.print(table)
    for sentence in [*report.sentences(), said]:
        console.print(sentence, highlight=False, markup=False)
    for name in ("profile.json", "profile.md"):
        print(os.path.relpath(folder / name))
    print(f"{os.path.relpath(trace)}  (open it in ui.perfetto.dev or chrome://tracing)")
    return folder


def for_steps(config: Mapping[str, Any], batches: int) -> dict[str, Any]:
    """Returns a run's config changed to last for some batches and to save, validate and log nothing on the way.

    What a step consists of is left alone.

    Raises:
        S4ecaError: a run that would resume another one or that has several processes.
    """
    from lightning.pytorch.callbacks import Checkpoint, EarlyStopping

    from s4eca.build import instantiate
    from s4eca.lit import ParameterReport, ValidationPictures
    from s4eca.lit.cost import Cost

    if config["resume"]:
        raise S4ecaError("a profile starts anew; leave resume away and give the run's own overrides.")
    devices = config["trainer"].get("devices", "auto")
    if devices not in (1, "1") and not (isinstance(devices, list) and len(devices) == 1):
        raise S4ecaError(f"one process is profiled at a time, and trainer.devices={devices}; set trainer.devices=1.")
    if config["trainer"].get("num_nodes", 1) != 1:
        raise S4ecaError("one process is profiled at a time; set trainer.num_nodes=1.")
    beside = (Checkpoint, EarlyStopping, Cost, ParameterReport, ValidationPictures)
    callbacks = {
        name: node
        for name, node in config["callbacks"].items()
        if node and not isinstance(instantiate(node, f"callbacks.{name}"), beside)
    }
    trainer = {
        **config["trainer"],
        "max_epochs": batches,  # every epoch has one at least
        "max_steps": batches,  # at most one optimiser step per batch
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "val_check_interval": 1.0,
        "check_val_every_n_epoch": 1,
    }
    return {**config, "trainer": trainer, "callbacks": callbacks, "logger": {}, "evaluate": None}
