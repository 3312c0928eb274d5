"""SAM and SAM 2 as proposers: against planted masks, transformers' own processors, and tiny random models."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from transformers.models.sam.image_processing_sam import SamImageProcessor, _rle_to_mask
from transformers.models.sam2.image_processing_sam2 import Sam2ImageProcessor

from dgl_rsis.tiny_models import SAM, SAM2
from s4eca.build import instantiate
from s4eca.dgl_rsis.parts import View
from s4eca.dgl_rsis.proposals.sam import Sam, Sam2, crop_boxes, grid_points
from s4eca.errors import S4ecaError

ROOT = Path(__file__).parents[3]
OPTIONS = {Sam: SAM, Sam2: SAM2}
ALL = {"min_area": 1, "max_share": 1.0, "nms_iou": 1.0, "limit": None}
KINDS = pytest.mark.parametrize("kind", [Sam, Sam2])


def tiny(kind, **settings):
    return kind(name="tiny", weights="random", options=OPTIONS[kind], **settings)


def sure(kind, **settings):
    """A tiny model whose estimates and logits are of a size that thresholds can tell apart."""
    proposer = tiny(
        kind, **{"points_per_side": 4, "points_per_batch": 5, "pred_iou": 0.5, "stability": 0.3, **settings}
    )
    decoder, given = proposer.model.mask_decoder, torch.Generator().manual_seed(3)
    output = proposer.model(
        image_embeddings=proposer.model.get_image_embeddings(torch.randn(1, 3, 64, 64, generator=given)),
        input_points=torch.rand(1, 8, 1, 2, generator=given) * 64,
    )
    with torch.no_grad():
        for head in decoder.output_hypernetworks_mlps:
            head.proj_out.weight *= 4 / output.pred_masks.std()
            head.proj_out.bias *= 4 / output.pred_masks.std()
        last = decoder.iou_prediction_head.proj_out
        last.weight *= 0.1 / output.iou_scores.std() * (4 if kind is Sam2 else 1)
        last.bias += 0.6
    return proposer


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def view(image):
    return View(image, "key")


class Planted(nn.Module):
    """Answers every point with the same low-resolution logits (3, 16, 16) and estimates."""

    def __init__(self, logits, estimates=(0.9, 0.9, 0.9)):
        super().__init__()
        self.logits, self.estimates = logits, torch.tensor(estimates)
        self.device = torch.device("cpu")
        self.embedded, self.points = [], []

    def get_image_embeddings(self, pixels):
        self.embedded.append(pixels)
        return pixels

    def forward(self, image_embeddings, input_points, multimask_output):
        assert multimask_output
        assert image_embeddings is self.embedded[-1]
        assert input_points.shape[0] == input_points.shape[2] == 1
        count = input_points.shape[1]
        self.points.append(input_points[0, :, 0])
        masks = self.logits.expand(1, count, -1, -1, -1)
        return SimpleNamespace(pred_masks=masks, iou_scores=self.estimates.expand(1, count, -1))


def plant(kind, boxes, value=30.0, estimates=(0.9, 0.9, 0.9), **settings):
    """A proposer that sees boxes (x0, y0, x1, y1) of the 16 x 16 low-resolution cells."""
    logits = torch.full((3, 16, 16), -value)
    for mask, (x0, y0, x1, y1) in zip(logits, boxes, strict=True):
        mask[y0:y1, x0:x1] = value
    proposer = tiny(kind, **{"points_per_side": 2, "points_per_batch": 3, **settings})
    proposer.model = Planted(logits, estimates)
    return proposer


@pytest.mark.parametrize("size", [(48, 64), (100, 37), (64, 64), (201, 300), (20, 31), (7, 640)])
def test_inputs_are_those_of_the_processors(size):
    image = picture(*size)
    square = {"height": 64, "width": 64}
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size=square)
    expected = processor(images=image, return_tensors="pt")
    pixels, covered = tiny(Sam).prepare(image)
    torch.testing.assert_close(pixels, expected["pixel_values"], atol=1e-4, rtol=0)
    assert covered == tuple(expected["reshaped_input_sizes"][0].tolist())
    pixels, covered = tiny(Sam2).prepare(image)
    expected = Sam2ImageProcessor(size=square)(images=image, return_tensors="pt")
    torch.testing.assert_close(pixels, expected["pixel_values"], atol=1e-4, rtol=0)
    assert covered == (64, 64)


def test_points_stand_in_the_middle_of_equal_cells():
    assert grid_points(2, (32, 64)).tolist() == [[16, 8], [48, 8], [16, 24], [48, 24]]
    assert grid_points(1, (5, 9)).tolist() == [[4.5, 2.5]]


def test_crops_overlap_and_end_with_the_image():
    assert crop_boxes((60, 90), 0) == [(0, 0, 90, 60)]
    # 512/1500 of 60 are 20 pixels: (60 + 20)/2 rows, (90 + 20)/2 columns
    assert crop_boxes((60, 90), 1)[1:] == [(0, 0, 55, 40), (35, 0, 90, 40), (0, 20, 55, 60), (35, 20, 90, 60)]
    covered = np.zeros((61, 47), int)
    for x0, y0, x1, y1 in crop_boxes((61, 47), 1)[1:]:
        covered[y0:y1, x0:x1] += 1
    assert covered.min() == 1
    assert covered.max() == 4


def test_masks_of_a_wide_image_are_cut_out_of_the_padding():
    # 40 x 80 becomes 32 x 64 of the 64 x 64 input: cells are 4 pixels there and 5 in the image, padding from row 8 on
    proposer = plant(Sam, [(4, 2, 8, 6), (2, 6, 4, 16), (0, 9, 16, 16)])
    found = proposer.propose(view(picture(40, 80)))
    assert sorted(found.boxes.tolist()) == [[10, 30, 20, 40], [20, 10, 40, 30]]
    for mask, box in zip(found.masks(), found.boxes.tolist(), strict=True):
        filled = np.zeros((40, 80), bool)
        filled[box[1] : box[3], box[0] : box[2]] = True
        assert (mask != filled).sum() <= 12  # three in each corner, which interpolation rounds
    assert torch.cat(proposer.model.points).tolist() == grid_points(2, (32, 64)).tolist()
    assert len(proposer.model.embedded) == 1


def test_masks_of_a_tall_image_alike():
    found = plant(Sam, [(2, 4, 6, 8), (6, 2, 16, 4), (9, 0, 16, 16)]).propose(view(picture(80, 40)))
    assert sorted(found.boxes.tolist()) == [[10, 20, 30, 40], [30, 10, 40, 20]]


def test_sam2_stretches_the_image_to_the_square():
    proposer = plant(Sam2, [(4, 2, 8, 6), (0, 0, 16, 16), (8, 8, 9, 16)], max_share=0.9)
    found = proposer.propose(view(picture(48, 80)))
    assert sorted(found.boxes.tolist()) == [[20, 6, 40, 18], [40, 24, 45, 48]]
    assert torch.cat(proposer.model.points).tolist() == grid_points(2, (64, 64)).tolist()


def test_estimate_and_stability_decide_and_make_the_score():
    # the image has as many pixels as the logits, so nothing is interpolated
    logits = torch.full((3, 16, 16), -9.0)
    logits[0, 2:6, 2:6] = 9.0  # 16 of 20 pixels above -1 are above 1
    logits[0, 6, 2:6] = 0.5
    logits[1, 8:12, 8:12] = 9.0  # 16 of 16
    logits[2, 8:12, 2:6] = 0.5  # 0 of 16
    proposer = plant(Sam2, [(0, 0, 1, 1)] * 3, pred_iou=0.5, stability=0.5, **{**ALL, "nms_iou": 0.9})
    proposer.model = Planted(logits, (0.9, 0.6, 0.9))
    image = view(picture(16, 16))
    found = proposer.propose(image)
    assert found.scores.tolist() == pytest.approx([0.9 * 0.8, 0.6])
    assert found.areas.tolist() == [20, 16]
    assert found.sources == ("sam2", "sam2")
    proposer.stability = 0.81
    assert proposer.propose(image).areas.tolist() == [16]
    proposer.stability, proposer.pred_iou = 0.8, 0.61
    assert proposer.propose(image).areas.tolist() == [20]
    proposer.stability = 0.0
    assert proposer.propose(image).areas.tolist() == [20, 16]  # the third has an area of 16 too, and a score of 0
    assert proposer.propose(image).scores.tolist() == pytest.approx([0.72, 0.0])


def test_crops_give_what_they_hold_and_leave_what_they_cut():
    # every crop shows one box in its middle and one at its left edge
    proposer = plant(Sam2, [(6, 6, 10, 10), (0, 6, 3, 10), (0, 0, 16, 16)], crop_layers=1, nms_iou=0.9)
    found = proposer.propose(view(picture(96, 96)))
    # 2 x 2 crops of 64 pixels at 0 and 32: cells are 6 pixels in the image and 4 in a crop
    middle = [[left + 24, top + 24, left + 40, top + 40] for left in (0, 32) for top in (0, 32)]
    edge = [[0, top + 24, 12, top + 40] for top in (0, 32)]
    assert sorted(found.boxes.tolist()) == sorted([[36, 36, 60, 60], [0, 36, 18, 60], *middle, *edge])
    assert [pixels.shape for pixels in proposer.model.embedded] == [(1, 3, 64, 64)] * 5
    proposer.crop_layers = 0
    assert len(proposer.propose(view(picture(96, 96)))) == 2


@KINDS
def test_masks_are_those_of_transformers_own_filter(kind):
    """The library's functions for its pipeline, without suppression, on an image that is not square."""
    proposer, image = sure(kind, **ALL), picture(40, 72)
    found = proposer.propose(view(image))
    square = {"height": 64, "width": 64}
    if kind is Sam:
        processor = SamImageProcessor(size={"longest_edge": 64}, pad_size=square)
    else:
        processor = Sam2ImageProcessor(size=square)
    _, points, crops, _ = processor.generate_crop_boxes(torch.from_numpy(image).permute(2, 0, 1), 64, points_per_crop=4)
    if kind is Sam2:  # generate_crop_boxes keeps the ratio of the sides
        points = points * torch.tensor([1.0, 64 / 36])
    inputs = processor(images=crops, return_tensors="pt")
    with torch.no_grad():
        output = proposer.model(inputs["pixel_values"], input_points=points)
    sizes = [inputs["original_sizes"]] + ([inputs["reshaped_input_sizes"]] if kind is Sam else [])
    logits = processor.post_process_masks([output.pred_masks[0]], *sizes, binarize=False)[0]
    filtered = (logits, output.iou_scores[0], (40, 72), [0, 0, 72, 40], 0.5, 0.3)
    runs, estimates, _ = processor.filter_masks(*filtered)
    masks = [_rle_to_mask(run).numpy() for run in runs]
    stability = {
        (one > 0).numpy().tobytes(): ((one > 1).sum() / (one > -1).sum()).item() for one in logits.flatten(0, 1)
    }
    expected = {
        mask.tobytes(): estimate * stability[mask.tobytes()]
        for mask, estimate in zip(masks, estimates.tolist(), strict=True)
    }
    assert {mask.tobytes() for mask in found.masks()} == expected.keys()
    assert [expected[mask.tobytes()] for mask in found.masks()] == pytest.approx(found.scores.tolist(), abs=1e-5)
    assert 3 < len(found) < 48


