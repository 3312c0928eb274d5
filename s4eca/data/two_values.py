"""Masks in image files, read from the values that are there: which pixels are the object."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from tifffile import PHOTOMETRIC

from s4eca.data.file_kinds import RefusedError
from s4eca.data.rasters import COLOURS, Raster, read
from s4eca.wording import first

SOFT_THRESHOLD = 50
"""Grey above it is the object in a mask with soft edges: the LAVT lineage's value."""

_BLACK, _WHITE = 32, 224  # below the one and from the other on, grey passes for noise of black and white
_EDGE = 5  # pixels; greys that fill a square of this side are no edge
_FEW = 32  # fewer values than this may be classes; compression leaves more of them
_WHOLE = (1, 255, 65535)  # an image of nothing but this is all object


@dataclass(frozen=True, eq=False)
class Planes:
    """A mask file, decoded.

    Attributes:
        colour: (H, W) grey or (H, W, 3).
        alpha: (H, W), None where the file has none.
        indices: (H, W), the entries of a palette that `colour` was looked up in.
    """

    colour: np.ndarray
    alpha: np.ndarray | None = None
    indices: np.ndarray | None = None


def read_planes(path: Path) -> Planes:
    """Reads a mask file; raises `RefusedError` or one of `UNREADABLE`."""
    return read(path, _from_pillow, _from_raster)


def read_grey(path: Path) -> np.ndarray:
    """Reads a mask file as grey (H, W); raises `RefusedError` or one of `UNREADABLE`."""

    def brightest(raster: Raster) -> np.ndarray:
        bands = raster.values.shape[2] - raster.alpha
        return raster.values[..., :bands].max(axis=2)

    return read(path, lambda image: np.asarray(image.convert("L")), brightest)


def find_object(planes: Planes) -> np.ndarray:
    """Returns the pixels (H, W) bool that are the object.

    - Of two values the larger one is the object, whatever its number; of two colours it is the one that is not black.
      In a palette the colours decide, and where neither is black the indices.
    - One value alone: 0 is an empty mask, 1, 255 and 65535 are a whole one.
    - Transparent pixels are background. Where all others have one colour they are the object; else colours decide.
    - A file that calls its zeros white is refused.
    - Black and white with soft edges (anti-aliasing, JPEG) are split at `SOFT_THRESHOLD`, see `_is_soft`.

    Raises:
        RefusedError: anything else, with the values that are there.
    """
    colour, alpha = planes.colour, planes.alpha
    if alpha is not None and alpha.min() != alpha.max():
        seen = alpha > 0
        shown = colour[seen]
        if (shown == shown[0]).all():
            return _split_grey(alpha)
        colour = np.where(seen if colour.ndim == 2 else seen[..., None], colour, 0)
    elif alpha is not None and not alpha.any() and (colour == colour[0, 0]).all():
        return np.zeros(alpha.shape, bool)
    if colour.ndim == 3 and all(np.array_equal(colour[..., 0], colour[..., band]) for band in (1, 2)):
        colour = colour[..., 0]
    indices = planes.indices
    if indices is not None and (colour == colour[0, 0]).all():
        plain = colour.ndim == 2 and colour[0, 0] in (0, 255)
        if not plain or (indices != indices[0, 0]).any():  # a palette without colours, or one colour that says nothing
            return _split_grey(indices)
    return _split_grey(colour) if colour.ndim == 2 else _split_colours(colour, indices)


def values_seen(path: Path) -> str:
    """Returns the values of a mask file in words, such as `the values 0, 1`."""
    planes = read_planes(path)
    return _values(planes.colour if planes.indices is None else planes.indices)


def _from_pillow(image: Image.Image) -> Planes:
    if isinstance(image, TiffImageFile) and image.tag_v2.get(COLOURS) == PHOTOMETRIC.MINISWHITE:
        raise RefusedError(
            "it calls its zeros white, and tools differ in which of the two they mean to be the object",
            "write it with zero as black, or set data.threshold=0 to take what is shown in white",
        )
    if image.mode in ("1", "L"):
        return Planes(np.asarray(image))
    bands = np.asarray(image.convert("RGBA"))
    indices = np.asarray(image) if image.mode == "P" else None
    return Planes(bands[..., :3], bands[..., 3], indices)


def _from_raster(raster: Raster) -> Planes:
    bands = raster.values.shape[2]
    if bands > 4 or (bands == 2 and not raster.alpha):
        raise RefusedError(f"it is {raster.what}", "write the mask into a file of one band")
    colour = raster.values[..., :3] if bands > 2 else raster.values[..., 0]
    return Planes(colour, raster.values[..., -1] if raster.alpha else None)


def _split_grey(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.bool_:
        return values
    low, high = values.min(), values.max()
    if not (low >= 0 and np.isfinite(high)):  # what is not a number is in no order
        raise _refused(values, ", where numbers from 0 up are expected")
    above = values == high
    if low == high:
        if low not in (0, *_WHOLE):
            raise _refused(values, " alone, which may be object or background")
        return above if low else ~above
    if np.count_nonzero(above) + np.count_nonzero(values == low) == values.size:
        return above
    if values.dtype == np.uint8 and _is_soft(values):
        return values > SOFT_THRESHOLD
    raise _refused(values, ", where two are expected")


def _split_colours(colours: np.ndarray, indices: np.ndarray | None) -> np.ndarray:
    """Splits (H, W, 3) that are not all grey."""
    corner = colours[0, 0]
    other = (colours != corner).any(axis=2)
    second = colours[other][:1]
    if (colours[other] == second).all():
        if not corner.any():
            return other
        if len(second) and not second.any():
            return ~other
        if indices is not None:
            return _split_grey(indices)
    raise _refused(colours, ", where one on black is expected")


def _is_soft(values: np.ndarray) -> bool:
    """Returns whether grey (H, W) uint8 is black and white with soft edges, and no map of classes or probabilities.

    Black and white are both there; greys between them are nowhere `_EDGE` pixels wide; and where there are few values,
    no third one fills a square of three pixels.
    """
    counts = np.bincount(values.ravel(), minlength=256)
    black, white = int(counts[:_BLACK].argmax()), _WHITE + int(counts[_WHITE:].argmax())
    if not counts[black] or not counts[white]:
        return False
    between = ((values >= _BLACK) & (values < _WHITE)).astype(np.uint8)
    if cv2.erode(between, np.ones((_EDGE, _EDGE), np.uint8)).any():
        return False
    if np.count_nonzero(counts) > _FEW:
        return True
    square = np.ones((3, 3), np.uint8)
    flat = cv2.erode(values, square) == cv2.dilate(values, square)
    return not (flat & (values != black) & (values != white)).any()


def _refused(values: np.ndarray, problem: str) -> RefusedError:
    return RefusedError(
        f"it holds {_values(values)}{problem}",
        "write it with two values, as 0 and 255, or set data.threshold=N to take what is above N",
    )


def _values(values: np.ndarray, limit: int = 6) -> str:
    """Returns the different values (H, W), or colours (H, W, 3), in words."""
    if values.ndim == 3:
        what, found = "colour", [str(tuple(row.tolist())) for row in np.unique(values.reshape(-1, 3), axis=0)]
    else:
        what, found = "value", [f"{value:g}" for value in np.unique(values).tolist()]
    return f"the {what}{'' if len(found) == 1 else 's'} {first(found, limit)}"
