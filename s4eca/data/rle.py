"""COCO's run-length code: what a region in it has to be, and how it becomes pixels."""

import reprlib
from typing import Any

import cv2
import numpy as np

from s4eca.wording import indefinite

Size = tuple[int, int]

# Pillow opens no larger image, and a mask is as large as its image
MAX_PIXELS = 178_956_970

_CHARACTERS = bytes(range(48, 112))
# the five bits of a character, and the same with their sign, as in the last character of a number
_LOW = (np.arange(256) - 48) & 31
_SIGNED = (_LOW ^ 16) - 16


def check_size(size: Any) -> Size:
    """Returns (height, width) in pixels; raises `ValueError` unless they are whole, positive and not too many."""
    sides = tuple(size) if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"its size is not [height, width] in whole pixels but {reprlib.repr(size)}")
    if sides[0] * sides[1] > MAX_PIXELS:
        raise ValueError(f"its size {reprlib.repr(size)} is above the {MAX_PIXELS:,} pixels that an image may have")
    return sides


def check_rle(part: Any) -> Size:
    """Checks all of a region but compressed counts, and returns its (height, width).

    Args:
        part: `size` and `counts`: compressed, as str or bytes, or a list of run lengths.

    Raises:
        ValueError: it is anything else; half a sentence says what is wrong.
    """
    if not isinstance(part, dict):
        raise ValueError(f"it is {indefinite(type(part).__name__)} and no object with size and counts")
    for key in ("size", "counts"):
        if key not in part:
            raise ValueError(f"it has no {key}")
    size, counts = check_size(part["size"]), part["counts"]
    if isinstance(counts, list | tuple):
        if set(map(type, counts)) - {int} or min(counts, default=0) < 0:
            raise ValueError("its counts are not whole numbers of pixels")
        _check_sum(sum(counts), size)  # in Python's numbers, which do not overflow
    elif not isinstance(counts, str | bytes):
        raise ValueError("its counts are neither text nor a list")
    return size


def read_rle(part: Any) -> tuple[Size, np.ndarray]:
    """Returns (height, width) of a region and its runs (int64) down the columns, background first.

    Raises:
        ValueError: as `check_rle`, or the compressed counts are damaged or do not add up to the size.
    """
    size, counts = check_rle(part), part["counts"]
    if not isinstance(counts, str | bytes):
        return size, np.array(counts, dtype=np.int64)
    runs = _runs(counts)
    if runs.min() < 0:
        raise ValueError("its counts hold a negative run")
    # where no run is longer than the image, the sum cannot overflow
    _check_sum(runs.sum() if runs.max() <= size[0] * size[1] else runs.max(), size)
    return size, runs


def paint(size: Size, runs: np.ndarray) -> np.ndarray:
    """Returns runs as a bool array (H, W).

    pycocotools paints pixel by pixel, and leaves what it does not reach uninitialised; repeating the runs in numpy is
    several times faster.
    """
    values = np.zeros(len(runs), dtype=np.uint8)
    values[1::2] = 1
    return cv2.transpose(np.repeat(values, runs).reshape(size[::-1])).view(bool)


def _check_sum(pixels: int, size: Size) -> None:
    if pixels != size[0] * size[1]:
        raise ValueError(f"its counts do not add up to {size[0]}x{size[1]} pixels")


def _runs(counts: str | bytes) -> np.ndarray:
    """Returns the run lengths (int64) that compressed counts describe.

    The code is COCO's: five bits a character, lowest first; the sixth says that more follow; the last fifth bit is
    the sign; from the fourth run on, a run is stored as the difference to the one two before it.
    """
    text = counts.encode() if isinstance(counts, str) else counts
    if not text or text.translate(None, _CHARACTERS) or text[-1] >= 80:
        raise ValueError("its counts are not a complete RLE")
    codes = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(codes < 80)
    runs = _SIGNED.take(codes.take(ends))
    if len(ends) < len(codes):
        _add_low_digits(runs, codes, ends)
    runs[1::2].cumsum(out=runs[1::2])
    runs[2::2].cumsum(out=runs[2::2])
    return runs


def _add_low_digits(runs: np.ndarray, codes: np.ndarray, ends: np.ndarray) -> None:
    """Puts what comes before the last character into the numbers that have several; most have one."""
    before = ends.copy()
    before[1:] -= ends[:-1] + 1
    most = int(before.max())
    if most > 7:
        raise ValueError("its counts hold a run that is too long")
    longer = np.flatnonzero(before)
    for digit in range(1, most + 1):  # from the last to the first
        if digit > 1:
            longer = longer[before[longer] >= digit]
        runs[longer] = (runs[longer] << 5) | _LOW.take(codes.take(ends[longer] - digit))
