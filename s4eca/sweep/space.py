"""A search space: a YAML file that says which keys of `train.yaml` are tried, and over which values."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial
from yaml import YAMLError  # type: ignore[import-untyped]

from s4eca.cli.config import conf_dir
from s4eca.errors import S4ecaError
from s4eca.folders import visible
from s4eca.overrides import Value, written
from s4eca.text import read_text
from s4eca.wording import indefinite

PARTS = {"metric", "direction", "sampler", "pruner", "space"}
FIELDS = {"float": {"low", "high", "log", "step"}, "int": {"low", "high", "log", "step"}}


@dataclass(frozen=True)
class Axis:
    """One key and its values.

    Attributes:
        key: as in an override of `train.yaml`, a group's name among them.
        distribution: what Optuna draws from; lists stand in it as their text, since it knows single values only.
        lists: the lists behind those texts.
    """

    key: str
    distribution: BaseDistribution
    lists: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def values(self) -> list[Value]:
        """The choices, or the two ends of a range."""
        if isinstance(self.distribution, CategoricalDistribution):
            return [self._meant(choice) for choice in self.distribution.choices]
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return [self.distribution.low, self.distribution.high]

    def suggest(self, trial: Trial) -> Value:
        """Returns the trial's value of this key; a retried trial has its own already."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self._meant(trial.suggest_categorical(self.key, self.distribution.choices))
        drawn = self.distribution
        assert isinstance(drawn, FloatDistribution | IntDistribution)
        if isinstance(drawn, IntDistribution):
            return trial.suggest_int(self.key, drawn.low, drawn.high, step=drawn.step, log=drawn.log)
        return trial.suggest_float(self.key, drawn.low, drawn.high, step=drawn.step, log=drawn.log)

    def _meant(self, choice: Any) -> Value:
        return self.lists.get(choice, choice) if isinstance(choice, str) else choice


@dataclass(frozen=True)
class Space:
    """What a study tries, and how it chooses.

    Attributes:
        name: as given: a name in `conf/sweep`, or a path.
        metric: validation score that a run's checkpoint callback monitors.
        direction: `maximize` or `minimize`.
        axes: the keys.
        sampler: `name` and its settings, see `s4eca.sweep.sampling`.
        pruner: likewise.
    """

    name: str
    metric: str
    direction: str
    axes: tuple[Axis, ...]
    sampler: dict[str, Any]
    pruner: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """Returns all that decides the search, as values that JSON can hold."""
        axes = {axis.key: describe(axis.distribution) for axis in self.axes}
        parts = {"metric": self.metric, "direction": self.direction, "sampler": self.sampler, "pruner": self.pruner}
        return json.loads(json.dumps({**parts, "space": axes}))


def load_space(name: str) -> Space:
    """Reads a search space.

    Args:
        name: of a file in `conf/sweep`, or a path that ends in .yaml.

    Raises:
        S4ecaError: no such file, a part or a field that it does not know, or a range that holds nothing.
    """
    content = _read(_find(name))
    unknown = sorted(map(str, set(content) - PARTS))
    if unknown:
        raise S4ecaError(f"sweep={name} has {', '.join(unknown)}, and knows {', '.join(sorted(PARTS))} only.")
    metric, direction, keys = content.get("metric"), content.get("direction"), content.get("space")
    if not isinstance(metric, str) or not metric.startswith("val/"):
        raise S4ecaError(f"sweep={name} needs metric: val/…, a score of the validation split, and has {metric}.")
    if direction not in ("maximize", "minimize"):
        raise S4ecaError(f"sweep={name} needs direction: maximize or minimize, and has {direction}.")
    if not isinstance(keys, Mapping) or not keys:
        raise S4ecaError(f"sweep={name} needs space: with a line per key, as KEY: {{choices: [A, B]}}.")
    chosen: dict[str, dict[str, Any]] = {}
    for part in ("sampler", "pruner"):
        settings = content.get(part)
        if not isinstance(settings, Mapping) or not isinstance(settings.get("name"), str):
            raise S4ecaError(f"sweep={name} needs {part}: {{name: …}}, and has {settings}.")
        chosen[part] = dict(settings)
    axes = tuple(_axis(str(key), given, f"sweep={name}: {key}") for key, given in keys.items())
    return Space(name, metric, direction, axes, chosen["sampler"], chosen["pruner"])


