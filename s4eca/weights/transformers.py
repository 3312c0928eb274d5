"""Models of transformers with their weights."""

from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from s4eca.errors import S4ecaError
from s4eca.weights.sources import (
    HUB,
    HUB_FILE,
    RANDOM,
    SizesUnknownError,
    fetch,
    fill,
    first_line,
    is_hollow,
    read_state,
    unreachable,
)
from s4eca.wording import indefinite

# config group option of `text` for each model type
TEXT_CONFIGS = {"bert": "bert_base", "roberta": "roberta_base", "distilbert": "distilbert_base", "clip": "clip_base"}

# sizes of the models that conf/text names, where they are not the defaults of transformers' config classes
SIZES: dict[str, dict[str, int]] = {
    "google-bert/bert-base-uncased": {},
    "sentence-transformers/all-MiniLM-L6-v2": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "FacebookAI/roberta-base": {"max_position_embeddings": 514},
    "distilbert/distilbert-base-uncased": {},
    "openai/clip-vit-base-patch32": {},
    "openai/clip-vit-large-patch14": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}

# model types whose files hold a model of another type as a part; SAM 2 is published as its video model
WHOLES = {"clip_text_model": ("clip",), "sam2": ("sam2_video",)}

# (where it was read, a foreign state dict) -> fields of the transformers config, and the tensors by transformers' names
Convert = Callable[[str, dict[str, Tensor]], tuple[dict[str, Any], dict[str, Tensor]]]


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
    """Builds a model of transformers and fills it, in fp32; on the meta device it has shapes alone.

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
    if is_hollow():
        fields = _sizes(key, library, name, weights, convert)
        return _untrained(key, library, seed, fields, attention, build)
    where = name if weights == HUB else str(fetch(key, weights))
    if weights != HUB and Path(where).is_file():
        if convert is None:
            raise S4ecaError(
                f"{key}.weights={weights} is a single file, and {indefinite(_family(library))} {kind} needs the config "
                "beside its weights; give a folder that save_pretrained wrote."
            )
        fields, state = convert(where, read_state(Path(where)))
        model = _untrained(key, library, seed, fields, attention, build)
        fill(model, state, key, name, weights)
        return model
    try:
        found = AutoConfig.from_pretrained(where, trust_remote_code=False).model_type
        if found not in _readable_types(library):
            raise S4ecaError(_other_family(key, where, found, library, kind, choices or {}))
        model, info = library.from_pretrained(
            where, dtype=torch.float32, attn_implementation=attention, output_loading_info=True, **build
        )
    except S4ecaError:
        raise
    except Exception as error:  # OSError for an unreachable hub, ValueError and others for damaged files
        if weights == HUB:
            raise S4ecaError(unreachable(key, name, error)) from error
        raise S4ecaError(f"{where} could not be read as a transformers model ({first_line(error)}).") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise S4ecaError(
            f"{where} lacks {len(missing)} weights of the {key} {kind}, the first being {missing[0]}; give a complete "
            f"folder with {key}.weights=PATH."
        )
    return model


def _sizes(
    key: str, library: type[PreTrainedModel], name: str, weights: str, convert: Convert | None
) -> dict[str, Any]:
    """Returns fields of the config of a model's weights, as far as they are known here without fetching anything.

    Raises:
        SizesUnknownError: they are not.
        S4ecaError: a path that does not exist, or a file that is no such model.
    """
    config: Any = library.config_class
    try:
        where = name if weights == HUB else str(fetch(key, weights))
        if convert is not None and Path(where).is_file():
            return convert(where, read_state(Path(where), values=False))[0]
        read = config.from_pretrained(where, local_files_only=True)
        return {field.name: getattr(read, field.name) for field in dataclass_fields(config) if field.init}
    except (SizesUnknownError, OSError, ValueError) as error:
        if name in SIZES and (weights == HUB or weights.startswith(HUB_FILE)):
            return SIZES[name]
        raise SizesUnknownError(f"the sizes of {name} are not known here.") from error


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
                f"transformers cannot build {library.__name__} with {dict(fields)} ({first_line(error)})."
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
    return f"{where} is {indefinite(found)} model, and this {kind} {does} {_family(library)} models; {remedy}."
