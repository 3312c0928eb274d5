"""Resizing images and masks to the model's input size."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from s4eca.errors import S4ecaError

RESIZERS = ("pil", "torch")


def resize_image(array: np.ndarray, size: int, how: str = "pil") -> Tensor:
    """Resizes an image to a square, ignoring its aspect ratio as the LAVT lineage does.

    Args:
        array: (H, W, 3) uint8.
        size: side of the result in pixels.
        how: `pil` is PIL's antialiased bilinear filter, what torchvision's `F.resize` does to a PIL image and so what
            published numbers were made with; `torch` is the same filter in PyTorch's integer arithmetic (what
            torchvision does to a uint8 tensor), faster and within one grey level, at rare pixels two.

    Returns:
        (3, size, size) uint8.
    """
    if how == "pil":
        resized = Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()
    if how == "torch":
        tensor = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)
        return F.interpolate(tensor[None], (size, size), mode="bilinear", antialias=True)[0].contiguous()
    raise S4ecaError(f"There is no resizing {how!r}: set data.resize to one of {', '.join(RESIZERS)}.")


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a bool mask (H, W) to `size` = (height, width) exactly as PIL's NEAREST does.

    OpenCV's INTER_NEAREST picks other source pixels and would change published numbers.
    """
    height, width = size
    image = Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    return np.array(image).astype(bool)