def describe(distribution: BaseDistribution) -> dict[str, Any]:
    """Returns a distribution as a search space writes it."""
    if isinstance(distribution, CategoricalDistribution):
        return {"choices": list(distribution.choices)}
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = "int" if isinstance(distribution, IntDistribution) else "float"
    values = {"low": distribution.low, "high": distribution.high, "log": distribution.log, "step": distribution.step}
    return {"type": kind, **values}


def _find(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise S4ecaError(f"sweep={name}: there is no such file.")
        return path
    folder = Path(conf_dir()) / "sweep"
    if not (folder / f"{name}.yaml").is_file():
        there = ", ".join(path.stem for path in visible(folder, "*.yaml"))
        raise S4ecaError(f"sweep={name} is no search space; there are {there}, or give the path of a .yaml file.")
    return folder / f"{name}.yaml"


def _read(path: Path) -> dict[Any, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(io.StringIO(read_text(path))), resolve=True)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise S4ecaError(f"{path} cannot be read as a search space: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise S4ecaError(f"{path} is no search space: it needs {', '.join(sorted(PARTS))}.")
    return content


def _axis(key: str, given: Any, where: str) -> Axis:
    if not isinstance(given, Mapping) or ("choices" in given) == ("type" in given):
        raise S4ecaError(
            f"{where} needs {{choices: [A, B]}}, {{type: float, low: A, high: B}} or {{type: int, low: A, high: B}},"
            f" and has {given}."
        )
    if "choices" in given:
        return _categorical(key, given, where)
    kind = given["type"]
    if kind not in FIELDS:
        raise S4ecaError(f"{where} has type: {kind}, and knows float and int; other values are choices: [A, B].")
    unknown = sorted(map(str, set(given) - FIELDS[kind] - {"type"}))
    if unknown:
        raise S4ecaError(f"{where} has {', '.join(unknown)}; {indefinite(kind)} knows low, high, log and step.")
    return Axis(key, _numeric(kind, given, where))


def _numeric(kind: str, given: Mapping[str, Any], where: str) -> FloatDistribution | IntDistribution:
    low, high, log, step = given.get("low"), given.get("high"), given.get("log", False), given.get("step")
    right: type | tuple[type, ...] = int if kind == "int" else (int, float)
    for name, value in (("low", low), ("high", high), ("step", 1 if step is None else step)):
        if isinstance(value, bool) or not isinstance(value, right):
            raise S4ecaError(f"{where} has {name}: {value}, where {indefinite(kind)} is needed.")
    if not isinstance(log, bool):
        raise S4ecaError(f"{where} has log: {log}, where true or false is needed.")
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if not low < high:
        raise S4ecaError(f"{where} has low: {low} and high: {high}; low must be less.")
    if kind == "int" and step is not None and step > 0 and (high - low) % step:
        raise S4ecaError(f"{where} cannot reach high: {high} from low: {low} in steps of {step}.")
    try:
        if kind == "int":
            return IntDistribution(int(low), int(high), log=log, step=1 if step is None else step)
        return FloatDistribution(float(low), float(high), log=log, step=step)
    except ValueError as error:
        raise S4ecaError(f"{where} holds no values: {' '.join(str(error).split()).rstrip('.')}.") from error


def _categorical(key: str, given: Mapping[str, Any], where: str) -> Axis:
    choices, unknown = given["choices"], sorted(map(str, set(given) - {"choices"}))
    if unknown:
        raise S4ecaError(f"{where} has {', '.join(unknown)} beside its choices, which need nothing else.")
    if not isinstance(choices, list) or len(choices) < 2:
        raise S4ecaError(f"{where} has choices: {choices}, where two values or more are needed.")
    lists, single = {}, []
    for choice in choices:
        if isinstance(choice, dict):
            raise S4ecaError(f"{where} has {choice} among its choices; they are single values, lists or options.")
        if isinstance(choice, list):
            lists[written(choice)] = choice
        single.append(written(choice) if isinstance(choice, list) else choice)
    if len(set(single)) < len(single):
        raise S4ecaError(f"{where} has the same choice twice: {choices}.")
    return Axis(key, CategoricalDistribution(single), lists)
