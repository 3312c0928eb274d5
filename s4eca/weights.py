"""Where a tower's weights come from: the hub, a local path, or random ones by seed, and what they hash to.

Three words decide it, the same for every tower: `weights=hub` fetches by name, `weights=PATH` reads a file or a folder
that the library's own `save_pretrained` wrote, `weights=random` draws them from `seed`. There is no fallback from one
to another: weights that cannot be resolved are an error.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict, load_state_dict_from_hf
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, PreTrainedModel

from s4eca.errors import S4ecaError

HUB, RANDOM = "hub", "random"


@dataclass(frozen=True)
class BaseWeights:
    """Identity of a tower's weights.

    Attributes:
        name: the architecture's name at its library.
        source: `hub`, `random:SEED`, or the last part of the local path.
        sha256: over names, shapes and values, taken in the precision they were loaded in.
    """

    name: str
    source: str
    sha256: str

    def to_dict(self) -> dict[str, str]:
        """Returns plain strings, as they are stored in a checkpoint."""
        return asdict(self)


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of named tensors; independent of their order and device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describe_source(weights: str, seed: int) -> str:
    """Returns how a checkpoint names the source; of a path only its last part, which travels between machines."""
    if weights == RANDOM:
        return f"random:{seed}"
    return HUB if weights == HUB else Path(weights).name


def load_timm(
    key: str, name: str, weights: str, seed: int, filter_fn: Callable[[dict, nn.Module], dict], **options: Any
) -> nn.Module:
    """Builds a timm model without a classifier and fills it.

    Args:
        key: config key of the tower, for the error's remedy (`vision`).
        name: timm model name with its tag, for example `swin_base_patch4_window12_384.ms_in22k`.
        weights: `hub`, `random`, or a path to a `.safetensors`/`.pth` file or a folder that `save_for_hf` wrote.
        seed: of the random weights.
        filter_fn: the family's `checkpoint_filter_fn`, which renames keys and resizes bias tables.
        options: passed on to `timm.create_model`.

    Raises:
        S4ecaError: unknown name, unreachable hub, missing path, or weights that do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = timm.create_model(name, pretrained=False, num_classes=0, **options)
        except (RuntimeError, TypeError, AssertionError, ValueError) as error:
            raise S4ecaError(f"timm cannot build {key}.name={name} with {options}: {error}.") from error
    if weights == RANDOM:
        return model
    if weights == HUB:
        hub_id = model.pretrained_cfg.get("hf_hub_id")
        if not hub_id:
            raise S4ecaError(f"timm has no hub weights for {name}; give a local file with {key}.weights=PATH.")
        try:
            state = load_state_dict_from_hf(hub_id, weights_only=True)
        except Exception as error:  # the hub client raises OSError, httpx and its own errors
            raise S4ecaError(_unreachable(key, name, error)) from error
    else:
        state = _read_state(key, Path(weights))
    state = filter_fn(state, model)
    state = {name: value for name, value in state.items() if not name.startswith("head.")}
    _fill(model, state, key, name, weights)
    return model


def load_bert(
    key: str, name: str, weights: str, seed: int, options: Mapping[str, Any], attention: str
) -> PreTrainedModel:
    """Builds a BERT-type transformers model without its pooler, in fp32.

    Args:
        key: config key of the tower (`text`).
        name: hub id, for example `google-bert/bert-base-uncased`.
        weights: `hub`, `random`, or a folder that `save_pretrained` wrote.
        seed: of the random weights.
        options: fields of `BertConfig` for random weights; refused otherwise, since weights bring their own.
        attention: transformers' attention implementation, `sdpa` or `eager`.

    Raises:
        S4ecaError: unreachable hub, missing path, another architecture, or missing weights.
    """
    if weights == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = BertConfig(**options, attn_implementation=attention)
            return BertModel(config, add_pooling_layer=False)
    if options:
        raise S4ecaError(f"{key}.options shapes random weights only; with {key}.weights={weights} leave it empty.")
    if weights != HUB and not Path(weights).is_dir():
        raise S4ecaError(_no_path(key, weights, "a folder that save_pretrained wrote"))
    where = name if weights == HUB else weights
    try:
        config = AutoConfig.from_pretrained(where)
        if config.model_type != "bert":
            raise S4ecaError(
                f"{where} is a {config.model_type} model, and this tower walks BERT-type models; choose another {key}."
            )
        model, info = AutoModel.from_pretrained(
            where,
            dtype=torch.float32,
            add_pooling_layer=False,
            attn_implementation=attention,
            output_loading_info=True,
        )
    except S4ecaError:
        raise
    except Exception as error:  # OSError for an unreachable hub, ValueError and others for damaged files
        if weights == HUB:
            raise S4ecaError(_unreachable(key, name, error)) from error
        raise S4ecaError(f"{where} could not be read as a transformers model ({_first_line(error)}).") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise S4ecaError(
            f"{where} lacks {len(missing)} weights of the text tower, the first being {missing[0]}; give a complete "
            f"folder with {key}.weights=PATH."
        )
    return model


def _read_state(key: str, path: Path) -> dict[str, Tensor]:
    """Reads a state dict from a file or a folder, never unpickling anything but tensors."""
    if not path.exists():
        raise S4ecaError(_no_path(key, str(path), "a weights file or a folder with one"))
    try:
        state = load_state_dict(str(_weights_file(path) if path.is_dir() else path), weights_only=True)
    except S4ecaError:
        raise
    except Exception as error:  # pickle, safetensors and torch each raise their own
        raise S4ecaError(f"{path} could not be read as weights ({_first_line(error)}).") from error
    return dict(state)


def _weights_file(folder: Path) -> Path:
    """Returns the weights file that `save_for_hf` or `save_pretrained` put into a folder."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise S4ecaError(f"{folder} holds neither model.safetensors nor pytorch_model.bin; give the weights file itself.")


def _fill(model: nn.Module, state: dict[str, Tensor], key: str, name: str, weights: str) -> None:
    """Loads strictly: nothing of the model may stay random."""
    where = name if weights == HUB else weights
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise S4ecaError(f"the weights in {where} do not fit {key}.name={name} ({_first_line(error)}).") from error
    if result.missing_keys or result.unexpected_keys:
        which = (result.missing_keys or result.unexpected_keys)[0]
        raise S4ecaError(
            f"the weights in {where} do not fit {key}.name={name}: {len(result.missing_keys)} missing, "
            f"{len(result.unexpected_keys)} unexpected, for example {which}; give weights of that architecture."
        )


def _unreachable(key: str, name: str, error: Exception) -> str:
    return (
        f"the weights of {name} could not be fetched from the hub ({_first_line(error)}); give a local copy with "
        f"{key}.weights=PATH, or ask for untrained ones with {key}.weights=random."
    )


def _no_path(key: str, weights: str, expected: str) -> str:
    return f"{key}.weights={weights} does not exist; give {expected}, 'hub', or 'random'."


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if len(lines) < 2 or not lines[0].endswith(":") else f"{lines[0]} {lines[1]}").rstrip(".")
