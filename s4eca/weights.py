"""Where a model's weights come from: the hub, a local path, or random ones by seed, and what they hash to.

Four forms decide it, the same for every tower and every other model: `weights=hub` fetches by name,
`weights=hf:OWNER/REPO/FILE` fetches one file of a hub repository, `weights=PATH` reads a file or a folder that the
library's own `save_pretrained` wrote, `weights=random` draws them from `seed`. There is no fallback from one to
another: weights that cannot be resolved are an error.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from timm.models import load_state_dict, load_state_dict_from_hf
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from s4eca.errors import S4ecaError

HUB, RANDOM, HUB_FILE = "hub", "random", "hf:"

# config group option of `text` for each model type
TEXT_CONFIGS = {"bert": "bert_base", "roberta": "roberta_base", "distilbert": "distilbert_base", "clip": "clip_base"}

# model types whose files hold a model of another type as a part; SAM 2 is published as its video model
WHOLES = {"clip_text_model": ("clip",), "sam2": ("sam2_video",)}

# (where it was read, a foreign state dict) -> fields of the transformers config, and the tensors by transformers' names
Convert = Callable[[str, dict[str, Tensor]], tuple[dict[str, Any], dict[str, Tensor]]]


@dataclass(frozen=True)
class BaseWeights:
    """Identity of a model's weights.

    Attributes:
        name: the architecture's name at its library.
        source: `hub`, `hf:OWNER/REPO/FILE`, `random:SEED`, or the last part of the local path.
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
    return weights if weights == HUB or weights.startswith(HUB_FILE) else Path(weights).name


def fetch(key: str, weights: str) -> Path:
    """Returns where given weights lie on this machine, after fetching them where they are `hf:OWNER/REPO/FILE`.

    Args:
        key: config key of the tower, for the error's remedy (`text`, `vision`).
        weights: a path, or `hf:` and a file of a hub repository, for example
            `hf:chendelong/RemoteCLIP/RemoteCLIP-ViT-B-32.pt`; a copy that was fetched before is used without a network.

    Raises:
        S4ecaError: an incomplete `hf:`, an unreachable hub, or a missing path.
    """
    if not weights.startswith(HUB_FILE):
        if not Path(weights).exists():
            raise S4ecaError(_no_path(key, weights, "a weights file or a folder with one"))
        return Path(weights)
    owner, _, rest = weights.removeprefix(HUB_FILE).partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise S4ecaError(f"{key}.weights={weights} names no file of a hub repository; write hf:OWNER/REPO/FILE.")
    try:
        return Path(huggingface_hub.hf_hub_download(f"{owner}/{repository}", file))
    except Exception as error:  # the hub client raises OSError, httpx and its own errors
        raise S4ecaError(_unreachable(key, weights.removeprefix(HUB_FILE), error)) from error


