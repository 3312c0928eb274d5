import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from s4eca.errors import S4ecaError
from s4eca.towers.base import Step
from s4eca.tuning import DETRIS
from s4eca.tuning.base import Context, Scope
from s4eca.tuning.detris import DenseAligner, TextAdapter
from tiny import shake, tiny_inputs, tiny_segmenter
from tuning.outlines import text_outline, vision_outline

SWIN_BASE = ([128, 256, 512, 1024], [2, 2, 18, 2], [120, 60, 30, 15])
SMALL = {"width": 32, "text_width": 16, "heads": 2}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def dead_biases(width: int) -> int:
    """Biases of the five convolutions, which a BatchNorm after them cancels: the repository has them."""
    return width // 2 + 2 * (width // 16 + width // 4)


def test_the_published_counts_but_for_the_biases_in_front_of_the_norms():
    method = DETRIS()
    method.attach(text_outline(512, 12), vision_outline([768] * 4, [3] * 4, [32] * 4, prefix=5))
    odd = ["1", "3", "5", "7", "9", "11"]
    assert (list(method.aligners), list(method.text_adapters)) == (odd, odd)
    assert size(method.aligners) + 6 * dead_biases(128) == 2_297_376
    assert size(method.text_adapters) + 6 * dead_biases(64) == 418_320


def test_the_port_to_swin_base_and_bert():
    method = DETRIS()
    method.attach(text_outline(768, 12), vision_outline(*SWIN_BASE))
    stages = [step.stage for step in vision_outline(*SWIN_BASE).steps if str(step.index) in method.aligners]
    assert [stages.count(stage) for stage in range(4)] == [1, 1, 9, 1]
    published = size(method) + 12 * dead_biases(128) + 6 * dead_biases(64)
    assert round(published / 1e6, 3) == 4.782
    assert f"{size(method) / 195.771e6:.2%}" == "2.44%"


def test_densities_per_stage():
    method = DETRIS(density=[0, 0, 0.5, 1])
    method.attach(text_outline(768, 12), vision_outline(*SWIN_BASE))
    assert [int(key) for key in method.aligners] == [*range(5, 22, 2), 22, 23]
    assert method.capabilities.language
    assert not DETRIS(density=[0, 0, 0, 0]).capabilities.language


