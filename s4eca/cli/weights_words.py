"""Which weights a command line asks for, in the words of `train.py` and `eval.py`."""

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from s4eca.cli.config import conf_dir
from s4eca.errors import S4ecaError
from s4eca.folders import visible
from s4eca.overrides import check_overrides, composing_reason
from s4eca.weights_folder.needs import GROUPS, Need, list_needs

TRAINING_FREE = ("clip", "grounding", "proposer", "decoupler", "selector", "ablation")  # groups of model=dgl_rsis
EITHER = ("data", "trainer", "logger", "split", "seed", "name", "image_size")  # no word about a kind of model


def wanted(words: Iterable[str]) -> list[Need]:
    """Returns what runs with these words take from the hub.

    Args:
        words: as `train.py` and, with `model=dgl_rsis` or one of its groups, `eval.py` take them, several options with
            commas between them; none for the defaults of a training, or `all` alone for every shipped config.

    Raises:
        S4ecaError: words that no config has.
    """
    words = list(words)
    if words == ["all"]:
        return list(dict.fromkeys(_everything()))
    check_overrides(words, several=True)
    overrides = OverridesParser.create().parse_overrides(words)
    free: list[Override] = []
    other: list[Override] = []
    either: list[Override] = []
    inner: list[Override] = []  # single keys of a trained model; `protocols` is of both kinds
    trained = OmegaConf.load(Path(conf_dir()) / "model" / "referring.yaml")
    for override in overrides:
        key = override.get_key_element().lstrip("+~")
        head = key.partition(".")[0].partition("@")[0]
        if head == "model" and key.partition(".")[2].partition(".")[0] in trained:
            inner.append(override)
            continue
        referring = head == "model" and str(override.value()) == "referring"
        is_free = head in TRAINING_FREE or (head == "model" and not referring)
        (either if head in EITHER else free if is_free else other).append(override)
    (free if free and not other else other).extend(inner)
    needs: list[Need] = []
    if free:
        chosen = [] if any(override.get_key_element() == "model" for override in free) else ["model=dgl_rsis"]
        for line in _lines([*free, *either]):
            needs += _needs(_composed("eval", [*chosen, *line]), GROUPS[2:])
    if other or not free:
        for line in _lines([*other, *(override for override in either if override.get_key_element() != "split")]):
            needs += _needs(_composed("train", line), GROUPS[:2])
    return list(dict.fromkeys(needs))


def _everything() -> Iterator[Need]:
    for entry, line, groups in (("train", [], GROUPS[:2]), ("eval", ["model=dgl_rsis"], GROUPS[2:])):
        config = _composed(entry, line)
        OmegaConf.set_struct(config, False)
        for group in groups:
            chosen = config[group]
            for path in visible(Path(conf_dir()) / group, "*.yaml"):
                config[group] = OmegaConf.load(path)  # composing for each would take a minute
                yield from _needs(config, (group,))
            config[group] = chosen


def _lines(overrides: list[Override]) -> Iterator[list[str]]:
    """Yields the command lines that commas and the like stand for."""
    choices = []
    for override in overrides:
        if override.is_sweep_override():
            values = override.sweep_string_iterator()
            choices.append([f"{override.get_key_element()}={value}" for value in values])
        else:
            choices.append([str(override.input_line)])
    yield from map(list, product(*choices))


def _composed(entry: str, line: list[str]) -> DictConfig:
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return compose(entry, overrides=line)
    except HydraException as error:
        raise S4ecaError(f"{' '.join(line)} cannot be composed ({composing_reason(error)}).") from error


def _needs(config: DictConfig, groups: Iterable[str]) -> list[Need]:
    found: list[Need] = []
    for group in groups:
        node: Any = OmegaConf.to_container(config[group], resolve=True) if group in config else None
        found += list_needs(node, group)
    return found