@KINDS
def test_results_are_deterministic_and_do_not_depend_on_the_batch(kind):
    image = view(picture(52, 70))
    first = sure(kind, crop_layers=1, **ALL).propose(image)
    assert (first.size, set(first.sources)) == ((52, 70), {kind.source})
    assert len(first) > 3
    assert first.scores.tolist() == sorted(first.scores.tolist(), reverse=True)
    for points_per_batch in (5, 1, 16, 100):
        other = sure(kind, crop_layers=1, points_per_batch=points_per_batch, **ALL).propose(image)
        assert np.array_equal(other.bits, first.bits)
        assert other.scores == pytest.approx(first.scores, abs=1e-5)


@KINDS
def test_no_mask_is_no_error(kind):
    found = tiny(kind, points_per_side=2, pred_iou=1.0).propose(view(picture(30, 40)))
    assert (len(found), found.size, found.masks().shape) == (0, (30, 40), (0, 30, 40))
    found = sure(kind, stability=1.0).propose(view(picture(30, 40)))
    assert len(found) == 0


@KINDS
def test_identity_names_all_that_the_masks_depend_on(kind):
    first = tiny(kind).identity()
    assert json.loads(json.dumps(first)) == first
    changes = {"points_per_side": 3, "pred_iou": 0.1, "stability": 0.2, "crop_layers": 1, "min_area": 3}
    changes |= {"max_share": 0.3, "max_components": 4, "nms_iou": 0.4, "limit": None, "seed": 1}
    for name, value in changes.items():
        assert tiny(kind, **{name: value}).identity() != first, name
    assert tiny(kind, points_per_batch=1).identity() == first
    # heads leave no trace in the weights
    heads = {**OPTIONS[kind], "mask_decoder_config": {**OPTIONS[kind]["mask_decoder_config"], "num_attention_heads": 4}}
    other = kind(name="tiny", weights="random", options=heads).identity()
    assert other["weights"] == first["weights"]
    assert other != first


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"points_per_side": 0}, r"proposer\.points_per_side=0 must be at least 1"),
        ({"points_per_batch": 0}, r"proposer\.points_per_batch=0 must be at least 1"),
        ({"pred_iou": 1.1}, r"proposer\.pred_iou=1\.1 must be in 0 to 1"),
        ({"stability": -0.1}, r"proposer\.stability=-0\.1 must be in 0 to 1"),
        ({"crop_layers": 2}, r"proposer\.crop_layers=2 must be 0, or 1"),
        ({"nms_iou": 0}, r"proposer\.nms_iou=0 must be an IoU"),
        ({"max_share": 2}, r"proposer\.max_share=2 must be a share"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(settings, match):
    with pytest.raises(S4ecaError, match=match):
        Sam(weights="nowhere", **settings)


@pytest.mark.parametrize(("option", "kind"), [("sam", Sam), ("sam2", Sam2)])
def test_configs_build_what_they_say(option, kind):
    node = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "proposer" / f"{option}.yaml"))
    with pytest.raises(S4ecaError, match=rf"{node['name']} could not be fetched from the hub.*proposer\.weights=PATH"):
        instantiate(node, "proposer")
    node |= {"weights": "random", "options": OPTIONS[kind], "name": "tiny"}
    assert instantiate(node, "proposer").identity() == tiny(kind).identity()
