"""Mask sources: where the region of a reference is stored and how it is decoded."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from s4eca.data.defects import DefectError
from s4eca.data.file_kinds import explained
from s4eca.data.geometry import read_regions
from s4eca.data.images import image_size
from s4eca.data.references import MaskSource
from s4eca.data.rle import paint
from s4eca.data.two_values import SOFT_THRESHOLD, find_object, read_grey, read_planes, values_seen
from s4eca.errors import S4ecaError
from s4eca.text import unmark


@dataclass(frozen=True, slots=True)
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
        """Returns the mask as a bool array (H, W), its rows contiguous.

        RMSIN sums the layers and keeps what equals 1, which would lose the pixels where two regions overlap;
        here a pixel belongs to the mask when any region covers it.

        Raises:
            S4ecaError: the annotation cannot be decoded.
        """
        with self._explained():
            regions = read_regions(self.rles, self.size)
            mask = paint(*regions[0])
            for region in regions[1:]:
                mask |= paint(*region)
        return mask

    def covers(self) -> bool:
        """Returns whether the mask has any pixel, without painting it; raises as `decode`."""
        with self._explained():
            return any(runs[1::2].any() for _, runs in read_regions(self.rles, self.size))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise unusable(self.id, self.path, error) from error


def unusable(id: str, path: Path | None, error: ValueError) -> DefectError:
    """Returns what to raise for a mask in an annotation file that `s4eca.data.geometry` has refused."""
    return DefectError(
        f"The mask of reference {id} in {path} cannot be decoded ({error}):"
        " mend this entry or download the annotation file again.",
        "damaged-mask",
        id,
    )


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """A JSON file whose masks are read when they are asked for.

    Attributes:
        path: the file.
        stamp: its size in bytes and its time of change in nanoseconds, when it was read.
    """

    path: Path
    stamp: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> "AnnotationFile":
        """Returns the file as it is now; raises `S4ecaError` where it is missing or cannot be reached."""
        try:
            status = path.stat()
        except OSError as error:
            raise S4ecaError(f"{path} cannot be read ({error.strerror}): make it readable.") from error
        return cls(path, (status.st_size, status.st_mtime_ns))

    def read(self, offset: int, length: int) -> bytes:
        """Returns a piece of the file; raises `S4ecaError` where the file is gone or another."""
        try:
            with self.path.open("rb", buffering=0) as stream:
                status = os.fstat(stream.fileno())
                stream.seek(offset)
                piece = stream.read(length)
        except OSError as error:
            raise S4ecaError(f"{self.path} cannot be read any more ({error}): put the file back.") from error
        if (status.st_size, status.st_mtime_ns) != self.stamp or len(piece) != length:
            raise S4ecaError(f"{self.path} has changed since it was read: start again with the new file.")
        return piece

    def read_json(self, offset: int, length: int) -> Any:
        """Returns the JSON object in a piece of the file, see `read`."""
        return json.loads(unmark(self.read(offset, length).decode()))


@dataclass(frozen=True, slots=True)
class StoredMask:
    """The union of COCO regions that stay in their file until they are asked for.

    RRSIS-D's masks take 50 MB as text, and every loader process would come to hold its own copy of them.

    Attributes:
        file: where the annotations are.
        spans: offset and length in bytes of each JSON object that holds a `segmentation`, one after the other.
        size: (height, width) of the image; only polygons need it.
        id: the reference, for messages.
    """

    file: AnnotationFile
    spans: tuple[int, ...]
    size: tuple[int, int] | None = None
    id: str = ""

    def load(self) -> RleMask:
        """Returns the same mask in memory; raises `S4ecaError` where the file is gone or another."""
        parts: list[Any] = []
        for offset, length in zip(self.spans[::2], self.spans[1::2], strict=True):
            segmentation = self.file.read_json(offset, length)["segmentation"]
            parts += segmentation if isinstance(segmentation, list) else [segmentation]
        return RleMask(parts, self.size, self.id, self.file.path)

    def decode(self) -> np.ndarray:
        """Returns the mask as a bool array (H, W), see `RleMask.decode`."""
        return self.load().decode()

    def covers(self) -> bool:
        """Returns whether the mask has any pixel, see `RleMask.covers`."""
        return self.load().covers()


@dataclass(frozen=True, slots=True)
class FileMask:
    """A mask stored as an image, as RefSegRS has them (8-bit PackBits TIFF, 0 and 255).

    Attributes:
        path: the file.
        threshold: a pixel belongs to the mask when its grey value is above it; None goes by the values that are there,
            see `find_object`.
        id: the reference, for messages.
    """

    path: Path
    threshold: int | None = None
    id: str = ""

    def decode(self) -> np.ndarray:
        """Returns the mask as a bool array (H, W).

        Raises:
            S4ecaError: the file cannot be read, or its values do not tell the object from the background.
        """
        with explained(f"The mask of reference {self.id} in {self.path} cannot be decoded", self.path):
            if self.threshold is None:
                return find_object(read_planes(self.path))
            grey = read_grey(self.path)
        return grey > self.threshold

    def seen(self) -> str:
        """Returns what is in the file, for messages; raises as `decode`."""
        with explained(f"The mask of reference {self.id} in {self.path} cannot be decoded", self.path):
            above = "" if self.threshold is None else f" and the threshold is {self.threshold}"
            return f"{self.path}, which holds {values_seen(self.path)}{above}"


@dataclass(frozen=True, slots=True)
class EmptyMask:
    """The mask of an expression that names nothing in its image on purpose.

    Attributes:
        image: the image file, which is opened for its size where `size` is not known.
        size: (height, width) of the image.
        id: the reference, for messages.
    """

    image: Path
    size: tuple[int, int] | None = None
    id: str = ""

    def decode(self) -> np.ndarray:
        """Returns zeros (H, W) of the image's size; raises `S4ecaError` where that cannot be read."""
        return np.zeros(self.size or image_size(self.image, self.id), dtype=bool)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask (H, W) as compressed COCO RLE, `{"size": [H, W], "counts": str}`."""
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def mask_fingerprint(mask: MaskSource) -> str:
    """Returns a text that changes when the mask's annotation does, without decoding it where that is possible.

    An RLE is its own text; a file stands for itself by name and size in bytes; an empty mask is its size; any other
    source is decoded.
    """
    if isinstance(mask, StoredMask):
        mask = mask.load()
    if isinstance(mask, RleMask):
        return json.dumps([list(mask.rles), mask.size], sort_keys=True, default=lambda value: value.decode())
    if isinstance(mask, FileMask):
        threshold = SOFT_THRESHOLD if mask.threshold is None else mask.threshold  # as runs of earlier versions have it
        return f"{mask.path.name}:{mask.path.stat().st_size}:{threshold}"
    if isinstance(mask, EmptyMask):
        return f"no target: {mask.size}"
    array = mask.decode()
    return f"{array.shape}:{np.packbits(array).tobytes().hex()}"
