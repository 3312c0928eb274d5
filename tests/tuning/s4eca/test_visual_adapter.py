"""The visual adapter against the formulas of the paper's reconstruction, written out plainly; its order of work is not
theirs, its results and gradients are."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from s4eca.tuning.s4eca import VisualAdapter, VisualSettings
from s4eca.tuning.s4eca.depthwise import depthwise
from tiny import shake


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def plain(adapter, x, language, mask, finer=None):
    """The formulas, in the layout (B, R, H, W), with every concatenation and projection made in full."""
    inner = adapter.down(adapter.norm(x))
    if finer is not None:
        pooled = F.avg_pool2d(finer.permute(0, 3, 1, 2), finer.shape[1] // x.shape[1]).permute(0, 2, 3, 1)
        inner = inner + pooled @ adapter.climb.weight.T
    z = F.gelu(inner).permute(0, 3, 1, 2).contiguous()
    maps = [z]
    for scale in adapter.extractor.scales:
        maps.append(scale(torch.cat(maps, 1) if adapter.extractor.dense else z))
    maps = torch.stack(maps[1:], 1)  # (B, S, R, H, W)
    if mask is None:
        mask = torch.ones(language.shape[:2], dtype=torch.bool)
    sentence = torch.stack([words[seen].mean(0) for words, seen in zip(language, mask, strict=True)])
    choice = adapter.scale
    evidence = torch.cat([maps.sum(1).mean((2, 3)), choice.project(sentence)], 1)
    scores = choice.choose(F.gelu(choice.squeeze(evidence))).unflatten(1, (maps.shape[1], -1))
    u = (maps * scores.softmax(1)[..., None, None]).sum(1)
    place = adapter.spatial
    queries, keys = place.query(u.flatten(2).mT), place.key(language)
    similarity = torch.einsum("bpr,bnr->bpn", queries, keys) / u.shape[1] ** 0.5
    similarity = similarity.masked_fill(~mask[:, None], float("-inf"))
    context = (similarity.softmax(-1) @ place.value(language)).mT.unflatten(2, u.shape[2:])
    statistics = [u.mean(1), u.amax(1)]
    statistics += [s.unflatten(1, u.shape[2:]) for s in (similarity.amax(-1), similarity.logsumexp(-1))]
    y = place.gate(torch.stack(statistics, 1)).sigmoid() * (u + context)
    y = y.permute(0, 2, 3, 1)
    return x + adapter.up(y), y


@pytest.mark.parametrize(
    ("settings", "masked", "climbs"),
    [
        (VisualSettings(width=8), False, False),
        (VisualSettings(width=8, granularity="scalar", dense=False), True, False),
        (VisualSettings(width=8, kernels=(3, 9)), True, True),
    ],
    ids=["default", "words", "ladder"],
)
def test_equal_to_the_plain_formulas_with_all_gradients(settings, masked, climbs):
    adapter = VisualAdapter(12, 6, settings, single=False, climbs=climbs)
    shake(adapter)
    mask = torch.tensor([[True, True, True], [True, True, False]]) if masked else None
    leaves = [torch.randn(2, 10, 10, 12), torch.randn(2, 3, 6)] + [torch.randn(2, 20, 20, 8)] * climbs
    leaves = [leaf.requires_grad_() for leaf in leaves]
    wanted, got = plain(adapter, *leaves[:2], mask, *leaves[2:]), adapter(*leaves[:2], mask, *leaves[2:])
    weights = [torch.randn_like(out) for out in wanted]
    names = ["x", "language", "finer"][: len(leaves)] + [name for name, _ in adapter.named_parameters()]
    everything = [*leaves, *adapter.parameters()]
    gradients = []
    for outputs in (wanted, got):
        loss = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
        gradients.append(torch.autograd.grad(loss, everything))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for name, one, other in zip(names, gradients[1], gradients[0], strict=True):
        assert other.abs().max() > 0, name
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()), msg=name)


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
@pytest.mark.parametrize("size", [(6, 11), (2, 1)])
def test_depthwise_is_the_layer_itself_with_its_gradients(kernel, size):
    layer = nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=4).double()
    x = torch.randn(2, *size, 4, dtype=torch.double).permute(0, 3, 1, 2).requires_grad_()
    weight = torch.randn(2, 4, *size, dtype=torch.double)
    everything = [x, *layer.parameters()]
    assert torch.equal(depthwise(x, layer), layer(x))
    wanted = torch.autograd.grad((layer(x) * weight).sum(), everything)
    got = torch.autograd.grad((depthwise(x, layer) * weight).sum(), everything)
    torch.testing.assert_close(got, wanted)


def test_depthwise_gives_only_the_gradients_that_are_wanted():
    layer = nn.Conv2d(4, 4, 5, padding=2, groups=4).requires_grad_(False)
    x = torch.randn(1, 4, 6, 6, requires_grad=True)
    depthwise(x, layer).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    layer.requires_grad_(True)
    depthwise(x.detach(), layer).sum().backward()
    assert layer.weight.grad.abs().max() > 0


def saved_values(run):
    """Number of values that a forward keeps for its backward, each storage counted once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return sum(kept.values()), result


def test_what_is_kept_for_the_backward_pass():
    width, channels, side = 16, 64, 24
    adapter = VisualAdapter(channels, 8, VisualSettings(width=width), single=False)
    x, language = torch.randn(1, side, side, channels, requires_grad=True), torch.randn(1, 4, 8, requires_grad=True)
    kept, _ = saved_values(lambda: adapter(x, language, None))
    # x and its normed form; of the bottleneck: both sides of the first GELU, of 4 norms and of 4 GELUs, the inputs of
    # 3 depth-wise kernels, the mixture, what the gate multiplies, and its product
    maps = 2 * channels + (2 + 4 + 4 + 4 + 3 + 1 + 1 + 1) * width
    # a gate, four statistics, an index, and a few maps of 4 similarities
    small = 1 + 4 + 2 + 5 * 4
    parameters = sum(parameter.numel() for parameter in adapter.parameters())
    assert kept <= (maps + small) * side**2 + parameters + 2 * side**2 + 1000
