import copy
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from runs import TINY, composed
from s4eca.build import build_module
from s4eca.checkpoint import Checkpoint, load_learned
from s4eca.cost import macs
from s4eca.decoders.contour import ContourRefinement
from s4eca.decoders.fpn import FPNDecoder
from s4eca.decoders.lavt import LAVTDecoder
from s4eca.errors import S4ecaError
from s4eca.fusion.film import FiLM
from s4eca.identity import describe_training, settings
from s4eca.lit.optimizer import build_adamw
from s4eca.parameters import count_parameters
from s4eca.profiling.parts import DECODER, part_of_parameter
from s4eca.segmenter import ReferringSegmenter
from s4eca.tuning import Frozen
from tiny import SIZE, shake, tiny_inputs, tiny_text, tiny_vision

DECODERS = {"fpn": partial(FPNDecoder, width=16), "lavt": partial(LAVTDecoder, factor=8)}


def network(decoder="fpn", refine=True, **options):
    torch.manual_seed(0)
    refine = partial(ContourRefinement, width=16) if refine else None
    return ReferringSegmenter(tiny_text(), tiny_vision(), Frozen(), DECODERS[decoder], FiLM, refine=refine, **options)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("head_logits", [1, 2])
def test_untrained_it_changes_no_bit_with_any_decoder(decoder, head_logits):
    plain, refined = (network(decoder, refine, head_logits=head_logits).eval() for refine in (False, True))
    shake(plain)
    refined.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(refined(*tiny_inputs()), plain(*tiny_inputs()))
    shake(refined)
    plain.load_state_dict({key: value for key, value in refined.state_dict().items() if "refine" not in key})
    assert (refined(*tiny_inputs()) - plain(*tiny_inputs())).abs().max() > 1e-3


def test_it_costs_what_it_says():
    with torch.device("meta"):
        refinement = ContourRefinement(224)
        half, quarter = torch.zeros(1, 1, 448, 448), torch.zeros(1, 224, 112, 112)
        counted = macs(lambda: refinement(torch.zeros(1, 3, 448, 448, dtype=torch.uint8), half, quarter))
        pyramid = [torch.zeros(1, side, side, width) for side, width in zip((112, 56, 28, 14), SWIN_B, strict=True)]
        decoder = macs(lambda: FPNDecoder(SWIN_B, 1)(pyramid))
    at_half = 9 * 5 * 16 + 9 * 16 * 16 + 16
    at_quarter = 9 * 16 * 32 + 224 * 16 + 9 * 48 * 32 + 9 * 32 * 32 + 32 * 16
    assert counted == 224**2 * at_half + 112**2 * at_quarter
    assert (round(counted / 1e9, 2), round(counted / decoder, 2)) == (0.55, 0.04)
    norms, biases = 2 * (16 + 32 + 32 + 32 + 16), 16 + 16 + 1
    assert sum(part.numel() for part in refinement.parameters()) == at_half + at_quarter + norms + biases == 35_073


SWIN_B = (128, 256, 512, 1024)


def test_its_parameters_are_the_decoders_and_the_heads():
    plain, refined = network(refine=False), network()
    more = sum(parameter.numel() for parameter in refined.refine.parameters())
    counts = [count_parameters(each) for each in (plain, refined)]
    assert counts[1]["decoder"].learned - counts[0]["decoder"].learned == more > 0
    assert {place for place in counts[0] if counts[0][place] != counts[1][place]} == {"decoder"}
    assert part_of_parameter("refine.fine.0.weight", True) == DECODER


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_all_of_it_learns(channels_last, autocast):
    module = network(channels_last=channels_last).train()
    optimizer = build_adamw(module, 1e-2, 0.0, fused=True)
    truth = torch.zeros(2, SIZE, SIZE)
    truth[:, :20] = 1
    moved = set()
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = module(*tiny_inputs())
        assert logits.dtype == torch.float32
        F.binary_cross_entropy_with_logits(logits, truth).backward()
        moved |= {name for name, part in module.refine.named_parameters() if part.grad.abs().max() > 0}
        optimizer.step()
        optimizer.zero_grad()
    assert moved == {name for name, _ in module.refine.named_parameters()}


def test_bf16_order_in_memory_and_batch_change_only_last_bits():
    first, last = (network(channels_last=on).eval() for on in (False, True))
    shake(first)
    last.load_state_dict(first.state_dict())
    inputs = tiny_inputs(batch=3)
    logits = first(*inputs)
    largest = logits.abs().max()
    assert (last(*inputs) - logits).abs().max() <= 1e-5 * largest
    alone = torch.cat([first(*(part[i : i + 1] for part in inputs)) for i in range(3)])
    assert (alone - logits).abs().max() <= 1e-5 * largest
    with torch.autocast("cpu", torch.bfloat16):
        assert (first(*inputs) - logits).abs().max() <= 2**-4 * largest


