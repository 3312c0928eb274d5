"""The models that DGL-RSIS is built from, each frozen, with its tokenizer, its pixel statistics and its identity."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    BlipForImageTextRetrieval,
    CLIPModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Sam2Model,
    SamModel,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import cached_file

from s4eca.cache import digest
from s4eca.dgl_rsis.open_clip import whole_from_open_clip
from s4eca.errors import S4ecaError
from s4eca.tokenizer import aerial_tokenizer, load_tokenizer
from s4eca.towers.clip_text import ACTIVATIONS
from s4eca.weights import HUB, RANDOM, BaseWeights, describe_source, hash_weights, load_transformers

Statistics = tuple[float, float, float]


class Clip(nn.Module):
    """A frozen CLIP, image and text (Radford et al., ICML 2021), in fp32.

    Args:
        name: hub id of the model; with a single file that of its architecture, whose tokenizer is taken.
        weights: `hub`, `random`, a folder that `save_pretrained` wrote, or a single file in which open_clip saved a
            CLIP with a ViT: its path or `hf:OWNER/REPO/FILE` (RemoteCLIP, Liu et al., TGRS 2024; GeoRSCLIP, Zhang et
            al., TGRS 2024).
        tokenizer: folder or hub id of the tokenizer; by default the one beside the weights, and the built-in aerial one
            for random weights.
        seed: of random weights.
        options: fields of `CLIPConfig` for random weights, those of its towers as dicts `text_config` and
            `vision_config`.
        activation: of the MLPs in a single file, which does not say: `quick_gelu`, with which OpenAI trained and what
            None stands for, or `gelu`. Other weights bring their own.

    Attributes:
        model: the CLIP of transformers.
        tokenizer: that belongs to it; the text feature is taken where its end token stands.
        base: identity of the weights.
        image_size: side of its input in pixels.
        mean: of the pixels in [0, 1], by which its input is normalised, red, green, blue; read from
            `preprocessor_config.json` where the weights are a folder with one, else CLIP's own, with which RemoteCLIP
            and GeoRSCLIP were trained too.
        std: their standard deviation, alike.

    Raises:
        S4ecaError: the weights cannot be resolved or are no CLIP, the tokenizer is another model's, or `activation` has
            no use.
    """

    model: CLIPModel
    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        name: str = "openai/clip-vit-base-patch16",
        weights: str = HUB,
        tokenizer: str | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        if activation not in (None, *ACTIVATIONS):
            raise S4ecaError(f"clip.activation={activation} is neither {' nor '.join(ACTIVATIONS)}.")
        if activation and (weights in (HUB, RANDOM) or Path(weights).is_dir()):
            raise S4ecaError(
                f"clip.activation is for single files, and clip.weights={weights} brings its own; leave it null."
            )
        convert = partial(whole_from_open_clip, activation=activation or "quick_gelu")
        source = _tokenizer_source(name, weights, tokenizer)
        fields = _fit_text("clip", source, options) if weights == RANDOM else dict(options or {})
        self.model = load_transformers("clip", CLIPModel, name, weights, seed, fields, convert=convert)
        self.tokenizer = _tokenizer("clip", source)
        self.base = _freeze(self.model, name, weights, seed)
        text = self.model.config.text_config
        _check_tokens("clip", self.tokenizer, text.vocab_size)
        _check_end(self.tokenizer, text.eos_token_id)
        self.image_size: int = self.model.config.vision_config.image_size
        self.mean, self.std = _statistics(name, weights)

    def identity(self) -> dict[str, Any]:
        """Returns what its features depend on beside image and text."""
        return _identity(self)


class Blip(nn.Module):
    """A frozen BLIP that says whether an image and a text match (Li et al., ICML 2022), in fp32.

    Its attention is `eager`, which returns the weights that Grad-CAM needs.

    Args:
        name: hub id of the model.
        weights: `hub`, `random`, or a folder that `save_pretrained` wrote.
        tokenizer: folder or hub id of the tokenizer; by default the one beside the weights, and the built-in aerial one
            for random weights.
        seed: of random weights.
        options: fields of `BlipConfig` for random weights, those of its towers as dicts `text_config` and
            `vision_config`.

    Attributes:
        model: the BLIP of transformers.
        tokenizer: that belongs to it.
        base: identity of the weights.
        image_size: side of its input in pixels.
        mean: of the pixels in [0, 1], by which its input is normalised, red, green, blue; read from
            `preprocessor_config.json` where the weights are a folder with one, else CLIP's, which BLIP took over.
        std: their standard deviation, alike.

    Raises:
        S4ecaError: the weights cannot be resolved or are no BLIP, or the tokenizer is another model's.
    """

    model: BlipForImageTextRetrieval
    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        name: str = "Salesforce/blip-itm-base-coco",
        weights: str = HUB,
        tokenizer: str | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        key = "grounding.blip"
        source = _tokenizer_source(name, weights, tokenizer)
        fields = _fit_text(key, source, options) if weights == RANDOM else dict(options or {})
        self.model = load_transformers(key, BlipForImageTextRetrieval, name, weights, seed, fields, attention="eager")
        self.tokenizer = _tokenizer(key, source)
        self.base = _freeze(self.model, name, weights, seed)
        _check_tokens(key, self.tokenizer, self.model.config.text_config.vocab_size)
        self.image_size: int = self.model.config.vision_config.image_size
        self.mean, self.std = _statistics(name, weights)

    def identity(self) -> dict[str, Any]:
        """Returns what its output depends on beside image and text."""
        return _identity(self)


def load_sam(
    library: type[SamModel] | type[Sam2Model],
    name: str,
    weights: str,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> tuple[PreTrainedModel, BaseWeights]:
    """Returns a frozen SAM (Kirillov et al., ICCV 2023) or SAM 2 (Ravi et al., ICLR 2025) in fp32, and its identity.

    Args:
        library: `SamModel` or `Sam2Model`.
        name: hub id of the model.
        weights: `hub`, `random`, or a folder that `save_pretrained` wrote; SAM 2 is also read out of its video model.
        seed: of random weights.
        options: fields of `SamConfig` or `Sam2Config` for random weights, those of its parts as dicts within.

    Raises:
        S4ecaError: the weights cannot be resolved or are another model's.
    """
    choices = {"sam": "sam", "sam2": "sam2", "sam2_video": "sam2"}
    model = load_transformers("proposer", library, name, weights, seed, dict(options or {}), choices=choices)
    return model, _freeze(model, name, weights, seed)


def config_hash(model: PreTrainedModel) -> str:
    """Returns a hash of what a model's weights do not show: activations, heads, epsilons."""
    return digest(config=_plain(model.config.to_dict()))


