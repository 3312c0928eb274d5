"""Frozen weights of the towers in bf16: half their memory, no cast in every step, and the same results bit for bit.

Under bf16 autocast the inputs, weights and biases of linear layers and convolutions are cast to bf16 whenever a layer
runs, frozen weights anew in every step. Here they are cast once. Everything else stays fp32: norms, embeddings, tables
of position biases, and whatever is learned. How weights are held is no property of a trained network: the hash in a
checkpoint is that of the fp32 weights, and a checkpoint loads whichever way they are held.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from s4eca.errors import S4ecaError
from s4eca.towers.base import Tower

TOWER_DTYPES = ("fp32", "bf16")
PRECISION = "bf16-mixed"
_KEY = "model.segmenter.tower_dtype"
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def hold_in_bf16(text: Tower, vision: Tower, method: str) -> None:
    """Casts the frozen weights and biases of all linear layers and convolutions in place.

    Args:
        text: with the method attached, so that it is known what is learned.
        vision: the same.
        method: the tuning's name, for the error.

    Raises:
        S4ecaError: nothing is frozen.
    """
    frozen = [parameter for tower in (text, vision) for parameter in _frozen(tower)]
    if not frozen:
        raise S4ecaError(f"tuning={method} leaves no weight of the towers frozen to hold in bf16; set {_KEY}=fp32.")
    for parameter in frozen:
        parameter.data = parameter.data.to(torch.bfloat16)


def holds_bf16(tower: Tower) -> bool:
    """Returns whether frozen weights of a tower are held in bf16."""
    return any(parameter.dtype == torch.bfloat16 for parameter in _frozen(tower))


def check_precision(segmenter: nn.Module, precision: Any) -> None:
    """Compares how the towers are held with Lightning's precision; call it before a training or an evaluation starts.

    Raises:
        S4ecaError: towers in bf16 without bf16 autocast.
    """
    if precision != PRECISION and any(holds_bf16(part) for part in segmenter.children() if isinstance(part, Tower)):
        raise S4ecaError(
            f"{_KEY}=bf16 holds frozen weights as bf16 autocast casts them, and trainer.precision={precision} has none;"
            f" set trainer.precision={PRECISION} or {_KEY}=fp32."
        )


def check_autocast(device: str) -> None:
    """Refuses a forward pass through towers in bf16 outside of bf16 autocast, where layers would meet fp32 inputs.

    Raises:
        S4ecaError: autocast is off or casts to another type.
    """
    if not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) != torch.bfloat16:
        raise S4ecaError(
            f"{_KEY}=bf16 works under bf16 autocast alone; set trainer.precision={PRECISION}, wrap the call in "
            f'torch.autocast("{device}", dtype=torch.bfloat16), or set {_KEY}=fp32.'
        )


def for_precision(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the config with which a trained network is built: in fp32 where the trainer's precision asks for it.

    An evaluation may have another precision than the training; the weights in bf16 would then be rounded ones, so they
    are held as they were loaded.
    """
    if config["trainer"]["precision"] == PRECISION:
        return config
    return in_fp32(config)


def in_fp32(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the config with towers in fp32, for what reads or changes their weights."""
    segmenter = {**config["model"]["segmenter"], "tower_dtype": "fp32"}
    return {**config, "model": {**config["model"], "segmenter": segmenter}}


def _frozen(tower: Tower) -> Iterator[nn.Parameter]:
    for module in tower.modules():
        if isinstance(module, _LAYERS):
            # of its own: peft's layers hold theirs in layers inside
            yield from (part for part in module.parameters(recurse=False) if not part.requires_grad)
