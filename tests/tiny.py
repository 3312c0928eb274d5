"""Tiny random networks and inputs that the tests share."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from s4eca.decoders.fpn import FPNDecoder
from s4eca.segmenter import ReferringSegmenter
from s4eca.tuning import TuningMethod
from tiny_text import BERT, tiny_text
from tiny_vision import NAMES, SIZE, SWIN, tiny_vision

__all__ = [
    "BERT",
    "NAMES",
    "SIZE",
    "SWIN",
    "shake",
    "tiny_inputs",
    "tiny_segmenter",
    "tiny_text",
    "tiny_vision",
]


def tiny_segmenter(
    method: TuningMethod, fusion: Any = None, vision: str = "swin", text: str = "bert", **options: Any
) -> ReferringSegmenter:
    decoder = partial(FPNDecoder, width=8)
    return ReferringSegmenter(tiny_text(text), tiny_vision(vision), method, decoder, fusion, **options)


def tiny_inputs(seed: int = 0, batch: int = 2, length: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Image, input_ids and attention_mask; from the second sample on, the last words are padding."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    ids = torch.randint(5, 256, (batch, length), generator=generator)
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1:, length - 3 :] = 0
    return image, ids * mask, mask


def shake(network: nn.Module, seed: int = 0, scale: float = 0.1) -> None:
    """Moves everything learned away from its initial values, which may be zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn(parameter.shape, generator=generator)
