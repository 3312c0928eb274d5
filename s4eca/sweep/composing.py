"""Configs of trials: `train.yaml` with overrides, composed in this process, and a search space checked against it."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s4eca.cli.config import conf_dir
from s4eca.cli.train_config import compose_quietly
from s4eca.errors import S4ecaError
from s4eca.folders import visible
from s4eca.identity import flatten, settings
from s4eca.overrides import check_overrides as check_grammar
from s4eca.overrides import composing_reason, override
from s4eca.sweep.space import Space


def compose_train(overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the resolved config of `train.py OVERRIDES`.

    Raises:
        S4ecaError: an override that does not fit, or a setting that a part does not take.
    """
    config, choices = _compose(overrides)
    _check_parts(config, choices)
    return config


def check_overrides(overrides: Sequence[str], space: Space) -> None:
    """Checks that overrides can be the same for all trials.

    Raises:
        S4ecaError: no override at all, a key of Hydra or of a resumed run, or one that the space tries.
    """
    check_grammar(overrides)
    tried = {axis.key for axis in space.axes}
    for item in overrides:
        key = OverridesParser.create().parse_override(item).key_or_group
        if key == "resume" or key.startswith("hydra"):
            raise S4ecaError(f"{item} has no meaning in a sweep; every trial is a new run in a folder of its own.")
        if key in tried:
            raise S4ecaError(f"{item} is given, and sweep={space.name} tries {key}; leave out one of them.")


def check_space(space: Space, overrides: Sequence[str]) -> dict[str, Any]:
    """Composes what a study's trials have in common, and every option of its groups once.

    Returns:
        The resolved config without the space's choices.

    Raises:
        S4ecaError: a key that `train.yaml` does not know, an option that does not exist, a run that cannot be a trial.
    """
    where = f"sweep={space.name}"
    base, groups = _compose(overrides)
    options: dict[str, list[Any]] = {}
    for axis in space.axes:
        if axis.key in groups:
            options[axis.key] = axis.values
            _check_options(axis.key, axis.values, where)
    single = [axis.key for axis in space.axes if axis.key not in options]
    if not options:
        _check_parts(base, groups)
        _check(base, single, space, where)
    first = {key: values[0] for key, values in options.items()}
    for key, values in options.items():
        for value in values:
            given = [override(name, option) for name, option in {**first, key: value}.items()]
            _check(compose_train([*overrides, *given]), single, space, f"{where}, with {' '.join(given)}")
    # values may clash where single keys do not
    compose_train([*overrides, *(override(axis.key, axis.values[0]) for axis in space.axes)])
    return base


def common(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config's keys and values that all workers of a study must share, as `{"trainer.max_steps": 600}`."""
    return settings(json.loads(json.dumps(config)))


def _compose(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the resolved config, and the option of each of its groups."""
    try:
        return compose_quietly(overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        reason = composing_reason(error)
        raise S4ecaError(f"{' '.join(overrides)} cannot be composed with train.yaml: {reason}.") from error


def _check_parts(config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    from s4eca.cli.check_config import check_config  # imports torch, which a mistyped key need not wait for

    check_config(config, choices)


def _check_options(group: str, values: Sequence[Any], where: str) -> None:
    there = [path.stem for path in visible(Path(conf_dir()) / group, "*.yaml")]
    for value in values:
        if value is not None and value not in there:
            raise S4ecaError(f"{where}: {group} has no option {value}; there are {', '.join(there)}.")


def _check(config: dict[str, Any], keys: Sequence[str], space: Space, where: str) -> None:
    for key in keys:
        _check_key(key, config, where)
    _check_run(config, space)


def _check_key(key: str, config: dict[str, Any], where: str) -> None:
    node = OmegaConf.create(config)
    assert isinstance(node, DictConfig)
    missing = object()
    try:
        value = OmegaConf.select(node, key, default=missing)
    except OmegaConfBaseException:
        value = missing
    if value is missing:
        near = difflib.get_close_matches(key, flatten(config), n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise S4ecaError(f"{where}: train.yaml has no key {key}{hint}")
    if isinstance(value, DictConfig):
        below = ", ".join(f"{key}.{name!s}" for name in value)
        raise S4ecaError(f"{where}: {key} holds other keys; name one of {below}.")


def _check_run(config: Mapping[str, Any], space: Space) -> None:
    """Refuses runs that cannot be trials of this space."""
    trainer = config["trainer"]
    many = trainer["devices"] not in (1, "1") or trainer.get("num_nodes", 1) != 1
    strategy = str(trainer.get("strategy", "auto")).lower()
    if many or any(name in strategy for name in ("ddp", "fsdp", "deepspeed")):
        raise S4ecaError(
            f"a trial with trainer.devices={trainer['devices']} would start the sweep again in every process; set"
            " trainer=gpu trainer.devices=1 and start a worker per GPU (CUDA_VISIBLE_DEVICES=0 s4eca sweep …)."
        )
    if config["evaluate"] is not None:
        raise S4ecaError(
            f"evaluate={config['evaluate']} would evaluate every trial; set evaluate=null, and evaluate the best one"
            " when the sweep has ended."
        )
    mode = {"maximize": "max", "minimize": "min"}[space.direction]
    monitored = [
        (str(node["monitor"]), str(node.get("mode", "min")))
        for node in config["callbacks"].values()
        if node and str(node["_target_"]).endswith("ModelCheckpoint") and node.get("monitor")
    ]
    if monitored != [(space.metric, mode)]:
        raise S4ecaError(
            f"sweep={space.name} has metric: {space.metric}, direction: {space.direction}, so that one checkpoint"
            f" callback must monitor it: set callbacks.best.monitor={space.metric} callbacks.best.mode={mode} (the"
            f" config has {', '.join(' '.join(pair) for pair in monitored) or 'none'})."
        )
