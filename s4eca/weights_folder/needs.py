"""What a config node takes from the hub, found without building anything."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra.utils
from timm.models import get_pretrained_cfg

from s4eca.errors import S4ecaError
from s4eca.settings import taken_by
from s4eca.towers.timm_tower import TimmTower
from s4eca.weights.sources import HUB, HUB_FILE, RANDOM, split_hub_file

GROUPS = ("vision", "text", "clip", "grounding", "proposer")  # config groups whose options may have weights
WEIGHTS, TOKENIZER = "weights", "tokenizer"

# what timm takes in place of a pickle
SAFE = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}


@dataclass(frozen=True)
class Need:
    """One thing that a node takes from the hub.

    Attributes:
        setting: the config setting that asks for it, for example `text.name=google-bert/bert-base-uncased`.
        repository: of the hub.
        part: `weights`, `tokenizer`, or the path of a single file.
        candidates: of a model that is one file, its names, the first that the repository has being the one; empty for
            models of transformers, which are folders.
        revision: of the hub, where the library pins one.
    """

    setting: str
    repository: str
    part: str
    candidates: tuple[str, ...] = ()
    revision: str | None = None


def list_needs(node: Any, key: str) -> list[Need]:
    """Returns what a node and the nodes within it take from the hub.

    Args:
        node: plain values.
        key: where it stands in the config.
    """
    if isinstance(node, list):
        return [need for place, item in enumerate(node) for need in list_needs(item, f"{key}[{place}]")]
    if not isinstance(node, Mapping):
        return []
    inner = [need for name, value in node.items() for need in list_needs(value, f"{key}.{name}")]
    return [*own_needs(node, key).values(), *inner]


def own_needs(node: Mapping[str, Any], key: str) -> dict[str, Need]:
    """Returns what a node itself takes from the hub, by its settings `weights` and `tokenizer`.

    Raises:
        S4ecaError: a model that its library has no weights of, or an incomplete `hf:`.
    """
    made = _class_of(node)
    if made is None or node.get("_partial_"):
        return {}
    settings = dict(taken_by(made).defaults)
    if "weights" not in settings:
        return {}
    settings |= node
    name, weights = settings["name"] or made.hub_id, str(settings["weights"])  # type: ignore[attr-defined]
    found: dict[str, Need] = {}
    if weights == HUB and issubclass(made, TimmTower):
        found[WEIGHTS] = _timm_need(name, key)
    elif weights == HUB:
        found[WEIGHTS] = Need(f"{key}.name={name}", name, WEIGHTS)
    elif weights.startswith(HUB_FILE):
        repository, file = split_hub_file(key, weights)
        found[WEIGHTS] = Need(f"{key}.weights={weights}", repository, file, (file,))
    if "tokenizer" in settings:
        tokenizer = settings["tokenizer"]
        beside = weights == RANDOM or Path(weights).is_dir()
        if tokenizer is None and not beside:
            found[TOKENIZER] = Need(f"{key}.name={name}", name, TOKENIZER)
        elif tokenizer is not None and not Path(tokenizer).exists():
            found[TOKENIZER] = Need(f"{key}.tokenizer={tokenizer}", tokenizer, TOKENIZER)
    return found


def nested(node: Mapping[str, Any]) -> Iterator[str]:
    """Yields the names of a node's values that are nodes, or lists of them."""
    for name, value in node.items():
        items = value if isinstance(value, list) else [value]
        if items and all(isinstance(item, Mapping) and "_target_" in item for item in items):
            yield name


def _class_of(node: Mapping[str, Any]) -> type | None:
    target = str(node.get("_target_", ""))
    if not target.startswith("s4eca."):
        return None
    made = hydra.utils.get_object(target)
    return made if isinstance(made, type) else None


def _timm_need(name: str, key: str) -> Need:
    try:
        about = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise S4ecaError(f"timm knows no model {key}.name={name}; give a name of timm with its tag.") from error
    if about is None or not about.hf_hub_id:
        raise S4ecaError(f"timm has no hub weights for {name}; give a local file with {key}.weights=PATH.")
    repository, _, revision = about.hf_hub_id.partition("@")
    # in the order in which timm itself looks for them
    file = about.hf_hub_filename or "pytorch_model.bin"
    names = (SAFE.get(file, f"{file[:-4]}.safetensors"), file) if file.endswith(".bin") else (file,)
    return Need(f"{key}.name={name}", repository, WEIGHTS, names, revision or None)
