"""Resizing images and masks to the model's input size."""

from fractions import Fraction
from functools import lru_cache
from math import floor, lcm

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from s4eca.errors import S4ecaError

RESIZERS = ("pil", "torch")


def resize_image(image: np.ndarray | Image.Image, size: int, how: str = "pil") -> Tensor:
    """Resizes an image to a square, ignoring its aspect ratio as the LAVT lineage does.

    Both ways filter the columns, round to bytes, then filter the rows and round again. They differ in the weights'
    precision: PIL's have 22 bits, PyTorch's 15. Where that cannot change a rounding (see `same_as_pil`; 800 to 480
    pixels, RRSIS-D's case, is one), they are equal and `pil` uses PyTorch's faster code too. Elsewhere `torch` is one
    grey level off at a few in a thousand values of a photograph, and at up to one in ten where many sums lie exactly
    between two levels (512 or 600 to 480). It is two levels off where the first pass rounded differently in every row
    that a pixel is made of and the second one did so too, in the same direction; never more.

    Args:
        image: (H, W, 3) uint8, or a PIL image in mode RGB, which is cheaper as it need not be packed into an array.
        size: side of the result in pixels.
        how: `pil` is PIL's antialiased bilinear filter, what torchvision's `F.resize` does to a PIL image and so what
            published numbers were made with; `torch` is the same filter as torchvision applies it to a uint8 tensor.

    Returns:
        (3, size, size) uint8, contiguous, sharing no memory with `image`.
    """
    if how not in RESIZERS:
        raise S4ecaError(f"There is no resizing {how!r}: set data.resize to one of {', '.join(RESIZERS)}.")
    height, width = image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)
    if how == "torch" or same_as_pil(height, width, size):
        return _resize_with_torch(image, size)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    resized = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(np.array(resized.transpose(2, 0, 1), order="C"))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a bool mask (H, W) to `size` = (height, width) exactly as PIL's NEAREST does.

    OpenCV's INTER_NEAREST picks other source pixels and would change published numbers.
    """
    rows, columns = nearest_indices(mask.shape[0], size[0]), nearest_indices(mask.shape[1], size[1])
    # skipping whole rows is the cheaper step, and take leaves the result's rows contiguous
    return mask[rows].take(columns, axis=1)


def fit_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Brings a mask to its image's `size` = (height, width); in RRSIS-D 09976 and 15324 differ (RMSIN issue 12)."""
    return mask if mask.shape == size else resize_mask(mask, size)


@lru_cache(maxsize=256)
def nearest_indices(length: int, size: int) -> np.ndarray:
    """Returns the (size,) source positions that PIL's NEAREST picks along an axis of `length` pixels.

    PIL adds up the position step by step in floating point, so that a formula would differ at ties; resizing the
    positions themselves asks PIL.
    """
    positions = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    return np.array(positions.resize((size, 1), Image.Resampling.NEAREST))[0].astype(np.intp)


@lru_cache(maxsize=256)
def same_as_pil(height: int, width: int, size: int) -> bool:
    """Returns whether PyTorch's antialiased uint8 filter provably gives PIL's bytes at these sizes.

    The proof is about the weights (see `_rounds_alike`) and assumes that PyTorch's code rounds them to at least 14 bits
    and adds integers, as both its AVX2 and its generic kernel do. Since that is not documented, one image of noise is
    resized in both ways before the answer is yes; this happens once per process and size.
    """
    if not (_rounds_alike(height, size) and _rounds_alike(width, size)):
        return False
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR))
    return np.array_equal(_resize_with_torch(noise, size).numpy().transpose(1, 2, 0), expected)


@lru_cache(maxsize=256)
def _rounds_alike(length: int, size: int) -> bool:
    """Returns whether weights of 14 bits or more round every weighted sum of bytes as exact weights would.

    The weights of one output pixel are fractions over a common denominator D, and so are the sums. If D is odd, no sum
    comes closer than 1/(2D) to the middle between two levels, and the weights' rounding errors, together at most e,
    change nothing while e < 1/(2D). If D is even, a sum may lie in the middle, and every weight has to be exact.
    """
    scale = Fraction(length, size)
    reach = max(scale, Fraction(1))  # half the width of the triangle
    for position in range(size):
        centre = (position + Fraction(1, 2)) * scale
        pixels = range(max(0, floor(centre - reach)), min(length, floor(centre + reach) + 1))
        triangle = [1 - abs(pixel + Fraction(1, 2) - centre) / reach for pixel in pixels]
        weights = [height for height in triangle if height > 0]
        total = sum(weights)
        shares = [weight / total for weight in weights]
        inexact = sum(2**14 % share.denominator != 0 for share in shares)
        common = lcm(*(share.denominator for share in shares))
        error = Fraction(255 * inexact, 2**15)
        if inexact and (common % 2 == 0 or error * 2 * common >= 1):
            return False
    return True


def _resize_with_torch(image: np.ndarray | Image.Image, size: int) -> Tensor:
    pixels = _pixels(image).permute(2, 0, 1)[None]
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)[0, :3].contiguous()


def _pixels(image: np.ndarray | Image.Image) -> Tensor:
    """Returns (H, W, 3) uint8, or (H, W, 4) with an unused last channel: PIL's own memory, to be read only."""
    if isinstance(image, np.ndarray):
        return torch.from_numpy(np.require(image, requirements=["C", "W"]))
    import pyarrow

    try:
        flat = torch.from_dlpack(pyarrow.array(image).flatten())
    except (ValueError, TypeError, AttributeError):  # from 16 MiB on PIL may hold an image in several blocks
        return torch.from_numpy(np.array(image))
    return flat.view(image.height, image.width, 4)
