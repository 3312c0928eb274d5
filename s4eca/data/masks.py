"""Mask sources: where the region of a reference is stored and how it is decoded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from s4eca.data.references import MaskSource
from s4eca.errors import S4ecaError

# These hold more than 8 bits; converting them to "L" would clip, so they are compared as they are.
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "F")


@dataclass(frozen=True)
class RleMask:
    """The union of COCO regions, as REFER's `instances.json` holds them.

    Attributes:
        rles: RLE dicts (`size` and `counts`; counts as str, bytes or a list of run lengths) or polygons
            (flat lists x1, y1, x2, y2, … in pixels). RRSIS-D has a list of one RLE dict.
        size: (height, width) of the image; only polygons need it.
        id: the reference, for messages.
        path: the annotation file, for messages.
    """

    rles: Sequence[Any]
    size: tuple[int, int] | None = None
    id: str = ""
    path: Path | None = None

    def decode(self) -> np.ndarray:
        """Returns the mask as a bool array (H, W).

        RMSIN sums the layers and keeps what equals 1, which would lose the pixels where two regions overlap;
        here a pixel belongs to the mask when any region covers it.

        Raises:
            S4ecaError: the annotation cannot be decoded.
        """
        try:
            regions = [_compressed(part, self.size) for part in self.rles]
            if not regions:
                raise ValueError("it holds no region")
            if any(region["size"] != regions[0]["size"] for region in regions):
                raise ValueError("its regions differ in size")
            layers = coco.decode(regions)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise S4ecaError(
                f"The mask of reference {self.id} in {self.path} cannot be decoded ({error}):"
                " download the annotation file again or mend this entry."
            ) from error
        return layers.any(axis=2)


def _compressed(part: Any, size: tuple[int, int] | None) -> dict[str, Any]:
    """Returns one region as the compressed RLE that pycocotools decodes, its runs checked against its size."""
    if isinstance(part, dict):
        height, width = (int(side) for side in part["size"])
        counts = part["counts"]
        if isinstance(counts, list):
            rle = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        else:
            rle = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
        if _total_run(rle["counts"]) != height * width:
            raise ValueError(f"its runs do not add up to {height}x{width} pixels")
        return rle
    if size is None:
        raise ValueError("a polygon needs the image's height and width")
    if len(part) < 6 or len(part) % 2:
        raise ValueError("a polygon needs at least three points")
    return coco.frPyObjects([[float(value) for value in part]], *size)[0]


def _total_run(counts: bytes) -> int:
    """Returns the number of pixels that compressed counts describe.

    pycocotools leaves the rest of the mask uninitialised when the runs end early, so a damaged string must not reach
    it. The code is COCO's: five bits a character, lowest first; the sixth says that more follow; the last fifth bit is
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
    if runs.min() < 0:
        raise ValueError("its counts hold a negative run")
    return int(runs.sum())


@dataclass(frozen=True)
class FileMask:
    """A mask stored as a grey image, as RefSegRS has them (8-bit PackBits TIFF, 0 and 255).

    Attributes:
        path: the file.
        threshold: a pixel belongs to the mask when its grey value is above it; 50 is the LAVT lineage's value.
        id: the reference, for messages.
    """

    path: Path
    threshold: int = 50
    id: str = ""

    def decode(self) -> np.ndarray:
        """Returns the mask as a bool array (H, W); raises `S4ecaError` where the file cannot be read."""
        return self._grey() > self.threshold

    def _grey(self) -> np.ndarray:
        try:
            with Image.open(self.path) as image:
                return np.asarray(image if image.mode in _DEEP_MODES else image.convert("L"))
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            grey = _read_with_opencv(self.path)
            if grey is None:
                raise S4ecaError(
                    f"The mask of reference {self.id} in {self.path} cannot be decoded ({error}):"
                    " unpack the dataset's archive again."
                ) from error
            return grey


def _read_with_opencv(path: Path) -> np.ndarray | None:
    """Reads a grey image at any depth; some Pillow builds lack the TIFF compression that OpenCV brings along."""
    import cv2

    try:
        return cv2.imread(str(path), cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None


def mask_fingerprint(mask: MaskSource) -> str:
    """Returns a text that changes when the mask's annotation does, without decoding it where that is possible.

    An RLE is its own text; a file stands for itself by name and size in bytes; any other source is decoded.
    """
    if isinstance(mask, RleMask):
        return json.dumps([list(mask.rles), mask.size], default=lambda value: value.decode())
    if isinstance(mask, FileMask):
        return f"{mask.path.name}:{mask.path.stat().st_size}:{mask.threshold}"
    array = mask.decode()
    return f"{array.shape}:{np.packbits(array).tobytes().hex()}"
