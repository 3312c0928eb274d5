"""What a run asks for, found without reading anything of it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s4eca.doctor.facts import Run, Wanted
from s4eca.doctor.gathering import cached_parts
from s4eca.errors import S4ecaError
from s4eca.overrides import plain_text

# keys whose values are paths that must be there, where they are given
PATHS = ("init_from", "resume", "weights_folder", "tuning.weights")
NO_PATHS = ("hub", "random")


def plan_run(overrides: Sequence[str]) -> Run:
    """Composes a run's config, builds its network without values, and looks for what it names.

    Raises:
        S4ecaError: an override that does not fit the config.
    """
    from s4eca.cli.train_config import compose_train
    from s4eca.dry_build import check_build

    config, choices = compose_train(overrides)
    wanted, refusal = _wanted(config, cached_parts(os.environ, Path.home()))
    try:
        if "segmenter" in config["model"]:
            check_build(config, solve=True)
    except S4ecaError as error:
        refusal = str(error)
    there = {f"{key}={path}": Path(path).exists() for key, path in named_paths(config)}
    given = [plain_text(item.partition("=")[2]) for item in overrides if item.startswith("hydra.run.dir=")]
    folder = given[-1] if given else f"outputs/{config['name']}"
    return Run(config, choices, tuple(wanted), refusal, there, folder)


def named_paths(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields keys and values of the paths that a run reads from."""
    data = config["data"]
    root = data.get("root")
    if "parts" in data:
        for name, part in data["parts"].items():
            if part:
                yield f"data.parts.{name}.root", str(Path(root or ".") / part["root"])
    elif root is not None and "Synthetic" not in str(data.get("_target_")):  # drawn where it is missing
        yield "data.root", str(root)
    for group in ("vision", "text"):
        weights = str(config.get(group, {}).get("weights", "random"))
        if weights not in NO_PATHS and not weights.startswith("hf:"):
            yield f"{group}.weights", weights
    for key in PATHS:
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if key == "resume" and value == "auto":  # starts where there is nothing to go on with
            continue
        if isinstance(value, str) and not value.startswith(("hf:", "wandb:")):
            yield key, value


def _asks_the_hub(node: Mapping[str, Any]) -> bool:
    weights, tokenizer = str(node.get("weights", "random")), node.get("tokenizer")
    if weights == "hub" or weights.startswith("hf:"):
        return True
    if tokenizer is None:  # beside the weights in a folder, by the model's name for a single file
        return "tokenizer" in node and Path(weights).is_file()
    return not Path(tokenizer).exists()


def _by_name(group: str, node: Mapping[str, Any]) -> Iterator[Wanted]:
    """Yields what a tower takes from the hub, its repository by the rule that nearly all of timm's names follow."""
    name, weights = str(node["name"]), str(node["weights"])
    if weights == "hub":
        yield Wanted(f"{group}.name={name}", f"timm/{name}" if group == "vision" else name)
    elif weights.startswith("hf:"):
        parts = weights.removeprefix("hf:").split("/", 2)
        yield Wanted(f"{group}.weights={weights}", "/".join(parts[:2]), "".join(parts[2:]))
    if "tokenizer" in node and (node["tokenizer"] is not None or not Path(weights).is_dir()):
        yield Wanted(f"{group}.tokenizer={node['tokenizer']}", str(node["tokenizer"] or name), "tokenizer")


def _wanted(config: Mapping[str, Any], cached: Mapping[str, Sequence[str]]) -> tuple[list[Wanted], str | None]:
    groups = [group for group in ("vision", "text") if _asks_the_hub(config.get(group) or {})]
    if not groups:
        return [], None
    by_name = [found for group in groups for found in _by_name(group, config[group])]
    if not config.get("weights_folder") and all(found.part in cached.get(found.repository, ()) for found in by_name):
        return by_name, None  # timm and transformers are needed for exact names alone
    from s4eca.weights_folder import list_needs, read_folder

    try:
        needs = [need for group in groups for need in list_needs(config[group], group)]
        folder = config.get("weights_folder")
        kept = read_folder(Path(folder)).records if folder and Path(folder).exists() else None
    except S4ecaError as error:
        return [], str(error)
    wanted: dict[tuple[str, str, str], Wanted] = {}
    for need in needs:
        has = None
        if kept is not None:
            record = kept.get(need.repository)
            has = record is not None and need.part in record.parts
        key = (need.repository, need.setting, need.part)
        if key not in wanted or has is False:
            wanted[key] = Wanted(need.setting, need.repository, need.part, has)
    return list(wanted.values()), None
