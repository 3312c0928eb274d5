"""Norm tuning: which norms are learned."""

import pytest
import torch
from timm.layers import RmsNorm
from torch import nn

from s4eca.tuning import NormTuning
from s4eca.tuning.base import Scope
from tiny import tiny_text, tiny_vision
from tiny_text import TEXT
from tiny_vision import VISION


def learned(tower) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in tower.named_parameters() if parameter.requires_grad}


def count(tower) -> int:
    return sum(parameter.numel() for parameter in learned(tower).values())


def swin_norms(widths: list[int], depths: list[int]) -> int:
    """Two norms per block, one after the patch embedding, one on 4 C before each downsampling; weight and bias."""
    blocks = sum(4 * width * depth for width, depth in zip(widths, depths, strict=True))
    return blocks + 2 * widths[0] + sum(8 * width for width in widths[:-1])


def bert_norms(width: int, layers: int) -> int:
    """Two norms per layer and one after the embeddings."""
    return 2 * width * (2 * layers + 1)


def test_size_by_hand():
    text, vision = tiny_text(), tiny_vision()
    NormTuning().attach(text, vision)
    assert count(vision) == swin_norms([16, 32, 64, 128], [2, 2, 3, 2])
    assert count(text) == bert_norms(32, 4)


def test_size_on_swin_base_and_bert_base():
    # with Swin's last norm, whose place the segmenter's own norms take, it is the 0.096 M of both libraries' models
    size = swin_norms([128, 256, 512, 1024], [2, 2, 18, 2]) + bert_norms(768, 12)
    assert size == 93_952
    assert size + 2 * 1024 == 96_000


@pytest.mark.parametrize(("vision", "text"), [(v, "bert") for v in VISION] + [("swin", t) for t in TEXT])
def test_every_learned_tensor_belongs_to_a_norm(vision, text):
    towers = tiny_text(text), tiny_vision(vision)
    NormTuning().attach(*towers)
    for tower in towers:
        modules = dict(tower.named_modules())
        assert learned(tower)
        owners = {type(modules[name.rpartition(".")[0]]).__name__ for name in learned(tower)}
        assert {owner for owner in owners if "Norm" not in owner} == set()
        # none is forgotten: the names that the libraries give to norms
        forgotten = [
            name
            for name, parameter in tower.named_parameters()
            if "norm" in name.lower().split(".")[-2] and not parameter.requires_grad
        ]
        assert forgotten == []


@pytest.mark.parametrize("kind", [nn.RMSNorm, RmsNorm])
def test_rms_norms_are_learned(kind):
    vision = tiny_vision()
    block = vision.block(0)
    block.norm1 = kind(16).requires_grad_(False)
    NormTuning().attach(tiny_text(), vision)
    assert block.norm1.weight.requires_grad
    assert not block.attn.qkv.weight.requires_grad


def test_a_later_start_stage_learns_the_blocks_from_there_on():
    text, vision = tiny_text(), tiny_vision()
    NormTuning().attach(text, vision, Scope(start_stage=4))
    assert count(vision) == 4 * 128 * 2
    assert {name.split(".norm")[0] for name in learned(vision)} == {
        "model.layers.3.blocks.0",
        "model.layers.3.blocks.1",
    }
    assert count(text) == bert_norms(32, 4)
