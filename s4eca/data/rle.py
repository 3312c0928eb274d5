"""COCO's regions, run-length encoded or polygons, and how they become pixels."""

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco


def read_region(part: Any, size: tuple[int, int] | None) -> tuple[tuple[int, int], np.ndarray]:
    """Returns (height, width) of a region and its runs down the columns, background first; checks that they fit."""
    rle = part if isinstance(part, dict) else _polygon(part, size)
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    if isinstance(counts, list):
        runs = np.asarray(counts)
        if runs.dtype.kind not in "iu" or runs.ndim != 1:
            raise ValueError("its counts are not whole numbers")
    else:
        runs = _runs(counts.encode() if isinstance(counts, str) else counts)
    if runs.min() < 0:
        raise ValueError("its counts hold a negative run")
    if height * width < 1 or runs.sum() != height * width:
        raise ValueError(f"its runs do not add up to {height}x{width} pixels")
    return (height, width), runs


def paint(size: tuple[int, int], runs: np.ndarray) -> np.ndarray:
    """Returns runs as a bool array (H, W).

    pycocotools paints pixel by pixel, and leaves what it does not reach uninitialised; repeating the runs in numpy is
    several times faster.
    """
    values = np.zeros(len(runs), dtype=np.uint8)
    values[1::2] = 1
    return cv2.transpose(np.repeat(values, runs).reshape(size[::-1])).view(bool)


def _polygon(part: Any, size: tuple[int, int] | None) -> dict[str, Any]:
    """Returns a polygon as compressed RLE."""
    if size is None:
        raise ValueError("a polygon needs the image's height and width")
    if len(part) < 6 or len(part) % 2:
        raise ValueError("a polygon needs at least three points")
    return coco.frPyObjects([[float(value) for value in part]], *size)[0]


def _runs(counts: bytes) -> np.ndarray:
    """Returns the run lengths (int64) that compressed counts describe.

    The code is COCO's: five bits a character, lowest first; the sixth says that more follow; the last fifth bit is
    the sign; from the fourth run on, a run is stored as the difference to the one two before it.
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise ValueError("its counts are not a complete RLE")
    ends = np.flatnonzero(codes & 0x20 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise ValueError("its counts hold a run that is too long")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 0x1F) << shifts, starts)
    runs -= np.where(codes[ends] & 0x10, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
