"""Evaluations on disk for a table: finding `metrics.json`, reading it, and telling which differ by their seed alone."""

import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s4eca.errors import S4ecaError
from s4eca.evaluation.about import lacks_identity, list_differences, list_entries, tell_differences
from s4eca.evaluation.tables.cost import find_cost_problem
from s4eca.evaluation.tables.published import SCORES
from s4eca.folders import visible
from s4eca.text import read_json

METRICS = "metrics.json"
SWEEP = "multirun.yaml"  # Hydra writes it beside the run folders of a sweep


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Attributes:
        path: its `metrics.json`.
        about: what was evaluated; holds `dataset` and `split`.
        protocols: scores as fractions and counts by protocol, None where a score has no value.
    """

    path: Path
    about: Mapping[str, Any]
    protocols: Mapping[str, Mapping[str, Any]]

    @property
    def dataset(self) -> str:
        """The dataset's name as in `data=…`."""
        return str(self.about["dataset"])

    @property
    def split(self) -> str:
        """`train`, `val` or `test`."""
        return str(self.about["split"])

    @property
    def name(self) -> str:
        """The run's name, or that of its file or folder where `about` has none."""
        fallback = self.path.parent.name if self.path.name == METRICS else self.path.stem
        return " ".join(str(self.about.get("name") or fallback or self.path).split())


def find_runs(given: Sequence[Path]) -> list[Run]:
    """Reads evaluations.

    Args:
        given: files as `s4eca score --out` and `eval.py` write them, folders that hold `metrics.json`, run folders,
            whose `eval/*/metrics.json` are taken, or folders of such folders, as a sweep makes them; what is given
            twice is taken once. A sweep's `multirun.yaml` is passed over, so that `SWEEP/*` can be given; runs of a
            sweep that were not evaluated, and evaluations of label maps, are left out with a warning.

    Raises:
        S4ecaError: a path that does not exist, a folder without an evaluation, or a file that is not an evaluation's.
    """
    files: dict[Path, Path] = {}
    for path in given:
        if path.name == SWEEP and path.is_file():
            continue
        for file in _files(path):
            files.setdefault(file.resolve(), file)
    scored = [file for file in files.values() if not _is_of_labels(file)]
    if len(scored) < len(files):
        warnings.warn(
            f"{len(files) - len(scored)} evaluations of label maps are left out: the table is of expressions.",
            stacklevel=2,
        )
    if not scored:
        raise S4ecaError(
            f"There is no evaluation of expressions in {', '.join(map(str, given))}: give the run folders too."
        )
    return [read_run(file) for file in scored]


