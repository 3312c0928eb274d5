"""Which part of an image a region is looked at in: crops with context, brought to the input size of a network."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CROPS = ("adaptive", "fixed", "tight")


def crop_boxes(
    boxes: np.ndarray,
    size: tuple[int, int],
    kind: str = "adaptive",
    rho0: float = 0.5,
    area0: float = 1024.0,
    rho_min: float = 0.1,
    rho_max: float = 1.0,
    min_side: int = 32,
) -> np.ndarray:
    """Returns the crop (K, 4) int32 around each box: x0, y0, x1, y1 in pixels, the ends exclusive.

    With w and h of a box, the context added on each side is `rho * max(w, h)`, and a crop is a square of side
    `max(min_side, max(w, h) * (1 + 2 rho))` around the box. One that reaches over the image's edge is shifted back, so
    that an object at the edge keeps its context. A square larger than the image's short side is impossible: then the
    context shrinks to that side, and a box that is still longer gets a crop of its own length by the whole short side,
    the one case (with `tight`) that is no square. A crop always lies in the image and contains its box.

    "Context-aware cropping" is the paper's (Xu et al., arXiv 2509.00598, abstract); the formulas are a reconstruction.

    Args:
        boxes: (K, 4), the ends exclusive, inside the image, none of them empty.
        size: (H, W) of the image.
        kind: `adaptive`, where `rho = clip(rho0 * sqrt(area0 / (w * h)), rho_min, rho_max)` gives small objects more
            context; `fixed`, where `rho = rho0`; `tight`, the box itself whatever its shape.
        rho0: context on each side, in parts of the longer side of the box.
        area0: area of the box in pixels at which `adaptive` takes `rho0`.
        rho_min: least context of `adaptive`.
        rho_max: most context of `adaptive`.
        min_side: least side of a square, in pixels.
    """
    boxes = np.asarray(boxes, np.int64).reshape(-1, 4)
    if kind == "tight":
        return boxes.astype(np.int32)
    if kind not in CROPS:
        raise ValueError(f"no crop {kind}")
    start, end = boxes[:, :2], boxes[:, 2:]
    extent = end - start
    longer = extent.max(axis=1)
    rho = np.full(len(boxes), rho0, np.float64)
    if kind == "adaptive":
        rho = np.clip(rho0 * np.sqrt(area0 / extent.prod(axis=1)), rho_min, rho_max)
    side = np.maximum(min_side, np.rint(longer * (1 + 2 * rho))).astype(np.int64)
    limits = np.array([size[1], size[0]], np.int64)
    crop = np.maximum(extent, np.minimum(side, limits.min())[:, None])
    corner = np.clip((start + end - crop) // 2, 0, limits - crop)
    return np.concatenate([corner, corner + crop], axis=1).astype(np.int32)


def crop_and_resize(
    image: Tensor,
    boxes: np.ndarray,
    side: int,
    masks: Tensor | None = None,
    fill: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
) -> Tensor:
    """Cuts boxes out of an image and resizes each to a square (K, 3, side, side) in [0, 1].

    As CLIP's own preprocessing it resizes by antialiased bicubic interpolation and clips what overshoots. It differs
    in three ways: the crop is stretched to the square as a whole where CLIP cuts out the centre, no value is rounded
    to 8 bits on the way, and rows and columns are not clipped separately.

    Args:
        image: (3, H, W) float in [0, 1].
        boxes: (K, 4), the ends exclusive.
        side: of the result, in pixels.
        masks: (K, H, W) bool; outside its mask a crop is filled before it is resized.
        fill: colour (3,) that it is filled with.
    """
    colour = torch.as_tensor(fill, dtype=image.dtype, device=image.device).reshape(3, 1, 1)
    crops = image.new_empty(len(boxes), 3, side, side)
    for place, (x0, y0, x1, y1) in enumerate(np.asarray(boxes).tolist()):
        patch = image[:, y0:y1, x0:x1]
        if masks is not None:
            patch = torch.where(masks[place, y0:y1, x0:x1], patch, colour)
        crops[place] = F.interpolate(patch[None], (side, side), mode="bicubic", align_corners=False, antialias=True)[0]
    return crops.clamp_(0, 1)