def _identity(model: Clip | Blip) -> dict[str, Any]:
    return {
        "name": model.base.name,
        "weights": model.base.sha256,
        "config": config_hash(model.model),
        "vocabulary": digest(vocabulary=model.tokenizer.get_vocab()),
        "mean": list(model.mean),
        "std": list(model.std),
    }


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config without what says where and by which version it was written."""
    told = ("transformers_version", "_name_or_path", "dtype", "architectures")
    return {
        name: _plain(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in told
    }


def _freeze(model: PreTrainedModel, name: str, weights: str, seed: int) -> BaseWeights:
    """Makes a model constant and returns its identity."""
    model.eval().requires_grad_(False)
    return BaseWeights(name, describe_source(weights, seed), hash_weights(model.state_dict()))


def _tokenizer_source(name: str, weights: str, tokenizer: str | None) -> str | None:
    """Returns where the tokenizer is read from, None for the built-in one; a single file has none beside it."""
    if weights == RANDOM:
        return tokenizer
    return tokenizer or (weights if weights != HUB and Path(weights).is_dir() else name)


def _tokenizer(key: str, source: str | None) -> PreTrainedTokenizerBase:
    return aerial_tokenizer() if source is None else load_tokenizer(source, key)


def _fit_text(key: str, source: str | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the options of random weights, with the tokenizer's special tokens in those of the text tower."""
    tokenizer, chosen = _tokenizer(key, source), dict(options or {})
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": _first(tokenizer.bos_token_id, tokenizer.cls_token_id),
        "eos_token_id": _first(tokenizer.eos_token_id, tokenizer.sep_token_id),
    }
    return chosen | {"text_config": special | dict(chosen.get("text_config", {}))}


def _first(*tokens: int | None) -> int | None:
    return next((token for token in tokens if token is not None), None)


def _check_tokens(key: str, tokenizer: PreTrainedTokenizerBase, embeddings: int) -> None:
    if len(tokenizer) > embeddings:
        raise S4ecaError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {embeddings} embeddings; give the tokenizer of "
            f"these weights with {key}.tokenizer=PATH, or random weights more with "
            f"{key}.options.text_config.vocab_size={len(tokenizer)}."
        )


def _check_end(tokenizer: PreTrainedTokenizerBase, end: int) -> None:
    """Refuses a tokenizer whose texts do not end with the token at which CLIP takes their feature."""
    # OpenAI's published configs say 2, which transformers takes for the highest number in the row
    wanted = len(tokenizer) - 1 if end == 2 else end
    found = tokenizer("a")["input_ids"][-1]
    if found != wanted:
        raise S4ecaError(
            f"the tokenizer ends a text with token {found} and this CLIP looks for {wanted}; give the tokenizer of "
            "these weights with clip.tokenizer=PATH."
        )


def _statistics(name: str, weights: str) -> tuple[Statistics, Statistics]:
    """Returns the mean and the standard deviation by which pixels are normalised: the weights' own, or OpenAI's."""
    file = None
    if weights == HUB or (weights != RANDOM and Path(weights).is_dir()):
        file = cached_file(
            name if weights == HUB else weights,
            "preprocessor_config.json",
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    found = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    mean, std = found.get("image_mean", OPENAI_CLIP_MEAN), found.get("image_std", OPENAI_CLIP_STD)
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
