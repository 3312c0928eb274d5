"""The parts of S4ECA against formulas written out by hand."""

import pytest
import torch
from torch.nn import functional as F

from s4eca.tuning.s4eca import DenseExtractor, ScaleSelection, SpatialSelection, TextQueryAdapter
from s4eca.tuning.s4eca.method import masked_mean
from tiny import shake


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_dense_extractor_feeds_every_map_to_the_later_ones():
    extractor = DenseExtractor(4, (1, 3, 5))
    shake(extractor)
    x = torch.randn(2, 4, 6, 6)
    maps = [scale.permute(0, 3, 1, 2) for scale in extractor(x.permute(0, 2, 3, 1))]
    (point1, norm1, _), (point2, deep2, norm2, _), (point3, deep3, norm3, _) = extractor.scales
    one = F.gelu(F.group_norm(point1(x), 1, norm1.weight, norm1.bias))
    two = F.gelu(F.group_norm(deep2(point2(torch.cat([x, one], 1))), 1, norm2.weight, norm2.bias))
    three = F.gelu(F.group_norm(deep3(point3(torch.cat([x, one, two], 1))), 1, norm3.weight, norm3.bias))
    assert (deep2.kernel_size, deep3.kernel_size) == ((3, 3), (5, 5))
    for got, wanted in zip(maps, (one, two, three), strict=True):
        torch.testing.assert_close(got, wanted)
    alone = DenseExtractor(4, (1, 3, 5), dense=False)
    assert [scale[0].in_channels for scale in extractor.scales] == [4, 8, 12]
    assert [scale[0].in_channels for scale in alone.scales] == [4, 4, 4]


def test_scale_selection_is_a_plain_mean_at_first():
    maps = [torch.randn(2, 5, 5, 8) for _ in range(4)]
    selection = ScaleSelection(4, 8, 6)
    torch.testing.assert_close(selection(maps, torch.randn(2, 6)), torch.stack(maps).mean(0))


@pytest.mark.parametrize("condition", ["both", "text", "visual"])
@pytest.mark.parametrize("granularity", ["channel", "scalar"])
def test_scale_selection_by_hand(condition, granularity):
    selection = ScaleSelection(3, 8, 6, condition, granularity, temperature=0.5)
    shake(selection)
    maps = [torch.randn(2, 5, 5, 8) for _ in range(3)]
    sentence = torch.randn(2, 6)
    wanted = torch.zeros(2, 5, 5, 8)
    for sample in range(2):
        evidence = []
        if condition != "text":
            evidence.append(sum(scale[sample] for scale in maps).mean((0, 1)))
        if condition != "visual":
            evidence.append(selection.project(sentence[sample]))
        scores = selection.choose(F.gelu(selection.squeeze(torch.cat(evidence)))) / 0.5
        for channel in range(8):
            places = [s * 8 + channel if granularity == "channel" else s for s in range(3)]
            weights = scores[places].softmax(0)
            assert weights.sum().item() == pytest.approx(1)
            for weight, scale in zip(weights, maps, strict=True):
                wanted[sample, ..., channel] += weight * scale[sample, ..., channel]
    torch.testing.assert_close(selection(maps, sentence), wanted, rtol=1e-4, atol=1e-5)


def test_spatial_selection_by_hand():
    selection = SpatialSelection(4, 6)
    shake(selection)
    x, proxies = torch.randn(1, 4, 3, 2), torch.randn(1, 5, 6)
    mask = torch.tensor([[True, True, True, False, False]])
    real = proxies[0, :3]
    similarity = torch.zeros(3, 2, 3)
    context = torch.zeros(4, 3, 2)
    for row in range(3):
        for column in range(2):
            query = selection.query(x[0, :, row, column])
            similarity[row, column] = selection.key(real) @ query / 4**0.5
            context[:, row, column] = similarity[row, column].softmax(0) @ selection.value(real)
    statistics = [x[0].mean(0), x[0].max(0).values, similarity.max(2).values, similarity.exp().sum(2).log()]
    gate = selection.gate(torch.stack(statistics)[None])[0].sigmoid()
    wanted = gate * (x[0] + context)
    got, opened = selection(x.permute(0, 2, 3, 1), proxies, mask)
    torch.testing.assert_close(got[0].permute(2, 0, 1), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(opened, gate, rtol=1e-4, atol=1e-5)


def test_the_halves_of_spatial_selection_can_be_left_out():
    x, proxies = torch.randn(2, 3, 3, 4), torch.randn(2, 5, 6)
    context = SpatialSelection(4, 6, gate=False)
    gate = SpatialSelection(4, 6, context=False)
    assert context.gate is None
    assert gate.value is None
    gated, opened = gate(x, proxies, None)
    ratio = gated / x
    assert torch.allclose(ratio, ratio[..., :1], atol=1e-4), "one gate for all channels"
    assert 0 < ratio.min() < ratio.max() < 1
    torch.testing.assert_close(opened, ratio.mean(-1), rtol=1e-4, atol=1e-4)
    assert context(x, proxies, None)[1] is None
    single = SpatialSelection(4, 6, gate=False, single=True)
    one = proxies[:, :1]
    torch.testing.assert_close(single(x, one, None)[0], x + single.value(one)[:, None])


def test_text_adapter_by_hand():
    adapter = TextQueryAdapter(channels=10, width=8, proxies=3, heads=2)
    shake(adapter)
    words, previous = torch.randn(1, 4, 10), torch.randn(1, 3, 8)
    mask = torch.tensor([[True, True, True, False]])

    def attend(layer, queries, keys):
        wq, wk, wv = layer.in_proj_weight.chunk(3)
        bq, bk, bv = layer.in_proj_bias.chunk(3)
        q, k, v = queries @ wq.T + bq, keys @ wk.T + bk, keys @ wv.T + bv
        heads = []
        for part in (slice(0, 4), slice(4, 8)):
            heads.append((q[:, part] @ k[:, part].T / 2).softmax(1) @ v[:, part])
        return layer.out_proj(torch.cat(heads, 1))

    inner = F.gelu(adapter.down(adapter.norm_in(words[0])))
    proxies = adapter.queries + previous[0]
    proxies = proxies + attend(adapter.distil, adapter.norm_queries(proxies), inner[:3])
    proxies = proxies + adapter.feed(adapter.norm_feed(proxies))
    refined = words[0] + adapter.up(inner + attend(adapter.read, adapter.norm_words(inner), proxies))
    got_words, got_proxies = adapter(words, mask, previous)
    torch.testing.assert_close(got_proxies[0], proxies, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got_words[0], refined, rtol=1e-4, atol=1e-5)


def test_the_last_text_adapter_leaves_the_words_alone():
    adapter = TextQueryAdapter(10, 8, 3, heads=2, read_back=False)
    shake(adapter)
    words = torch.randn(2, 4, 10)
    same, _ = adapter(words, torch.ones(2, 4, dtype=torch.bool), None)
    assert same is words
    assert not any(name.startswith(("up", "read", "norm_words")) for name, _ in adapter.named_parameters())


def test_masked_mean():
    language = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert masked_mean(language, mask).flatten().tolist() == [2.0, 5.0]
    assert masked_mean(language, None).flatten().tolist() == pytest.approx([104 / 3, 5.0])
