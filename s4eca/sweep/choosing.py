"""Choosing the learning rate of every row of a comparison among those that short runs have tried, on val alone."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s4eca.cli.resuming import ENDED, differences
from s4eca.errors import S4ecaError
from s4eca.folders import visible

METRIC = "val/mIoU"
LEAST = 3


@dataclass(frozen=True)
class Tried:
    """One run of a search for rates.

    Attributes:
        path: run folder.
        row: the run's name, which is that of its row.
        lr: its learning rate.
        seed: its seed.
        length: how long it trained, in words.
        score: its best score on the validation split.
    """

    path: Path
    row: str
    lr: float
    seed: int
    length: str
    score: float


def find_tried(folders: Sequence[Path]) -> tuple[list[Tried], list[Path]]:
    """Reads the runs of a search.

    Args:
        folders: run folders, or folders of these, as a multirun or `s4eca sweep` makes them.

    Returns:
        The runs that have ended with a score, and the folders of the others.

    Raises:
        S4ecaError: no run, a damaged one, one that was not selected by `METRIC`, or runs of a row that differ by more
            than rate and seed.
    """
    configs = [
        file for folder in folders for file in (*visible(folder, "config.yaml"), *visible(folder, "*/config.yaml"))
    ]
    if not configs:
        raise S4ecaError(f"there is no run in {', '.join(map(str, folders))}; give the folder of a multirun.")
    tried: list[Tried] = []
    unended: list[Path] = []
    first: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file in configs:
        config = _read(file)
        best = config["callbacks"].get("best") or {}
        if (best.get("monitor"), best.get("mode")) != (METRIC, "max"):
            raise S4ecaError(
                f"{file.parent} kept its checkpoint by {best.get('monitor')}; a rate is chosen by the largest {METRIC}."
            )
        path, other = first.setdefault(str(config["name"]), (file.parent, config))
        changed = [
            key for key in differences(other, config) if not key.startswith(("model.lr:", "seed:", "data.seed:"))
        ]
        if changed:
            raise S4ecaError(
                f"{path} and {file.parent} differ by more than rate and seed: {changed[0]}; leave one out."
            )
        ended = file.parent / ENDED
        score = json.loads(ended.read_text(encoding="utf-8"))["best"] if ended.is_file() else None
        if score is None or not math.isfinite(score):
            unended.append(file.parent)
            continue
        steps, epochs = config["trainer"]["max_steps"], config["trainer"]["max_epochs"]
        length = f"{steps} steps" if steps not in (None, -1) else f"{epochs} epochs"
        tried.append(Tried(file.parent, str(config["name"]), config["model"]["lr"], config["seed"], length, score))
    return tried, unended


def _read(file: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise S4ecaError(f"{file} cannot be read: {' '.join(str(error).split())}; leave its run out.") from error
    if not isinstance(content, dict) or not {"name", "model", "seed", "trainer", "callbacks", "tuning"} <= set(content):
        raise S4ecaError(f"{file} is not the config of a training; leave its folder out.")
    return {str(key): value for key, value in content.items()}


def choose_rates(tried: Sequence[Tried]) -> dict[str, dict[str, Any]]:
    """Returns for each row the rate with the best mean score over its seeds, the smaller of two equal ones.

    Raises:
        S4ecaError: a row with fewer than `LEAST` rates, or with other seeds for one rate than for another.
    """
    entries: dict[str, dict[str, Any]] = {}
    for row in dict.fromkeys(run.row for run in tried):
        runs = sorted((run for run in tried if run.row == row), key=lambda run: run.lr)
        rates = {rate: [run for run in runs if run.lr == rate] for rate in dict.fromkeys(run.lr for run in runs)}
        if len(rates) < LEAST:
            listed = ", ".join(f"{rate:g}" for rate in rates)
            raise S4ecaError(f"{row} has ended runs of {listed} only; a rate is chosen from at least {LEAST}.")
        seeds = {rate: sorted(run.seed for run in of) for rate, of in rates.items()}
        if len({tuple(of) for of in seeds.values()}) > 1:
            listed = "; ".join(f"{rate:g}: {', '.join(map(str, of))}" for rate, of in seeds.items())
            raise S4ecaError(f"the rates of {row} were tried with other seeds each ({listed}); run the missing ones.")
        scores = {rate: fmean(run.score for run in of) for rate, of in rates.items()}
        entries[row] = {
            "lr": max(scores, key=lambda rate: scores[rate]),
            "val": {f"{rate:g}": round(score, 4) for rate, score in scores.items()},
            "by": f"{METRIC}, {runs[0].length}, seed {', '.join(map(str, seeds[runs[0].lr]))}",
        }
    return entries
