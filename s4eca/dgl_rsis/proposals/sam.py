"""SAM and SAM 2 as proposers: a grid of points, three masks each, and those that the model itself is sure of."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Sam2Model, SamModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from s4eca.dgl_rsis.base import Proposer
from s4eca.dgl_rsis.models import config_hash, load_sam
from s4eca.dgl_rsis.parts import Proposals, View
from s4eca.dgl_rsis.proposals.screens import check_screens, join, screen
from s4eca.errors import S4ecaError
from s4eca.weights import HUB

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, the ends exclusive."""

OFFSET = 1.0  # of the logits, for the stability
OVERLAP = 512 / 1500  # of the crops, as a share of the image's shorter side
EDGE = 0.02  # of a crop's longer side: who comes closer to where the crop was cut is taken for cut off
PIXELS = 2**24  # of upsampled masks at once


class Prompted(Proposer):
    """What SAM and SAM 2 share: the automatic mask generation of Kirillov et al. (ICCV 2023).

    Every point of a grid gives three masks. A mask stays if the model's own estimate of its IoU is high enough, and if
    it is stable: its pixels at a logit above 1 make up most of those at a logit above -1. Then it is upsampled to the
    image, and all of them go through `screen`, the score being estimate times stability.

    As there, a second layer of crops finds small objects; what a crop cuts off is left to the others. Crops have as
    many points as the image, so they take five times as long. Our choice: suppression compares masks instead of boxes,
    over all crops at once, and a mask counts as cut off within 2 % of a crop's side instead of 20 pixels.

    Args:
        name: hub id of the model.
        weights: `hub`, `random`, or a folder that `save_pretrained` wrote.
        seed: of random weights.
        options: fields of the model's config for random weights, those of its parts as dicts within.
        points_per_side: of the grid.
        points_per_batch: that are decoded together; the masks do not depend on it.
        pred_iou: lowest estimate of the IoU.
        stability: lowest stability.
        crop_layers: 0 for the whole image alone, 1 for 2 x 2 overlapping crops beside it.
        min_area: fewest pixels of a mask.
        max_share: largest share of the image's pixels.
        max_components: most connected parts; None for any number.
        nms_iou: largest IoU of two masks.
        limit: most masks.

    Raises:
        S4ecaError: a setting out of its range, or weights that cannot be resolved.
    """

    library: ClassVar[type[SamModel] | type[Sam2Model]]
    source: ClassVar[str]

    def __init__(
        self,
        name: str,
        weights: str = HUB,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        points_per_side: int = 32,
        points_per_batch: int = 64,
        pred_iou: float = 0.8,
        stability: float = 0.85,
        crop_layers: int = 0,
        min_area: int = 16,
        max_share: float = 0.9,
        max_components: int | None = None,
        nms_iou: float = 0.7,
        limit: int | None = 100,
    ) -> None:
        super().__init__()
        for setting, count in (("points_per_side", points_per_side), ("points_per_batch", points_per_batch)):
            if count < 1:
                raise S4ecaError(f"proposer.{setting}={count} must be at least 1.")
        for setting, share in (("pred_iou", pred_iou), ("stability", stability)):
            if not 0 <= share <= 1:
                raise S4ecaError(f"proposer.{setting}={share} must be in 0 to 1.")
        if crop_layers not in (0, 1):
            raise S4ecaError(f"proposer.crop_layers={crop_layers} must be 0, or 1 for 2 x 2 crops beside the image.")
        self.screens = check_screens(
            min_area=min_area, max_share=max_share, max_components=max_components, nms_iou=nms_iou, limit=limit
        )
        self.points_per_side, self.points_per_batch = points_per_side, points_per_batch
        self.pred_iou, self.stability, self.crop_layers = pred_iou, stability, crop_layers
        self.model, self.base = load_sam(self.library, name, weights, seed, options)
        self.side: int = self.model.config.prompt_encoder_config.image_size

    def identity(self) -> dict[str, Any]:
        """Returns the settings, and hashes of the weights and of the model's config, which tells what they do not."""
        return {
            "proposer": self.source,
            "weights": self.base.sha256,
            "config": config_hash(self.model),
            "points_per_side": self.points_per_side,
            "pred_iou": self.pred_iou,
            "stability": self.stability,
            "crop_layers": self.crop_layers,
            **self.screens,
        }

    def propose(self, view: View) -> Proposals:
        """Returns the masks of an image, the best first."""
        with torch.autocast(self.model.device.type, enabled=False):
            found = [part for box in crop_boxes(view.size, self.crop_layers) for part in self._in_crop(view, box)]
        return screen(join(found, view.size), **self.screens)

    def prepare(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """Returns the model's input (1, 3, S, S) for an image (H, W, 3) uint8, and the rows and columns it covers."""
        raise NotImplementedError

    def restore(self, logits: Tensor, covered: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Returns low-resolution logits (N, h, w) of the input as those of the image, (N, H, W)."""
        raise NotImplementedError

    @torch.no_grad()
    def _in_crop(self, view: View, box: Box) -> list[Proposals]:
        """Returns the sure masks of one crop, packed batch by batch; the crop is embedded once."""
        left, top, right, bottom = box
        size, device = (bottom - top, right - left), self.model.device
        pixels, covered = self.prepare(view.image[top:bottom, left:right])
        embeddings = self.model.get_image_embeddings(pixels.to(device))
        # as many masks at once as the larger one of the input and the crop allows
        chunk = max(1, PIXELS // max(self.side**2, size[0] * size[1]))
        found = []
        for points in grid_points(self.points_per_side, covered).split(self.points_per_batch):
            output = self.model(
                image_embeddings=embeddings, input_points=points[None, :, None].to(device), multimask_output=True
            )
            logits, quality = output.pred_masks[0].flatten(0, 1), output.iou_scores[0].flatten()
            for some in torch.nonzero(quality >= self.pred_iou).flatten().split(chunk):
                if not len(some):  # what an empty tensor is split into
                    continue
                fine = self.restore(logits[some], covered, size)
                steady = (fine > OFFSET).sum((1, 2)) / (fine > -OFFSET).sum((1, 2)).clamp(min=1)
                masks = fine > 0
                keep = (steady >= self.stability) & masks.any(2).any(1) & ~_cut_off(masks, box, view.size)
                if keep.any():
                    whole = np.zeros((int(keep.sum()), *view.size), bool)
                    whole[:, top:bottom, left:right] = masks[keep].cpu().numpy()
                    scores = (quality[some] * steady)[keep].cpu().numpy()
                    found.append(Proposals.from_masks(whole, scores, self.source))
        return found


class Sam(Prompted):
    """SAM (Kirillov et al., ICCV 2023); the image's longer side fills the input, the rest is padding."""

    library = SamModel
    source = "sam"

    def __init__(self, name: str = "facebook/sam-vit-huge", **settings: Any) -> None:
        super().__init__(name, **settings)

    def prepare(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """Resizes, normalises and pads, like `SamImageProcessor`."""
        scale = self.side / max(image.shape[:2])
        height, width = (max(1, int(length * scale + 0.5)) for length in image.shape[:2])
        resized = _normalise(image, (height, width))
        return F.pad(resized, (0, self.side - width, 0, self.side - height)), (height, width)

    def restore(self, logits: Tensor, covered: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Upsamples to the input, cuts off the padding, and resizes to the image."""
        full = F.interpolate(logits[None], (self.side, self.side), mode="bilinear", align_corners=False)
        inside = full[..., : covered[0], : covered[1]]
        return F.interpolate(inside, size, mode="bilinear", align_corners=False)[0]


class Sam2(Prompted):
    """SAM 2 on single images (Ravi et al., ICLR 2025); the image is stretched to the square input, without padding."""

    library = Sam2Model
    source = "sam2"

    def __init__(self, name: str = "facebook/sam2.1-hiera-large", **settings: Any) -> None:
        super().__init__(name, **settings)

    def prepare(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """Resizes and normalises, like `Sam2ImageProcessor`."""
        return _normalise(image, (self.side, self.side)), (self.side, self.side)

    def restore(self, logits: Tensor, covered: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Resizes to the image."""
        return F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]


def grid_points(per_side: int, covered: tuple[int, int]) -> Tensor:
    """Returns (per_side², 2) points x, y in the middle of equal cells of (rows, columns), row by row."""
    places = (torch.arange(per_side) + 0.5) / per_side
    rows, columns = torch.meshgrid(places * covered[0], places * covered[1], indexing="ij")
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


def crop_boxes(size: tuple[int, int], layers: int) -> list[Box]:
    """Returns the box of the whole image of (height, width), and with one layer those of 2 x 2 overlapping crops."""
    height, width = size
    boxes = [(0, 0, width, height)]
    if layers:
        overlap = int(OVERLAP * min(size))
        rows, columns = math.ceil((height + overlap) / 2), math.ceil((width + overlap) / 2)
        for top in (0, height - rows):
            boxes += [(left, top, left + columns, top + rows) for left in (0, width - columns)]
    return boxes


def _cut_off(masks: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Returns which masks (N, h, w) of a crop come close to where it was cut out of the image of (height, width)."""
    left, top, right, bottom = box
    margin = max(1, round(EDGE * max(masks.shape[1:])))
    sides = [
        (left > 0, masks[:, :, :margin]),
        (top > 0, masks[:, :margin]),
        (right < size[1], masks[:, :, -margin:]),
        (bottom < size[0], masks[:, -margin:]),
    ]
    near = torch.zeros(len(masks), dtype=torch.bool, device=masks.device)
    for is_cut, strip in sides:
        if is_cut:
            near |= strip.flatten(1).any(1)
    return near


def _normalise(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Resizes (H, W, 3) uint8 to (1, 3, *size), as whole numbers on the CPU, which is the same on every device."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].contiguous()
    if image.shape[:2] != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (pixels / 255 - mean) / std