def edges(seed, batch=8):
    """Images with a bright rectangle, its mask, and what a grid of eight pixels leaves of the mask, as logits."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(batch, 1, 64, 64)
    for item in mask:
        top, left = torch.randint(4, 30, (2,), generator=generator).tolist()
        height, width = torch.randint(12, 30, (2,), generator=generator).tolist()
        item[:, top : top + height, left : left + width] = 1
    image = (60 + 120 * mask + 20 * torch.rand(batch, 3, 64, 64, generator=generator)).to(torch.uint8)
    coarse = F.interpolate(F.avg_pool2d(mask, 8), size=(64, 64), mode="bilinear", align_corners=True)
    return image, 8 * (coarse - 0.5), mask


def test_it_learns_to_put_contours_on_the_images_edges():
    torch.manual_seed(0)
    refinement = ContourRefinement(4, width=16)
    optimizer = torch.optim.AdamW(refinement.parameters(), 1e-2)
    features = torch.zeros(8, 4, 16, 16)
    for step in range(60):
        image, logits, mask = edges(step)
        F.binary_cross_entropy_with_logits(refinement(image, logits, features), mask).backward()
        optimizer.step()
        optimizer.zero_grad()
    image, logits, mask = edges(1000)
    iou = [
        ((found > 0) & (mask > 0)).sum() / ((found > 0) | (mask > 0)).sum()
        for found in (logits, refinement(image, logits, features))
    ]
    assert iou[0] < 0.85
    assert iou[1] > 0.92, iou


@pytest.mark.parametrize("size", [(63, 63), (50, 66), (4, 4)])
def test_any_size_of_image_and_features(size):
    refinement = ContourRefinement(4, width=16)
    logits = torch.randn(2, 1, *size)
    image = torch.zeros(2, 3, *size, dtype=torch.uint8)
    assert torch.equal(refinement(image, logits, torch.randn(2, 4, 5, 7)), logits)


def test_it_can_be_exported():
    refinement = ContourRefinement(4, width=16).eval()
    shake(refinement)
    given = (
        torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8),
        torch.randn(1, 1, 32, 32),
        torch.randn(1, 4, 8, 8),
    )
    with torch.no_grad():
        exported = torch.export.export(refinement, given).module()
        torch.testing.assert_close(exported(*given), refinement(*given))


def test_checkpoints_hold_it_strictly():
    plain, refined = network(refine=False), network()
    shake(refined)
    meta = {"method": {"name": "frozen", "placement": "inside"}}
    meta["base"] = {tower.kind: tower.base.to_dict() for tower in (refined.text, refined.vision)}
    assert {key for key in refined.learned_state() if key.startswith("refine.")} == {
        f"refine.{name}" for name, _ in refined.refine.named_parameters()
    }
    load_learned(again := network(), Checkpoint("a.ckpt", refined.learned_state(), meta))
    assert torch.equal(again.eval()(*tiny_inputs()), refined.eval()(*tiny_inputs()))
    with pytest.raises(
        S4ecaError, match=r"lacks \d+ tensors such as refine\..*same tuning, fusion, decoder and refine"
    ):
        load_learned(again, Checkpoint("a.ckpt", plain.learned_state(), meta))
    with pytest.raises(S4ecaError, match=r"too many such as refine\."):
        load_learned(plain, Checkpoint("a.ckpt", refined.learned_state(), meta))


def test_it_is_part_of_what_a_run_is_and_says():
    none, contour = (composed(*TINY, f"refine={option}") for option in ("none", "contour"))
    older = {key: value for key, value in none.items() if key != "refine"}
    assert settings(composed(*TINY)) == settings(none) == settings(older)
    more = {"_target_": "s4eca.decoders.contour.ContourRefinement", "_partial_": True, "width": 32}
    assert settings(contour) == {**settings(none), **{f"refine.{key}": value for key, value in more.items()}}
    meta = {"method": {"name": "s4eca"}, "base": {"vision": {}, "text": {}}, "data": {}}
    assert describe_training({**meta, "config": contour})["refine"] == {"name": "ContourRefinement", "width": 32}
    assert "refine" not in describe_training({**meta, "config": none})
    assert build_module(copy.deepcopy(older)).segmenter.refine is None
    assert build_module(copy.deepcopy(contour)).segmenter.refine.residual.weight.abs().max() == 0


@pytest.mark.parametrize("width", [0, -16, 24, 16.0])
def test_impossible_widths_are_refused(width):
    with pytest.raises(S4ecaError, match=r"refine\.width=.* must be a positive multiple of 16"):
        ContourRefinement(8, width=width)
