import pytest
import torch

from s4eca.decoders.lavt import LAVTDecoder
from s4eca.errors import S4ecaError
from s4eca.parameters import count_parameters, method_share
from s4eca.segmenter import ReferringSegmenter
from s4eca.towers import BertTower, SwinTower
from s4eca.towers.base import no_tap
from s4eca.tuning import S4ECA
from s4eca.tuning.base import Scope
from s4eca.tuning.s4eca import TextSettings, VisualSettings
from tiny import tiny_segmenter

# by hand, for r=64, r_t=128, N=8: see the terms
R, RT, N = 64, 128, 8


def visual_adapter(c: int) -> int:
    norm_down_up = 2 * c + (c * R + R) + (R * c + c)
    pointwise = (1 + 2 + 3 + 4) * R * R + 4 * R
    depthwise = (9 + 25 + 49) * R + 3 * R
    group_norms = 4 * 2 * R
    scale = (RT * R + R) + (2 * R * 32 + 32) + (32 * 4 * R + 4 * R)
    spatial = (R * R + R) + 2 * (RT * R + R) + (4 * 49 + 1)
    return norm_down_up + pointwise + depthwise + group_norms + scale + spatial


def text_adapter(read_back: bool) -> int:
    attention = 4 * RT * RT + 4 * RT
    count = N * RT + 2 * 768 + (768 * RT + RT) + 2 * RT + attention + 2 * RT
    count += (RT * 2 * RT + 2 * RT) + (2 * RT * RT + RT)
    return count + (2 * RT + attention + RT * 768 + 768 if read_back else 0)


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    text, vision = BertTower(weights="random"), SwinTower(weights="random")
    frozen = {"text": text, "vision": vision}
    return frozen, ReferringSegmenter(text, vision, S4ECA(), LAVTDecoder, head_logits=2).eval()


def test_is_2_40_percent_of_swin_b_and_bert_base(base):
    _, network = base
    assert 100 * method_share(network) == pytest.approx(2.40, abs=0.02)
    counts = count_parameters(network)
    assert (visual_adapter(128), visual_adapter(1024), text_adapter(True)) == (105_765, 223_141, 398_848)
    expected = 5 * text_adapter(True) + text_adapter(False)
    expected += 2 * visual_adapter(128) + 2 * visual_adapter(256) + 10 * visual_adapter(512) + 2 * visual_adapter(1024)
    assert counts["method"].learned == expected == 4_691_280
    assert counts["text tower"].total == 108_891_648
    assert counts["vision tower"].total == pytest.approx(86.88e6, rel=1e-4)
    assert counts["decoder"].learned == 20_651_010
    assert counts["norms"].learned == 2 * (128 + 256 + 512 + 1024)


def test_side_form_is_1_03_percent_of_swin_b_and_bert_base(base):
    towers, _ = base
    method = S4ECA()
    method.attach(towers["text"], towers["vision"], Scope("side"))
    # no text adapter reads back, one visual adapter ends each stage, and three rungs of R x R climb
    expected = 6 * text_adapter(False) + sum(visual_adapter(c) for c in (128, 256, 512, 1024)) + 3 * R * R
    assert sum(parameter.numel() for parameter in method.parameters()) == expected == 2_020_628
    assert 100 * expected / (towers["text"].size + towers["vision"].size) == pytest.approx(1.03, abs=0.005)
    assert list(method.text_adapters) == ["1", "3", "5", "7", "9", "11"]
    assert list(method.visual_adapters) == ["1", "3", "21", "23"]


