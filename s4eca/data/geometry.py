"""Segmentations as annotation files hold them: checked before their numbers reach C code, and made into runs.

A segmentation is a COCO RLE, a list of RLEs, or a list of polygons (flat lists x1, y1, x2, y2, … in pixels).
"""

import math
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from s4eca.data.rle import Size, read_rle

# Polygons that were cut into tiles reach beyond them, by as much as an object is long; COCO's tools cut off the rest.
REACH = 1.0
"""How far polygons may reach beyond their image on every side, as a share of its width and height."""

# pycocotools holds some 80 bytes for every pixel of a polygon's outline
_LONGEST_OUTLINE = 5_000_000
# A mask of another shape cannot be resized to its image. RRSIS-D has masks of 800x800 for images of 800x801.
_SIZES_AGREE = 2
_SHAPES_AGREE = 1.1


@dataclass(frozen=True, slots=True)
class Extent:
    """What a segmentation takes up, known without painting it.

    Attributes:
        size: (height, width) of its RLEs; None where it has none.
        box: left, top, right and bottom of its polygons; None where it has none.
    """

    size: Size | None
    box: tuple[float, float, float, float] | None


def check_segmentation(segmentation: Any) -> Extent:
    """Checks all of a segmentation but whether it fits its image.

    Raises:
        ValueError: it is none that can be painted; half a sentence says why.
    """
    parts = _parts(segmentation)
    rles, polygons = _split(parts)
    return _joined([Extent(read_rle(part)[0], None) for part in rles] + [_polygon(part) for part in polygons])


def check_fit(extents: Iterable[Extent], size: Size | None) -> None:
    """Checks segmentations that make up one mask against each other and their image.

    Args:
        extents: what `check_segmentation` returned for each.
        size: (height, width) of the image, None where it is not known.

    Raises:
        ValueError: they differ in size or do not fit the image; half a sentence says how.
    """
    extent = _joined(extents)
    if size is None:
        return
    height, width = size
    if extent.size is not None and not same_shape(extent.size, size):
        raise ValueError(f"it is {extent.size[0]}x{extent.size[1]} and its image {height}x{width} (height x width)")
    if extent.box is not None:
        if extent.size not in (None, size):
            raise ValueError("its regions differ in size")
        left, top, right, bottom = extent.box
        far = left < -REACH * width or top < -REACH * height
        far = far or right > (1 + REACH) * width or bottom > (1 + REACH) * height
        if far or left > width or top > height or right < 0 or bottom < 0:
            raise ValueError(
                f"its polygons reach from {left:g}, {top:g} to {right:g}, {bottom:g} in an image of {width} x {height}"
                " (x, y)"
            )


def same_shape(first: Size, second: Size) -> bool:
    """Returns whether a mask of one size can be resized to an image of the other; a turned one cannot."""
    if max(abs(first[0] - second[0]), abs(first[1] - second[1])) <= _SIZES_AGREE:
        return True
    high, wide = first[0] * second[1], first[1] * second[0]
    return max(high, wide) <= _SHAPES_AGREE * min(high, wide)


def read_regions(segmentation: Any, size: Size | None) -> list[tuple[Size, np.ndarray]]:
    """Returns (height, width) of each region of a segmentation and its runs, see `read_rle`.

    Args:
        segmentation: see above.
        size: (height, width) of the image; polygons need it.

    Raises:
        ValueError: it cannot be painted or does not fit the image; half a sentence says why.
    """
    parts = _parts(segmentation)
    rles, polygons = _split(parts)
    regions = [read_rle(part) for part in rles]
    boxes = [_polygon(part) for part in polygons]
    check_fit([*(Extent(region[0], None) for region in regions), *boxes], size)
    return regions + [_rasterise(part, size) for part in polygons]


def _parts(segmentation: Any) -> Sequence[Any]:
    parts = [segmentation] if isinstance(segmentation, dict) else segmentation
    if not isinstance(parts, list | tuple):
        raise ValueError(f"it is neither an RLE nor a list of RLEs or polygons but {reprlib.repr(segmentation)}")
    if not parts:
        raise ValueError("it holds no region")
    return parts


def _split(parts: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Returns RLEs and polygons apart."""
    rles = [part for part in parts if isinstance(part, dict)]
    polygons = [part for part in parts if isinstance(part, list | tuple)]
    if len(rles) + len(polygons) < len(parts):
        strange = next(part for part in parts if not isinstance(part, dict | list | tuple))
        hint = "; a polygon is a list of numbers inside the list" if isinstance(strange, int | float) else ""
        raise ValueError(f"it holds {reprlib.repr(strange)} where an RLE or a polygon is expected{hint}")
    return rles, polygons


def _polygon(part: Sequence[Any]) -> Extent:
    """Returns the extent of a polygon; raises `ValueError` unless it is finite x, y of three points or more."""
    if not part:
        raise ValueError("a polygon is empty")
    if set(map(type, part)) - {int, float}:
        strange = next(value for value in part if type(value) not in (int, float))
        raise ValueError(f"a polygon holds {reprlib.repr(strange)} where a number is expected")
    if len(part) % 2:
        raise ValueError(f"a polygon has an odd count of numbers, {len(part)}, where x and y alternate")
    if len(part) < 6:
        hint = "; is it a box?" if len(part) == 4 else ""
        raise ValueError(f"a polygon has {len(part)} numbers where three points or more are expected{hint}")
    xs, ys = part[::2], part[1::2]
    try:
        finite = math.isfinite(sum(part))  # a number that is not finite stays so in any sum
        box = (float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys)))
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError("a polygon holds a number that is not finite, such as NaN or Infinity")
    return Extent(None, box)


def _joined(extents: Iterable[Extent]) -> Extent:
    """Returns what several take up together; raises `ValueError` where their RLEs differ in size."""
    extents = list(extents)
    if len(extents) == 1:
        return extents[0]
    sizes = {extent.size for extent in extents if extent.size is not None}
    if len(sizes) > 1:
        raise ValueError("its regions differ in size")
    boxes = [extent.box for extent in extents if extent.box is not None]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True) if boxes else ((), (), (), ())
    box = (min(lefts), min(tops), max(rights), max(bottoms)) if boxes else None
    return Extent(next(iter(sizes), None), box)


def _rasterise(part: Sequence[float], size: Size | None) -> tuple[Size, np.ndarray]:
    """Returns the runs of a polygon that fits its image."""
    if size is None:
        raise ValueError("a polygon needs the image's height and width")
    points = np.array(part, dtype=np.float64)
    steps = np.abs(np.diff(points.reshape(-1, 2), axis=0, append=points[None, :2]))
    if steps.max(axis=1).sum() > _LONGEST_OUTLINE:
        raise ValueError(f"a polygon's outline is longer than {_LONGEST_OUTLINE:,} pixels")
    return read_rle(coco.frPyObjects([points.tolist()], *size)[0])
