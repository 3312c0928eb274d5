"""Bottleneck adapters: their place, their arithmetic, their size, and what is refused."""

import dataclasses

import pytest
import torch

from s4eca.errors import S4ecaError
from s4eca.fusion.film import FiLM
from s4eca.tuning import Bottleneck, Frozen
from s4eca.tuning.base import Scope
from s4eca.tuning.bottleneck import ParallelAdapter, SequentialAdapter
from tiny import shake, tiny_inputs, tiny_segmenter, tiny_text, tiny_vision

BLOCKS = {16: 2, 32: 2, 64: 3, 128: 2}  # of the tiny Swin, by width
LAYERS = {32: 4}  # of the tiny BERT


def learned(method) -> int:
    return sum(parameter.numel() for parameter in method.parameters())


def attached(**options) -> Bottleneck:
    method = Bottleneck(**options)
    method.attach(tiny_text(), tiny_vision(), options.pop("scope", Scope()))
    return method


@pytest.mark.parametrize("places", [{"text": False}, {"vision": False}, {}])
def test_sizes_by_hand(places):
    blocks = [BLOCKS] * places.get("vision", True) + [LAYERS] * places.get("text", True)
    widths = [width for table in blocks for width, count in table.items() for _ in range(count)]
    r = 8
    houlsby = sum(2 * (width * r + r + r * width + width) for width in widths)
    adaptformer = sum(2 * width + width * r + r + r * width + width for width in widths)
    assert learned(attached(form="houlsby", width=r, **places)) == houlsby
    assert learned(attached(form="adaptformer", width=r, **places)) == adaptformer


def test_size_on_swin_base_and_bert_base():
    # one linear pair per block at width 64 is 1.40 % of 195.771 M; AdaptFormer's norms add 2 * 21,248
    with torch.device("meta"):
        widths = [128] * 2 + [256] * 2 + [512] * 18 + [1024] * 2 + [768] * 12
        total = sum(learned(ParallelAdapter(width, 64, 0.0, 0.1)) for width in widths)
    assert total == 2_743_296 + 42_496
    assert round(2_743_296 / 195.771e6, 4) == 0.0140


@pytest.mark.parametrize(("vision", "text"), [("swin", "bert"), ("swinv2", "bert")])
@pytest.mark.parametrize("form", ["houlsby", "adaptformer"])
def test_acts_at_the_end_of_its_branches(form, vision, text):
    """Adapters that only add a constant are the same as that constant on the branches' last biases."""
    network = tiny_segmenter(Bottleneck(form, width=4), FiLM, vision, text).eval()
    for name, parameter in network.method.named_parameters():
        if name.endswith("up.bias"):
            torch.nn.init.constant_(parameter, 0.5 if form == "houlsby" else 5.0)
    plain = tiny_segmenter(Frozen(), FiLM, vision, text).eval()
    with torch.no_grad():
        for step in plain.text.steps:
            layer = plain.text.block(step.index)
            layer.output.dense.bias += 0.5
            if form == "houlsby":
                layer.attention.output.dense.bias += 0.5
        for step in plain.vision.steps:
            block = plain.vision.block(step.index)
            # Swin V2 normalises a branch before it joins
            (block.mlp.fc2 if vision == "swin" else block.norm2).bias += 0.5
            if form == "houlsby":
                (block.attn.proj if vision == "swin" else block.norm1).bias += 0.5
        got, expected = network.runner(*tiny_inputs()), plain.runner(*tiny_inputs())
    torch.testing.assert_close(got.words, expected.words, rtol=1e-4, atol=1e-5)
    for one, other in zip(got.pyramid, expected.pyramid, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_sequential_by_hand():
    torch.manual_seed(0)
    adapter = SequentialAdapter(6, 3, dropout=0.0)
    shake(adapter)
    x = torch.randn(2, 5, 6)
    inner = x @ adapter.down.weight.T + adapter.down.bias
    inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
    expected = x + inner @ adapter.up.weight.T + adapter.up.bias
    torch.testing.assert_close(adapter(x, torch.randn(2, 5, 6)), expected)


def test_parallel_by_hand():
    torch.manual_seed(0)
    adapter = ParallelAdapter(6, 3, dropout=0.0, scale=0.3)
    shake(adapter)
    branch, x = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    normed = normed * adapter.norm.weight + adapter.norm.bias
    inner = (normed @ adapter.down.weight.T + adapter.down.bias).clamp(min=0)
    expected = branch + 0.3 * (inner @ adapter.up.weight.T + adapter.up.bias)
    torch.testing.assert_close(adapter(branch, x), expected)


@pytest.mark.parametrize(("given", "scale"), [(None, 0.1), (0.25, 0.25)])
def test_the_scale_arrives(given, scale):
    method = attached(form="adaptformer", width=2, scale=given)
    assert {adapter.scale for adapter in method.modules() if isinstance(adapter, ParallelAdapter)} == {scale}


@pytest.mark.parametrize("adapter", [SequentialAdapter(8, 64, 0.5), ParallelAdapter(8, 64, 0.5, 0.1)])
def test_dropout_acts_in_training_alone(adapter):
    shake(adapter)
    x = torch.randn(1, 8)
    adapter.train()
    assert not torch.equal(adapter(x, x), adapter(x, x))
    adapter.eval()
    assert torch.equal(adapter(x, x), adapter(x, x))


def test_a_block_without_attention_has_one_adapter():
    vision = tiny_vision()
    vision.steps = [dataclasses.replace(step, sites=("in", "mlp", "out", "stage_out")) for step in vision.steps]
    method = Bottleneck("houlsby", width=2)
    method.attach(tiny_text(), vision)
    assert [list(block) for block in method.adapters["vision"].values()] == [["mlp"]] * 9
    assert [list(layer) for layer in method.adapters["text"].values()] == [["attn", "mlp"]] * 4


def test_start_stage_leaves_the_text_tower_alone():
    method = Bottleneck("adaptformer", width=2)
    method.attach(tiny_text(), tiny_vision(), Scope(start_stage=3))
    assert list(method.adapters["vision"]) == ["4", "5", "6", "7", "8"]
    assert list(method.adapters["text"]) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "pfeiffer"}, r"tuning\.form=pfeiffer is neither houlsby nor adaptformer"),
        ({"width": 0}, r"tuning\.width=0 must be a whole number from 1 on"),
        ({"scale": 0.1}, r"tuning\.scale=0\.1 belongs to tuning\.form=adaptformer"),
        ({"text": False, "vision": False}, r"tuning=houlsby has adapters in neither tower; set tuning\.text=true"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, message):
    with pytest.raises(S4ecaError, match=message):
        Bottleneck(**options)