def block(layer, x, dims):
    """A convolution without bias, written as a sum over its taps, then the norm of each sample, then ReLU."""
    weight = layer.convolution.weight
    kernel = weight.shape[-1]
    padded = F.pad(x, [kernel // 2] * 2 * dims)
    out = 0
    for row in range(kernel if dims == 2 else 1):
        for column in range(kernel):
            if dims == 2:
                seen = padded[:, :, row : row + x.shape[2], column : column + x.shape[3]]
                out = out + torch.einsum("oc,bchw->bohw", weight[:, :, row, column], seen)
            else:
                out = out + torch.einsum(
                    "oc,bcl->bol", weight[:, :, column], padded[:, :, column : column + x.shape[2]]
                )
    rows = []
    for sample in out:
        normed = (sample - sample.mean()) / math.sqrt(sample.var(correction=0).item() + 1e-3)
        ends = (-1,) + (1,) * dims
        rows.append(normed * layer.norm.weight.view(ends) + layer.norm.bias.view(ends))
    return torch.stack(rows).relu()


def mixture(dense, x, dims):
    one = block(dense.one, x, dims)
    three = block(dense.three, block(dense.reduce_three, torch.cat([x, one], 1), dims), dims)
    five = block(dense.five, block(dense.reduce_five, torch.cat([x, one, three], 1), dims), dims)
    return torch.cat([one, three, five], 1)


@pytest.mark.parametrize("prefix", [None, 0, 5])
def test_an_aligner_by_hand(prefix):
    step = Step("vision", 0, 0, 6, True, grid=(4, 5), prefix=prefix or 0)
    aligner = DenseAligner(6, 12, 32, 1, 0.5).eval()
    shake(aligner)
    pixels, front = torch.randn(2, 20, 6), torch.randn(2, prefix or 0, 6)
    words, mask = torch.randn(2, 4, 12), torch.tensor([[True] * 4, [True, True, False, False]])
    hidden = aligner.down(pixels).relu()
    grid = hidden.mT.unflatten(2, (4, 5))
    mixed = (mixture(aligner.mixture, grid, 2) + grid).flatten(2).mT
    weights, biases = aligner.attention.in_proj_weight.chunk(3), aligner.attention.in_proj_bias.chunk(3)
    q, k, v = (
        x @ weight.T + bias
        for x, weight, bias in zip(
            (aligner.query(mixed), aligner.words(words), aligner.words(words)), weights, biases, strict=True
        )
    )
    scores = (q @ k.mT / math.sqrt(32)).masked_fill(~mask[:, None], -1e9).softmax(-1)
    expected = aligner.up(aligner.back(aligner.attention.out_proj(scores @ v)) + hidden)
    if prefix is None:
        got = aligner(pixels.view(2, 4, 5, 6), step, words, mask).flatten(1, 2)
    else:
        expected = torch.cat([aligner.up(2 * aligner.down(front).relu()), expected], 1)
        got = aligner(torch.cat([front, pixels], 1), step, words, mask)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_text_adapter_by_hand_and_padding_counts_for_nothing():
    adapter = TextAdapter(12, 32)
    shake(adapter)
    words = torch.randn(3, 7, 12)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:] = False
    mask[2, 2:] = False
    got = adapter(words, mask)
    for sample, length in enumerate((7, 4, 2)):
        hidden = adapter.down(words[sample : sample + 1, :length]).relu()
        mixed = mixture(adapter.mixture, hidden[:, 1:].mT, 1).mT
        expected = adapter.up(torch.cat([hidden[:, :1], mixed], 1) + hidden)
        torch.testing.assert_close(got[sample : sample + 1, :length], expected, rtol=1e-4, atol=1e-5)


def test_the_adapters_stand_beside_the_mlp_and_read_what_they_should():
    network = tiny_segmenter(DETRIS(**SMALL, scale=0.5)).eval()
    method, text, vision = network.method, network.text, network.vision
    context = Context(torch.ones(2, 5, dtype=torch.bool))
    stream, normed, branch = torch.randn(3, 2, 5, 32)
    _, carry = method.tap(text.steps[1], "mid", stream, None, context, {})
    got, carry = method.tap(text.steps[1], "mlp", branch, normed, context, carry)
    torch.testing.assert_close(got, branch + 0.5 * method.text_adapters["1"](stream, context.word_mask))
    assert carry == {}
    last, _ = method.tap(text.steps[0], "mlp", branch, normed, context, {})
    assert last is branch, "there is no adapter"

    _, carry = method.tap(text.steps[-1], "stage_out", 3 * stream + 1, None, context, {})
    plain = (stream - stream.mean(-1, keepdim=True)) / stream.var(-1, correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(carry["words"], plain, rtol=1e-3, atol=1e-4)
    index = int(next(iter(method.aligners)))
    step = vision.steps[index]
    normed, branch = torch.randn(2, 2, *step.grid, step.width)
    got, _ = method.tap(step, "mlp", branch, normed, context, carry)
    added = 0.5 * method.aligners[str(index)](normed, step, carry["words"], context.word_mask)
    torch.testing.assert_close(got, branch + added)


def test_a_sample_does_not_depend_on_its_batch():
    network = tiny_segmenter(DETRIS(**SMALL, dropout=0.0)).train()
    network.decoder.eval()
    shake(network)
    image, ids, mask = tiny_inputs(batch=3)
    with torch.no_grad():
        together = network(image, ids, mask)
        alone = network(image[1:2], ids[1:2], mask[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


def test_everything_gets_a_gradient_without_a_fusion():
    network = tiny_segmenter(DETRIS(**SMALL)).train()
    network(*tiny_inputs()).square().mean().backward()
    without = [key for key, p in network.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 24}, r"tuning\.width=24 cannot be split .* give a multiple of 16"),
        ({"text_width": 0}, r"tuning\.text_width=0 cannot be split"),
        ({"heads": 3}, r"tuning\.heads=3 does not divide tuning\.width=128"),
        ({"density": [0, 0, 0, 0], "text_density": 0}, r"neither visual nor text adapters; use tuning=frozen"),
        ({"density": [1, 1]}, r"tuning\.density has 2 shares and the vision tower 4 stages"),
        ({"density": [1, 1, 0, 0]}, r"tuning\.density=\[1, 1, 0, 0\] puts no aligner into stage 3 or later"),
        ({"text_density": 2}, r"between 0 and 1, and 2 is not"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(S4ecaError, match=message):
        DETRIS(**options).attach(text_outline(64, 4), vision_outline(*SWIN_BASE), Scope(start_stage=3))


def test_the_config_builds_the_defaults():
    built, default = instantiate(OmegaConf.load("conf/tuning/detris.yaml")), DETRIS()
    keys = ("channels", "text_channels", "density", "text_density", "heads", "scale", "dropout")
    assert [getattr(built, key) for key in keys] == [getattr(default, key) for key in keys]