def load_timm(
    key: str,
    name: str,
    weights: str,
    seed: int,
    filter_fn: Callable[[dict, nn.Module], dict],
    unused: Sequence[str] = ("head",),
    **options: Any,
) -> nn.Module:
    """Builds a timm model without a classifier and fills it.

    Args:
        key: config key of the tower, for the error's remedy (`vision`).
        name: timm model name with its tag, for example `swin_base_patch4_window12_384.ms_in22k`.
        weights: `hub`, `hf:OWNER/REPO/FILE`, `random`, or a path to a `.safetensors`/`.pth`/`.pt` file or a folder that
            `save_for_hf` wrote.
        seed: of the random weights.
        filter_fn: the family's `checkpoint_filter_fn`, which renames keys, resizes bias tables and position embeddings,
            and takes the image part (`visual.*`) out of a CLIP checkpoint.
        unused: parts of the model that the tower does not walk; they are taken out, their weights are not asked for.
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
        _take_out(model, unused)
        return model
    if weights == HUB:
        hub_id = model.pretrained_cfg.get("hf_hub_id")
        if not hub_id:
            raise S4ecaError(f"timm has no hub weights for {name}; give a local file with {key}.weights=PATH.")
        file = model.pretrained_cfg.get("hf_hub_filename")
        try:
            state = load_state_dict_from_hf(hub_id, **({"filename": file} if file else {}), weights_only=True)
        except Exception as error:  # the hub client raises OSError, httpx and its own errors
            raise S4ecaError(_unreachable(key, name, error)) from error
    else:
        state = _read_state(fetch(key, weights))
    first = next(iter(state), "nothing")
    try:
        state = filter_fn(state, model)
    except Exception as error:  # of a file that is none of the family's
        raise S4ecaError(
            f"the weights in {weights} do not fit {key}.name={name} ({_first_line(error)}); give weights of that "
            "architecture."
        ) from error
    if not state.keys() & model.state_dict().keys():
        raise S4ecaError(
            f"the weights in {weights} have no image part for {key}.name={name}: neither timm's names nor the visual.* "
            f"of a CLIP checkpoint, its first being {first}; give a file that has one."
        )
    _take_out(model, unused)
    _fill(model, {k: v for k, v in state.items() if k.partition(".")[0] not in unused}, key, name, weights)
    return model


def load_text(
    key: str,
    library: type[PreTrainedModel],
    name: str,
    weights: str,
    seed: int,
    options: Mapping[str, Any],
    attention: str,
    convert: Convert | None = None,
    **build: Any,
) -> PreTrainedModel:
    """Builds a text tower's model of transformers and fills it, in fp32.

    Arguments and errors are those of `load_transformers`; random weights fit the built-in tokenizer.
    """
    if weights == RANDOM:
        # the built-in tokenizer pads with 0, and RoBERTa's positions count what is not padding
        options = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, **options}
    return load_transformers(
        key, library, name, weights, seed, options, attention, convert, "tower", TEXT_CONFIGS, **build
    )


def load_transformers(
    key: str,
    library: type[PreTrainedModel],
    name: str,
    weights: str,
    seed: int,
    options: Mapping[str, Any],
    attention: str = "sdpa",
    convert: Convert | None = None,
    kind: str = "model",
    choices: Mapping[str, str] | None = None,
    **build: Any,
) -> PreTrainedModel:
    """Builds a model of transformers and fills it, in fp32.

    Args:
        key: config key under which its settings stand (`text`, `clip`, `proposer`), for errors.
        library: the model's class, for example `BertModel`.
        name: hub id, for example `google-bert/bert-base-uncased`.
        weights: `hub`, `random`, or a folder that `save_pretrained` wrote; with `convert` also a single file.
        seed: of the random weights.
        options: fields of the model's config for random weights, those of its parts as dicts within; refused
            otherwise, since weights bring their own.
        attention: transformers' attention implementation, `sdpa` or `eager`.
        convert: reads the state dict of a single file, which another library wrote.
        kind: what the user calls it, for errors.
        choices: option of the config group `key` that takes each model type, for the error's remedy.
        build: passed on to the class.

    Raises:
        S4ecaError: unknown options, unreachable hub, missing path, another architecture, or missing weights.
    """
    if attention not in ("sdpa", "eager"):
        raise S4ecaError(f"{key}.attention={attention} is neither sdpa nor eager.")
    if weights == RANDOM:
        return _untrained(key, library, seed, options, attention, build)
    if options:
        raise S4ecaError(f"{key}.options shapes random weights only; with {key}.weights={weights} leave it empty.")
    where = name if weights == HUB else str(fetch(key, weights))
    if weights != HUB and Path(where).is_file():
        if convert is None:
            raise S4ecaError(
                f"{key}.weights={weights} is a single file, and a {_family(library)} {kind} needs the config beside "
                "its weights; give a folder that save_pretrained wrote."
            )
        fields, state = convert(where, _read_state(Path(where)))
        model = _untrained(key, library, seed, fields, attention, build)
        _fill(model, state, key, name, weights)
        return model
    try:
        found = AutoConfig.from_pretrained(where).model_type
        if found not in _readable_types(library):
            raise S4ecaError(_other_family(key, where, found, library, kind, choices or {}))
        model, info = library.from_pretrained(
            where, dtype=torch.float32, attn_implementation=attention, output_loading_info=True, **build
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
            f"{where} lacks {len(missing)} weights of the {key} {kind}, the first being {missing[0]}; give a complete "
            f"folder with {key}.weights=PATH."
        )
    return model


def _untrained(
    key: str,
    library: type[PreTrainedModel],
    seed: int,
    fields: Mapping[str, Any],
    attention: str,
    build: Mapping[str, Any],
) -> PreTrainedModel:
    """Builds a transformers model with random weights."""
    config: Any = library.config_class
    _check_fields(f"{key}.options", config, fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return library(config(**fields, attn_implementation=attention), **build)
        except Exception as error:  # a config checks itself with errors of its own
            raise S4ecaError(
                f"transformers cannot build {library.__name__} with {dict(fields)} ({_first_line(error)})."
            ) from error


def _check_fields(key: str, config: Any, fields: Mapping[str, Any]) -> None:
    """Refuses fields that a config class, or that of one of its parts, lacks: transformers would ignore them."""
    known = {field.name for field in dataclass_fields(config)} | {*config.attribute_map, "model_type"}
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise S4ecaError(f"{key} names {unknown[0]}, which {config.__name__} does not have.")
    for name, part in config.sub_configs_defaults.items():
        if isinstance(fields.get(name), Mapping):
            kind = part.get_config_class(fields[name].get("model_type", part.model_type))
            _check_fields(f"{key}.{name}", kind, fields[name])


def _readable_types(library: type[PreTrainedModel]) -> set[str]:
    """Returns the model types whose files a class reads: its own, and the larger models that it is a part of."""
    config: Any = library.config_class
    return {config.model_type, *WHOLES.get(config.model_type, ())}


def _family(library: type[PreTrainedModel]) -> str:
    config: Any = library.config_class
    return config.model_type.removesuffix("_text_model")


def _other_family(
    key: str, where: str, found: str, library: type[PreTrainedModel], kind: str, choices: Mapping[str, str]
) -> str:
    fitting = choices.get(found.removesuffix("_text_model"))
    if fitting:
        remedy = f"choose {key}={fitting} for it"
    elif choices:
        remedy = f"choose one of {', '.join(choices)}"
    else:
        remedy = f"give weights of one with {key}.weights=PATH"
    does = "walks" if kind == "tower" else "reads the weights of"
    return f"{where} is a {found} model, and this {kind} {does} {_family(library)} models; {remedy}."


def _take_out(model: nn.Module, unused: Sequence[str]) -> None:
    for part in unused:
        setattr(model, part, nn.Identity())


def _read_state(path: Path) -> dict[str, Tensor]:
    """Reads a state dict from a file or a folder, never unpickling anything but tensors."""
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
