import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from s4eca.errors import S4ecaError
from s4eca.tuning import ETRIS, Walk
from s4eca.tuning.base import Scope
from s4eca.tuning.etris import Bridge
from tiny import shake, tiny_inputs, tiny_segmenter
from tuning.outlines import text_outline, vision_outline

SWIN_BASE = ([128, 256, 512, 1024], [2, 2, 18, 2], [120, 60, 30, 15])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def size(method: nn.Module) -> int:
    return sum(parameter.numel() for parameter in method.parameters())


def test_the_repositorys_count_but_for_the_last_words_half():
    # its bridges for ResNets (strides 2, 1, 2, width 64) with 512 channels of text, summed layer by layer
    attention, feed, norm = 4 * (64 * 64 + 64), 64 * 128 + 128 + 128 * 64 + 64, 2 * 64
    interactor = 2 * attention + feed + 3 * norm
    zooms = 2 * 64 * (512 * 2 * 2 + 1024 + 2048 * 2 * 2)
    down, up = 512 * 64 + 64, 64 * 512 + 512
    repository = 3 * (2 * interactor + down + up) + zooms + 2 * 2 * norm
    assert repository == 1_942_080
    method = ETRIS()
    method.attach(text_outline(512, 12), vision_outline([256, 512, 1024, 2048], [3, 4, 6, 3], [104, 52, 26, 13]))
    assert size(method) == repository - interactor - up


def test_bridges_stand_at_the_ends_of_thirds():
    text, vision = text_outline(768, 12), vision_outline(*SWIN_BASE)
    method = ETRIS()
    method.attach(text, vision)
    walked = [(event.tower, event.index) for event in method.schedule(text, vision) if isinstance(event, Walk)]
    expected = []
    for layers, blocks in ((range(4), range(4)), (range(4, 8), range(4, 22)), (range(8, 12), range(22, 24))):
        expected += [("text", layer) for layer in layers] + [("vision", block) for block in blocks]
    assert walked == expected
    assert list(method.bridges) == ["3", "21", "23"]
    kinds = [(type(bridge.zoom_in), bridge.zoom_in.stride) for bridge in method.bridges.values()]
    assert kinds == [(nn.Conv2d, (2, 2)), (nn.Conv2d, (1, 1)), (nn.ConvTranspose2d, (2, 2))]


@pytest.mark.parametrize(("depth", "layers"), [(6, [1, 3, 5]), (4, [1, 2, 3]), (24, [7, 15, 23]), (3, [0, 1, 2])])
def test_text_layers_are_split_evenly(depth, layers):
    method = ETRIS()
    method.attach(text_outline(64, depth), vision_outline([64] * 4, [3] * 4, [30] * 4, prefix=5))
    assert method.places == list(zip(layers, [5, 8, 11], strict=True))


def test_the_start_stage_leaves_the_first_bridges_out():
    text, vision = text_outline(768, 12), vision_outline(*SWIN_BASE)
    method = ETRIS()
    method.attach(text, vision, Scope(start_stage=4))
    assert method.places == [(11, 23)]
    events = method.schedule(text, vision)
    assert events == [Walk("text", i) for i in range(12)] + [Walk("vision", i) for i in range(24)]


