"""Tiny random networks and inputs that the tests share."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from s4eca.decoders.fpn import FPNDecoder
from s4eca.segmenter import ReferringSegmenter
from s4eca.towers import BertTower, SwinTower
from s4eca.tuning import TuningMethod

SIZE = 64
SWIN = {"embed_dim": 16, "depths": [2, 2, 3, 2], "num_heads": [1, 2, 4, 8], "window_size": 4}
BERT = {
    "vocab_size": 256,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
NAMES = {"swin": "swin_tiny_patch4_window7_224", "swinv2": "swinv2_tiny_window8_256"}


def tiny_vision(family: str = "swin", seed: int = 0, **options: Any) -> SwinTower:
    tower = SwinTower(NAMES[family], weights="random", seed=seed, image_size=SIZE, options={**SWIN, **options})
    if family == "swinv2":  # untrained, its norms are zero and close every branch
        for step in tower.steps:
            tower.block(step.index).norm1.weight.fill_(1.0)
            tower.block(step.index).norm2.weight.fill_(1.0)
    return tower


def tiny_text(seed: int = 0, **options: Any) -> BertTower:
    return BertTower(weights="random", seed=seed, options={**BERT, **options})


def tiny_segmenter(
    method: TuningMethod, fusion: Any = None, family: str = "swin", **options: Any
) -> ReferringSegmenter:
    return ReferringSegmenter(tiny_text(), tiny_vision(family), method, partial(FPNDecoder, width=8), fusion, **options)


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
