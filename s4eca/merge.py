"""Folding a LoRA run into its base weights: a plain network of the same scores, without peft.

The folder that `merge` writes is a shared checkpoint (see `s4eca.checkpoint`) of a `tuning=frozen` network, with the
towers' merged weights beside it:

    vision.safetensors   timm's names; parts that the tower does not walk are left out
    text/                as transformers' `save_pretrained` writes it, with the tokenizer
    head.safetensors, method.safetensors (empty), s4eca.json
"""

import copy
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from s4eca.build import Config, build_module, instantiate
from s4eca.checkpoint import MERGED, SELECTED_BY, Checkpoint, describe, load_learned, read_checkpoint, share
from s4eca.errors import S4ecaError
from s4eca.files import make_folder
from s4eca.folders import visible
from s4eca.frozen_dtype import in_fp32
from s4eca.segmenter import ReferringSegmenter
from s4eca.towers.base import Tower
from s4eca.tuning import Frozen, LoRA, TuningMethod
from s4eca.weights import BaseWeights, hash_weights
from s4eca.weights_folder import usable_folder

VISION, TEXT = MERGED["vision"], MERGED["text"]


def merge(
    checkpoint: Checkpoint, folder: str | Path, vision_weights: str | None = None, text_weights: str | None = None
) -> Path:
    """Writes the merged network of a LoRA run and reads it back, and returns its folder.

    The folder can be moved: whoever reads it takes the weights that lie in it.

    Args:
        checkpoint: of a run with `tuning=lora`.
        folder: new or empty.
        vision_weights: where the frozen weights are now, as in `vision.weights`; None where they were in training.
        text_weights: the same for `text.weights`.

    Raises:
        S4ecaError: another tuning, a folder that holds something, or base weights that are not found or are others.
    """
    folder = Path(folder).absolute()
    config = copy.deepcopy(checkpoint.config)
    method: TuningMethod = instantiate(config["tuning"], "tuning")
    if not isinstance(method, LoRA):
        raise S4ecaError(
            f"{checkpoint.path} was trained with tuning={method.name}, which cannot be merged: only tuning=lora can."
        )
    if folder.exists() and (not folder.is_dir() or visible(folder)):
        raise S4ecaError(f"{folder} exists already; give a new or empty folder to merge into.")
    make_folder(folder)
    for tower, weights in (("vision", vision_weights), ("text", text_weights)):
        config[tower]["weights"] = weights or config[tower]["weights"]
    config["weights_folder"] = usable_folder(config)  # that of the machine that trained, where it is here
    segmenter = build_module(in_fp32(config)).segmenter
    load_learned(segmenter, checkpoint)
    assert isinstance(segmenter.method, LoRA)
    segmenter.method.merge(segmenter.text, segmenter.vision)
    segmenter.method = Frozen()  # what is left, and what the folder says of itself
    _write(segmenter, _frozen(config), checkpoint, folder)
    written = read_checkpoint(folder)
    load_learned(build_module(written.config).segmenter, written)  # compares the towers' hashes too
    return folder


def _frozen(config: Config) -> Config:
    """The config of the merged network."""
    plain: dict[str, Any] = {**config, "tuning": {"_target_": "s4eca.tuning.Frozen"}, "weights_folder": None}
    if "budget" in config:
        plain["budget"] = None  # nothing is left whose width it could set
    plain["vision"] = {**config["vision"], "weights": VISION}
    # the folder brings its own shape and tokenizer
    plain["text"] = {**config["text"], "weights": TEXT, "options": {}, "tokenizer": None}
    return plain


def _write(segmenter: ReferringSegmenter, config: Config, checkpoint: Checkpoint, folder: Path) -> None:
    text, vision, tokenizer = segmenter.text, segmenter.vision, checkpoint.tokenizer()
    text.base, vision.base = _base(text, TEXT), _base(vision, VISION)
    meta = describe(segmenter, config, tokenizer, checkpoint.meta["data"])
    # what its numbers are of is that training
    kept = {name: checkpoint.meta[name] for name in ("init_from", SELECTED_BY) if name in checkpoint.meta}
    meta |= {**kept, "merged_from": {name: checkpoint.meta[name] for name in ("config", "base", "method")}}
    share(Checkpoint(folder, segmenter.learned_state(), meta), folder)
    safetensors.torch.save_file(_state(vision), folder / VISION)
    _save_text(text, tokenizer, folder / TEXT)


def _base(tower: Tower, source: str) -> BaseWeights:
    return BaseWeights(tower.base.name, source, hash_weights(tower.model.state_dict()))


def _state(tower: Tower) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in tower.model.state_dict().items()}


def _save_text(tower: Tower, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    tower.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