def attend(attention, query, memory, mask):
    """Multi-head attention of torch's weights, written out."""
    width, heads = query.shape[-1], attention.num_heads
    q, k, v = (
        (x @ weight.T + bias).unflatten(-1, (heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(
            (query, memory, memory), attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True
        )
    )
    scores = q @ k.mT / (width / heads) ** 0.5
    scores = scores.masked_fill(~mask[:, None, None], -1e9)
    return attention.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def interact(interactor, x, memory, x_mask, memory_mask):
    x = interactor.norms[0](x + attend(interactor.among, x, x, x_mask))
    x = interactor.norms[1](x + attend(interactor.across, x, memory, memory_mask))
    up, _, _, down = interactor.feed
    return interactor.norms[2](x + down(up(x).relu()))


def spread(patches, weight):
    """A transposed convolution whose stride is its kernel: every pixel becomes a patch of 2 x 2."""
    batch, rows, columns, _ = patches.shape
    return torch.einsum("bhwc,codp->bhdwpo", patches, weight).reshape(batch, 2 * rows, 2 * columns, -1)


def gather(patches, weight):
    """A convolution whose stride is its kernel: every patch of 2 x 2 becomes a pixel."""
    batch, rows, columns, channels = patches.shape
    cut = patches.reshape(batch, rows // 2, 2, columns // 2, 2, channels)
    return torch.einsum("bhdwpc,ocdp->bhwo", cut, weight)


@pytest.mark.parametrize(("here", "shared"), [(6, 3), (3, 6)])
def test_a_bridge_by_hand(here, shared):
    bridge = Bridge(5, 12, ((here, here), (shared, shared)), 8, 2, 0.5, first=False, last=False).eval()
    shake(bridge)
    grid, words = torch.randn(2, here, here, 5), torch.randn(2, 4, 12)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    before = (torch.randn(2, shared**2, 8), torch.randn(2, 4, 8))
    bigger, smaller = (spread, gather) if here < shared else (gather, spread)
    v = bridge.norm_pixels(bigger(grid, bridge.zoom_in.weight).flatten(1, 2) + before[0])
    t = bridge.norm_words(words @ bridge.down.weight.T + bridge.down.bias + before[1])
    pixels = torch.ones(2, shared**2, dtype=torch.bool)
    seen = interact(bridge.read_words, v, t, pixels, mask).unflatten(1, (shared, shared))
    given = bridge.up(interact(bridge.read_pixels, t, v, mask, pixels))
    got = bridge(grid, words, mask, before)
    expected = (grid + smaller(seen, bridge.zoom_out.weight), given, v, t)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_grids_that_no_stride_divides_are_resized():
    # 400 px in a Swin: 50, 25 and 13 pixels, where strides of 2 lead to 25, 25 and 26
    bridge = Bridge(5, 12, ((13, 13), (25, 25)), 8, 2, 0.0, first=True, last=True)
    grid, to_words, v, t = bridge(
        torch.randn(1, 13, 13, 5), torch.randn(1, 4, 12), torch.ones(1, 4, dtype=torch.bool), None
    )
    assert (grid.shape, v.shape, t.shape, to_words) == ((1, 13, 13, 5), (1, 625, 8), (1, 4, 8), None)


def test_pixels_reach_the_words_and_the_pyramid_holds_the_bridges_output():
    network = tiny_segmenter(ETRIS(width=16, heads=2)).eval()
    image, ids, mask = tiny_inputs()
    other, _, _ = tiny_inputs(seed=1)
    with torch.no_grad():
        one, two = network.runner(image, ids, mask), network.runner(other, ids, mask)
        assert (one.words - two.words).abs().max() > 1e-3
        nn.init.zeros_(network.method.bridges["8"].zoom_out.weight)
        closed = network.runner(image, ids, mask)
    same = [torch.equal(a, b) for a, b in zip(one.pyramid, closed.pyramid, strict=True)]
    assert same == [True, True, True, False]
    assert torch.equal(one.words, closed.words)


def test_everything_gets_a_gradient_without_a_fusion():
    network = tiny_segmenter(ETRIS(width=16, heads=2)).train()
    network(*tiny_inputs()).square().mean().backward()
    without = [key for key, p in network.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert without == []


def test_bad_settings_are_refused():
    with pytest.raises(S4ecaError, match=r"tuning\.heads=8 does not divide tuning\.width=60"):
        ETRIS(width=60)
    with pytest.raises(S4ecaError, match=r"tuning=etris splits the text tower into 3 parts and it has 2 layers"):
        ETRIS().attach(text_outline(64, 2), vision_outline(*SWIN_BASE))


def test_the_config_builds_the_defaults():
    built, default = instantiate(OmegaConf.load("conf/tuning/etris.yaml")), ETRIS()
    assert (built.channels, built.heads, built.dropout) == (default.channels, default.heads, default.dropout)