def read_run(file: Path) -> Run:
    """Reads one `metrics.json`.

    Raises:
        S4ecaError: damaged JSON, no `about` with dataset and split, or a protocol with a missing or impossible score.
    """
    again = "evaluate again with eval.py or `s4eca score`"
    try:
        content = read_json(file)
    except OSError as error:
        raise S4ecaError(f"{file} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise S4ecaError(f"{file} is damaged, it is not JSON ({error}): {again}.") from error
    about, protocols = (content.get(key) if isinstance(content, dict) else None for key in ("about", "protocols"))
    if not isinstance(about, dict) or not all(isinstance(about.get(key), str) for key in ("dataset", "split")):
        raise S4ecaError(f"{file} does not say which dataset and split it is of ('about'): {again}.")
    if not isinstance(protocols, dict) or not protocols:
        raise S4ecaError(f"{file} has no scores ('protocols'): {again}.")
    for protocol, values in protocols.items():
        problem = _problem(values)
        if problem:
            raise S4ecaError(f"{file} is damaged, protocol {protocol} {problem}: {again}.")
    problem = find_cost_problem(about)
    if problem:
        raise S4ecaError(f"{file} is damaged, it {problem}: {again}.")
    return Run(file, about, protocols)


def group_runs(runs: Sequence[Run], protocol: str) -> tuple[list[list[Run]], list[str]]:
    """Puts evaluations together that differ by their seed alone.

    They share dataset, split, name, the protocol's counts and all that made them (`list_entries`), and each has a seed
    of its own. Where a seed is missing or occurs twice, nothing is put together: a deviation over them would say
    nothing about seeds. Nor is it where evaluations do not say which backbones they are of.

    Returns:
        The groups in the order of their first member, and a sentence for all runs of a name that were left apart.
    """
    alike: dict[str, list[Run]] = {}
    for run in runs:
        key = [run.dataset, run.split, run.name, _counts(run, protocol), list_entries(run.about)]
        alike.setdefault(json.dumps(key, sort_keys=True), []).append(run)
    groups: list[list[Run]] = []
    apart: list[str] = []
    for members in alike.values():
        seeds = [run.about.get("seed") for run in members]
        listed = ", ".join("none" if seed is None else str(seed) for seed in seeds)
        if len(members) == 1:
            reason = None
        elif lacks_identity(members[0].about):
            reason = f"their backbones are not stated (seeds {listed}): evaluate their checkpoints again"
        else:
            reason = f"their seeds are not all different ({listed})"
            reason = reason if None in seeds or max(Counter(seeds).values()) > 1 else None
        groups += [members] if reason is None else [[run] for run in members]
        if reason is not None:
            apart.append(f"{members[0].name}: {len(members)} evaluations are shown each for itself, as {reason}.")
    return groups, [*apart, *_differences(list(alike.values()), protocol)]


def _differences(groups: Sequence[Sequence[Run]], protocol: str) -> list[str]:
    """Returns for each name of several groups in what these differ."""
    named: dict[str, list[Run]] = {}
    for members in groups:
        named.setdefault(members[0].name, []).append(members[0])
    notes = []
    for name, runs in named.items():
        if len(runs) > 1:
            counts = [", ".join(map(str, _counts(run, protocol))) for run in runs]
            differences = {"samples, empty and without target": counts} if len(set(counts)) > 1 else {}
            told = tell_differences(list_differences(*(run.about for run in runs)) | differences)
            notes.append(f"{name}: {len(runs)} rows are not seeds of one another, as they differ in {told}.")
    return notes


def _counts(run: Run, protocol: str) -> list[int]:
    return [run.protocols[protocol].get(key) or 0 for key in ("n", "n_empty", "n_no_target")]


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise S4ecaError(f"There is no {path}: give run folders, evaluation folders or files of `s4eca score --out`.")
    if not path.is_dir():
        return [path]
    files = _own(path)
    if files:
        return files
    found = {folder: _own(folder) for folder in visible(path) if folder.is_dir()}
    if not any(found.values()):
        raise S4ecaError(
            f"{path} holds neither {METRICS} nor eval/*/{METRICS}, nor do its folders: evaluate the checkpoint first"
            " with eval.py."
        )
    # every run folder has its config
    missing = [folder.name for folder, own in found.items() if not own and (folder / "config.yaml").is_file()]
    if missing:
        warnings.warn(
            f"{path} holds {len(missing)} runs without evaluation, which are left out: {', '.join(missing)}.",
            stacklevel=3,
        )
    return [file for own in found.values() for file in own]


def _is_of_labels(file: Path) -> bool:
    """Whether a file is an evaluation of label maps; what cannot be read is for `read_run` to say."""
    try:
        content = read_json(file)
    except (OSError, ValueError, S4ecaError):
        return False
    return isinstance(content, dict) and content.get("task") == "semantic"


def _own(folder: Path) -> list[Path]:
    """Returns the evaluation in an evaluation's folder, or those in a run's."""
    if (folder / METRICS).is_file():
        return [folder / METRICS]
    return visible(folder, f"eval/*/{METRICS}")


def _problem(values: Any) -> str | None:
    """Says what is wrong with a protocol's scores."""
    if not isinstance(values, dict):
        return "is not an object"
    for name in SCORES:
        if name not in values:
            return f"lacks {name}"
        value = values[name]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            return f"has {name} = {value!r} instead of a fraction"
    for name in ("n", "n_empty", "n_no_target"):
        value = values.get(name, None if name == "n" else 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            return f"has {name} = {value!r} instead of a count"
    return None
