"""Mona: its arithmetic, its places, its size."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from s4eca.errors import S4ecaError
from s4eca.fusion.film import FiLM
from s4eca.tuning import Frozen, Mona
from s4eca.tuning.base import Context, Scope
from s4eca.tuning.mona import MonaAdapter
from tiny import shake, tiny_inputs, tiny_segmenter, tiny_text, tiny_vision


def learned(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def by_hand(adapter: MonaAdapter, x: torch.Tensor) -> torch.Tensor:
    """The three convolutions, their mean and the residual as one 7 × 7 kernel."""
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    normed = normed * adapter.norm.weight + adapter.norm.bias
    inner = (normed * adapter.normed_scale + x * adapter.plain_scale) @ adapter.down.weight.T + adapter.down.bias
    kernel = sum(F.pad(conv.weight, [3 - conv.weight.shape[-1] // 2] * 4) for conv in adapter.depthwise) / 3
    kernel[:, :, 3, 3] += 1
    bias = sum(conv.bias for conv in adapter.depthwise) / 3
    inner = F.conv2d(inner.permute(0, 3, 1, 2), kernel, bias, padding=3, groups=len(bias)).permute(0, 2, 3, 1)
    inner = inner + inner @ adapter.pointwise.weight[:, :, 0, 0].T + adapter.pointwise.bias
    inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
    return x + inner @ adapter.up.weight.T + adapter.up.bias


def test_by_hand():
    torch.manual_seed(0)
    adapter = MonaAdapter(6, 4, dropout=0.0, zero_init=False)
    assert adapter.normed_scale.tolist() == pytest.approx([1e-6] * 6)
    assert adapter.plain_scale.tolist() == [1.0] * 6
    shake(adapter, scale=0.3)
    x = torch.randn(2, 9, 5, 6)
    torch.testing.assert_close(adapter(x), by_hand(adapter, x), rtol=1e-4, atol=1e-5)


def test_size_on_swin_base():
    # per adapter and width C: norm 2 C, scales 2 C, down 64 C + 64, up 64 C + C, kernels 9 + 25 + 49, pointwise
    blocks = {128: 2, 256: 2, 512: 18, 1024: 2}
    expected = sum(
        2 * count * (2 * c + 2 * c + 64 * c + 64 + 64 * c + c + 64 * (9 + 25 + 49 + 3) + 64 * 64 + 64)
        for c, count in blocks.items()
    )
    assert expected == 3_667_456  # 3.667 M
    with torch.device("meta"):
        got = sum(2 * count * learned(MonaAdapter(c, 64, 0.1, False)) for c, count in blocks.items())
    assert got == expected


def test_two_per_vision_block_and_none_in_the_text_tower():
    method = Mona(width=4)
    method.attach(tiny_text(), tiny_vision(), Scope(start_stage=2))
    assert {key: list(block) for key, block in method.adapters.items()} == {
        str(index): ["mid", "out"] for index in range(2, 9)
    }


def test_a_block_without_attention_has_one():
    vision = tiny_vision()
    vision.steps = [dataclasses.replace(step, sites=("in", "mlp", "out", "stage_out")) for step in vision.steps]
    method = Mona(width=4)
    method.attach(tiny_text(), vision)
    assert [list(block) for block in method.adapters.values()] == [["out"]] * 9


def test_acts_on_the_residual_stream_after_attention_and_mlp():
    network = tiny_segmenter(Mona(width=4), FiLM).eval()
    shake(network.method)
    tower, step = network.vision, network.vision.steps[0]
    block, adapters = tower.block(0), network.method.adapters["0"]
    start = tower.begin(tiny_inputs()[0])
    context = Context(torch.ones(2, 8, dtype=torch.bool))

    def tap(site, x, branch_in=None):
        return network.method.tap(step, site, x, branch_in, context, {})[0]

    with torch.no_grad():
        x = start.hidden
        x = by_hand(adapters["mid"], x + block._attn(block.norm1(x)))
        x = by_hand(adapters["out"], x + block.mlp(block.norm2(x)))
        torch.testing.assert_close(tower.step(0, start, tap).hidden, x, rtol=1e-4, atol=1e-5)


def test_leading_tokens_pass_unchanged():
    torch.manual_seed(0)
    vision = tiny_vision()
    vision.steps = [dataclasses.replace(step, grid=(2, 3), prefix=2) for step in vision.steps]
    method = Mona(width=4).eval()
    method.attach(tiny_text(), vision)
    method.eval()
    x = torch.randn(1, 8, 16)
    context = Context(torch.ones(1, 1, dtype=torch.bool))
    with torch.no_grad():
        got, _ = method.tap(vision.steps[0], "mid", x, None, context, {})
        pixels = by_hand(method.adapters["0"]["mid"], x[:, 2:].reshape(1, 2, 3, 16))
    assert torch.equal(got[:, :2], x[:, :2])
    torch.testing.assert_close(got[:, 2:], pixels.reshape(1, 6, 16), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zero_init", [False, True])
def test_starts_from_the_frozen_tower_only_where_asked(zero_init):
    torch.manual_seed(0)
    network = tiny_segmenter(Mona(width=4, zero_init=zero_init), FiLM).eval()
    assert network.method.capabilities.identity == zero_init
    plain = tiny_segmenter(Frozen(), FiLM).eval()
    with torch.no_grad():
        tuned, frozen = network.runner(*tiny_inputs()), plain.runner(*tiny_inputs())
    assert torch.equal(tuned.words, frozen.words)
    assert [torch.equal(a, b) for a, b in zip(tuned.pyramid, frozen.pyramid, strict=True)] == [zero_init] * 4


def test_dropout_acts_in_training_alone():
    adapter = MonaAdapter(8, 16, dropout=0.5, zero_init=False)
    x = torch.randn(1, 3, 3, 8)
    assert not torch.equal(adapter(x), adapter(x))
    adapter.eval()
    assert torch.equal(adapter(x), adapter(x))


def test_a_width_below_one_is_refused():
    with pytest.raises(S4ecaError, match=r"tuning\.width=0 must be a whole number from 1 on"):
        Mona(width=0)