def test_base_size_places_and_identity_and_one_step_at_480(base):
    towers, network = base
    assert list(network.method.text_adapters) == ["1", "3", "5", "7", "9", "11"]
    first = [0, 2, 4, 22]
    blocks = [[0, 1], [0, 1], [1, 3, 5, 7, 8, 10, 12, 14, 16, 17], [0, 1]]
    wanted = [str(start + block) for start, stage in zip(first, blocks, strict=True) for block in stage]
    assert list(network.method.visual_adapters) == wanted
    image = torch.randint(0, 256, (1, 3, 480, 480), dtype=torch.uint8)
    ids, mask = torch.randint(5, 30000, (1, 20)), torch.ones(1, 20, dtype=torch.long)
    mask[:, 12:] = 0
    with torch.no_grad():
        walked = network.runner(image, ids, mask)
        words = towers["text"].model(input_ids=ids, attention_mask=mask).last_hidden_state
        pixels = (image.float() - towers["vision"].mean) / towers["vision"].std
        pyramid = towers["vision"].model.forward_intermediates(pixels, intermediates_only=True)
        state, plain = towers["vision"].begin(image), []
        for step in towers["vision"].steps:
            state = towers["vision"].step(step.index, state, no_tap)
            plain += [state.hidden] if step.ends_stage else []
    assert torch.equal(walked.words, words)
    assert [tuple(grid.shape) for grid in walked.pyramid] == [
        (1, 120, 120, 128), (1, 60, 60, 256), (1, 30, 30, 512), (1, 15, 15, 1024),
    ]  # fmt: skip
    for got, bare, wanted_grid in zip(walked.pyramid, plain, pyramid, strict=True):
        assert torch.equal(bare.permute(0, 3, 1, 2), wanted_grid)
        assert torch.equal(got.permute(0, 3, 1, 2), wanted_grid)
    network.train()
    logits = network(image, ids, mask)
    assert logits.shape == (1, 480, 480)
    logits.square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    network.eval()
    assert network.predict(image, ids, mask).dtype == torch.bool


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"language": "verbs"}, "tuning.language=verbs is none of"),
        ({"visual": VisualSettings(scale="loud")}, "tuning.visual.scale=loud is none of"),
        ({"text": TextSettings(enabled=False)}, "tuning.language=proxies needs the text adapters"),
        (
            {"visual": VisualSettings(scale="visual", gate=False, context=False)},
            "no visual adapter reads the proxies",
        ),
        ({"visual": VisualSettings(kernels=[3])}, "leaves no scale to select; set tuning.visual.scale=uniform"),
        ({"visual": VisualSettings(kernels=[2, 4])}, "must be odd"),
        ({"visual": VisualSettings(kernels=[-1, 3])}, "must be odd numbers from 1 on"),
        ({"visual": VisualSettings(granularity="chanel")}, "chanel is neither channel nor scalar"),
        ({"visual": VisualSettings(temperature=0)}, "temperature=0 must be above 0"),
        (
            {"visual": VisualSettings(width=10, compare=True)},
            "compare=true needs a multiple of 4 as tuning",
        ),
        ({"text": TextSettings(width=10)}, "tuning.text.heads=4 does not divide tuning.text.width=10"),
        (
            {"text": TextSettings(enabled=False), "visual": VisualSettings(density=[0, 0, 0, 0])},
            "neither text nor visual adapters; use tuning=frozen",
        ),
        ({"language": "words", "routing": [1, 1, 3, 3]}, "which only tuning.language=proxies can route"),
    ],
)
def test_settings_without_a_reader_or_source_are_refused(settings, message):
    with pytest.raises(S4ecaError, match=message):
        S4ECA(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visual": VisualSettings(density=[1, 1])}, "has 2 shares and the vision tower 4 stages"),
        ({"text": TextSettings(density=0)}, "say tuning.text.enabled=false instead"),
        ({"routing": [0, 1, 2, 3]}, r"must name 4 text layers out of \[1, 3\]"),
        ({"routing": [1, 1, 1, 1]}, "and 3 for a stage that has visual adapters"),
    ],
)
def test_settings_that_do_not_fit_the_towers_are_refused(settings, message):
    with pytest.raises(S4ecaError, match=message):
        tiny_segmenter(S4ECA(**settings))


def test_a_method_without_language_needs_a_fusion():
    settings = VisualSettings(scale="uniform", gate=False, context=False)
    with pytest.raises(S4ecaError, match=r"brings no language into the image.*fusion=pwam"):
        tiny_segmenter(S4ECA(TextSettings(enabled=False), settings, language="words"))
