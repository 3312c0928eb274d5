"""BitFit: which biases are learned, and that the ones left out have no effect."""

import pytest
import torch

from s4eca.tuning import BitFit
from s4eca.tuning.base import Scope
from tiny import tiny_inputs, tiny_text, tiny_vision
from tiny_text import TEXT
from tiny_vision import VISION


def learned(tower) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in tower.named_parameters() if parameter.requires_grad}


def count(tower) -> int:
    return sum(parameter.numel() for parameter in learned(tower).values())


def swin_biases(widths: list[int], depths: list[int]) -> int:
    """Norms C + C, qkv 3 C, projection C, MLP 4 C + C; patch embedding and its norm; downsampling norms on 4 C."""
    blocks = sum(11 * width * depth for width, depth in zip(widths, depths, strict=True))
    return blocks + 2 * widths[0] + sum(4 * width for width in widths[:-1])


def bert_biases(width: int, inner: int, layers: int) -> int:
    """Query, value, projection, two norms, MLP; without keys; the embeddings' norm."""
    return layers * (3 * width + 2 * width + inner + width) + width


def test_size_by_hand():
    text, vision = tiny_text(), tiny_vision()
    BitFit().attach(text, vision)
    assert count(vision) == swin_biases([16, 32, 64, 128], [2, 2, 3, 2])
    assert count(text) == bert_biases(32, 64, 4)


def test_size_on_swin_base_and_bert_base():
    # the formulas above at full size; 238,336 with BERT's key biases: 0.24 M
    size = swin_biases([128, 256, 512, 1024], [2, 2, 18, 2]) + bert_biases(768, 3072, 12)
    assert size == 229_120
    assert size + 12 * 768 == 238_336
    assert 100 * size / 195.771e6 == pytest.approx(0.12, abs=0.005)


@pytest.mark.parametrize("family", TEXT)
def test_the_words_depend_on_every_learned_bias_and_on_no_other(family):
    """In double precision a bias without effect has a gradient of at most 1e-12."""
    text = tiny_text(family).double()
    BitFit().attach(text, tiny_vision())
    names = set(learned(text))
    for parameter in text.parameters():
        parameter.requires_grad_(True)
    _, ids, mask = tiny_inputs()
    state = text.begin(ids, mask)
    for step in text.steps:
        state = text.step(step.index, state, lambda site, x, branch_in=None: x)
    words = text.end(state)
    (words * torch.randn(words.shape, generator=torch.Generator().manual_seed(0)).double()).sum().backward()
    largest = {
        name: parameter.grad.abs().max().item()
        for name, parameter in text.named_parameters()
        if name.rpartition(".")[2] == "bias"
    }
    assert {name for name, value in largest.items() if value > 1e-9} == names
    assert max(value for name, value in largest.items() if name not in names) < 1e-12
    assert len(largest) - len(names) == len(text.steps)


@pytest.mark.parametrize("family", VISION)
def test_the_pyramid_depends_on_every_learned_bias(family):
    vision = tiny_vision(family).double()
    BitFit().attach(tiny_text(), vision)
    state, ends = vision.begin(tiny_inputs()[0]), []
    for step in vision.steps:
        state = vision.step(step.index, state, lambda site, x, branch_in=None: x)
        if step.ends_stage:
            ends.append(state)
    generator = torch.Generator().manual_seed(0)
    pyramid = vision.end(ends)
    sum((grid * torch.randn(grid.shape, generator=generator).double()).sum() for grid in pyramid).backward()
    assert learned(vision)
    assert [name for name, p in learned(vision).items() if p.grad is None or p.grad.abs().max() < 1e-9] == []
    assert not [name for name in learned(vision) if name.endswith(("weight", "table", "embed", "gamma", "token"))]


def test_separate_biases_of_swinv2_are_learned():
    vision = tiny_vision("swinv2")
    BitFit().attach(tiny_text(), vision)
    first = {name for name in learned(vision) if name.startswith("model.layers.0.blocks.0.")}
    assert {name.removeprefix("model.layers.0.blocks.0.") for name in first} == {
        "attn.q_bias",
        "attn.v_bias",
        "attn.cpb_mlp.0.bias",
        "attn.proj.bias",
        "norm1.bias",
        "mlp.fc1.bias",
        "mlp.fc2.bias",
        "norm2.bias",
    }


def test_a_later_start_stage_learns_the_blocks_from_there_on():
    text, vision = tiny_text(), tiny_vision()
    BitFit().attach(text, vision, Scope(start_stage=3))
    assert count(vision) == 11 * 64 * 3 + 11 * 128 * 2
    assert {name.split(".blocks")[0] for name in learned(vision)} == {"model.layers.2", "model.layers.3"}
    assert count(text) == bert_biases(32, 64, 4)
