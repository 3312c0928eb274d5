"""A composed config against what its parts take, before anything is read or built.

An experiment's settings outlive the option that they were made for: `experiment=NAME decoder=lavt` may leave a
`decoder.width` that only another decoder has.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from s4eca.build import SEGMENTER, check_expressions
from s4eca.cli.config import conf_dir
from s4eca.errors import S4ecaError
from s4eca.folders import visible
from s4eca.identity import flatten
from s4eca.settings import UnknownSettingError, check_keys, check_values

# groups that are one part each, and those whose entries are parts by name
PARTS = ("model", "tuning", "vision", "text", "fusion", "decoder", "loss", "data", "trainer")
BY_NAME = ("callbacks", "logger")


def check_config(config: Mapping[str, Any], choices: Mapping[str, str] | None = None) -> None:
    """Checks the parts of a training or an evaluation.

    Args:
        config: resolved.
        choices: option of every config group, where it is known.

    Raises:
        S4ecaError: a part that is missing, a key or a value that a part does not take, each by name.
    """
    model = config.get("model", {})
    trained = "segmenter" in model or "_target_" not in model
    if trained:
        for group in PARTS:
            if "_target_" not in config.get(group, {}):
                left = ", ".join(flatten(config.get(group, {}), f"{group}."))
                belongs = f", to which {left} would belong" if left else ""
                raise S4ecaError(f"no {group} is chosen{belongs}; choose {group}={'|'.join(_options(group))}.")
        check_expressions(config)
    for key, node in _parts(config):
        if "_target_" not in node:
            group, _, name = key.partition(".")
            others = " or ".join(_having(group, name)) or "none does"
            raise S4ecaError(
                f"{', '.join(flatten(node, f'{key}.'))} belongs to no part, since no option of {group} that is chosen "
                f"has {name} ({others}); leave it out with ~{key}, or choose one that has it."
            )
        try:
            check_keys(node, key)
        except UnknownSettingError as error:
            raise S4ecaError(_with_options(error, choices or {})) from error
        if trained:  # the parts of a training-free method check theirs as they are built, which is at once
            check_values(node, key)


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the keys and nodes of all parts."""
    for group, content in config.items():
        if group in BY_NAME:
            yield from ((f"{group}.{name}", node) for name, node in content.items() if node)
        elif group == "model" and "segmenter" in content:
            yield "model.segmenter", {"_target_": SEGMENTER, **content["segmenter"]}
            yield "model", {name: value for name, value in content.items() if name != "segmenter"}
        elif group == "model":  # of a training-free method, whose parts stand within
            yield from ((f"model.{name}", node) for name, node in content.items() if _is_node(node))
        elif _is_node(content):
            yield group, content


def _is_node(content: Any) -> bool:
    return isinstance(content, Mapping) and "_target_" in content


def _with_options(error: UnknownSettingError, choices: Mapping[str, str]) -> str:
    """Returns an error's sentence with the option that was chosen and those that have its keys."""
    place = "data.augmentation" if error.key == "data.augmentation" else error.key.partition(".")[0]
    group = place.rpartition(".")[2]
    sentence = str(error)
    if choices.get(group):
        sentence = sentence.replace(error.target, f"{error.target}, {group}={choices[group]}", 1)
    names = [f"{error.key}.{name}".removeprefix(f"{place}.") for name in error.names]
    others = set.intersection(*(set(_having(group, name)) for name in names)) - {f"{group}={choices.get(group)}"}
    if not others:
        return sentence
    has = "has" if len(others) == 1 else "have"
    return f"{sentence.removesuffix('.')}, or choose {' or '.join(sorted(others))}, which {has} it."


def _options(group: str) -> list[str]:
    return [path.stem for path in visible(Path(conf_dir()) / group, "*.yaml") if path.stem != "checkpoint"]


def _having(group: str, key: str) -> list[str]:
    """Returns the options of a group, as on the command line, whose configs have a key."""
    return [f"{group}={option}" for option in _options(group) if _has(group, option, key)]


def _has(group: str, option: str, key: str) -> bool:
    content = OmegaConf.load(Path(conf_dir()) / group / f"{option}.yaml")
    assert isinstance(content, DictConfig)
    if OmegaConf.select(content, key) is not None:
        return True
    bases = [base for base in content.get("defaults", []) if isinstance(base, str) and base in _options(group)]
    return any(_has(group, base, key) for base in bases)
