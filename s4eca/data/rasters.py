"""Pixel files by what their own headers say: depth, bands and type of the samples, not the mode of a decoder."""

import io
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from s4eca.data.file_kinds import UNREADABLE, RefusedError, is_tiff
from s4eca.data.rle import MAX_PIXELS

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says of damaged files is in our sentences

T = TypeVar("T")

DEPTHS = range(8, 17)
"""Bits per sample that images may be read with."""

_BITS, COLOURS, _BANDS, _EXTRA, _TYPE = 258, 262, 277, 338, 339  # tags of TIFF
_PRIVATE = 65000  # a tag that means nothing
_SIGNED = 2
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
_DEEP_MODES = ("I", "F")  # with all their variants
# Compressions that tifffile decodes by itself: a file that it refuses is damaged.
_OWN = (tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
# What Pillow brings along: a file that it knows and refuses is damaged.
_PILLOWS = (*_OWN, tifffile.COMPRESSION.LZW, tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.PACKBITS)


@dataclass(frozen=True, eq=False)
class Raster:
    """Samples as a file holds them.

    Attributes:
        values: (H, W, bands).
        kind: the format, such as `TIFF`.
        is_rgb: the file calls its first three bands red, green and blue.
        alpha: the file calls its last band alpha.
    """

    values: np.ndarray
    kind: str
    is_rgb: bool
    alpha: bool

    @property
    def what(self) -> str:
        """The raster in words, such as `a TIFF of 5 bands of uint16`."""
        return _words(self.kind, self.values.shape[2], self.values.dtype)

    def rgb(self, depth: int) -> np.ndarray:
        """Returns the image as (H, W, 3) uint8.

        One band is grey; the first of three or four are red, green and blue, and the fourth (alpha, infrared) is left
        out. Samples of 8 bits are taken as they are, larger ones by the upper 8 of `depth` bits.

        Raises:
            RefusedError: more or other bands, no whole numbers, or values that need more than `depth` bits.
        """
        bands = self.values.shape[2]
        if (bands > 4 and not self.is_rgb) or (bands == 2 and not self.alpha):
            raise RefusedError(
                f"it is {self.what}, and nothing says which are red, green and blue",
                "write those three into a file of 8 bits (gdal_translate -ot Byte -b 1 -b 2 -b 3 IN OUT)",
            )
        values = self.values[..., :1] if bands <= 2 else self.values[..., :3]
        if values.dtype not in (np.bool_, np.uint8):
            values = self._to_bytes(values, depth)
        return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)), dtype=np.uint8)

    def _to_bytes(self, values: np.ndarray, depth: int) -> np.ndarray:
        if values.dtype.kind not in "iuf":
            raise RefusedError(f"it is {self.what}", "convert it to 8 bits per sample")
        known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = (known.min(), known.max()) if known.size else (values.flat[0], values.flat[0])
        if values.dtype == np.int8 and low >= 0:
            return values
        bits = int(high).bit_length() if values.dtype.kind in "iu" and low >= 0 else None
        if depth > 8 and bits is not None and bits <= depth:
            return values >> (depth - 8)
        reason = f"it is {self.what} with values from {_number(low)} to {_number(high)}, where {depth} bits are read"
        if bits is not None and bits <= 8:
            raise RefusedError(reason, "convert it to 8 bits as it is (gdal_translate -ot Byte IN OUT)")
        remedy = "convert all images to 8 bits by one range (gdal_translate -ot Byte -scale LOW HIGH 0 255 IN OUT)"
        if bits is not None and bits <= DEPTHS[-1]:
            remedy += f", or set data.depth to how many bits the dataset uses ({bits} or more): their upper 8 are taken"
        raise RefusedError(reason, remedy)


def read(path: Path, plain: Callable[[Image.Image], T], deep: Callable[[Raster], T]) -> T:
    """Reads a file of pixels in one of two ways.

    Args:
        path: the file.
        plain: is given an image of at most 8 bits per sample, decoded by Pillow.
        deep: is given a file that Pillow does not know or would cut to 8 bits.

    Raises:
        RefusedError: the file is of a kind that nothing here reads.
        Exception: one of `UNREADABLE`, where it is damaged.
    """
    known = decoded = False
    try:
        with Image.open(path) as image:
            known = True
            small = _is_plain(image, path)  # loading forgets how the samples are stored
            image.load()
            decoded = True
            if image.mode == "LAB":
                remedy = "convert it to RGB (magick IN -colorspace sRGB OUT)"
                raise RefusedError(f"it is a {image.format} in the colours LAB", remedy)
            if small:
                return plain(image)
            stored = np.asarray(image) if image.mode.startswith(_DEEP_MODES) else None
            kind = image.format or "picture"
    except UNREADABLE as error:
        if decoded or not is_tiff(path):
            raise
        try:
            return deep(_read_tiff(path, known))
        except UNREADABLE:
            if known:
                raise error from None
            raise
    if kind == "TIFF":
        return deep(_read_tiff(path, known, lambda bands: stored if bands == 1 else _read_opencv(path)))
    if kind == "PNG":
        values = _read_opencv(path) if stored is None else stored
        if values is not None:
            values = values.reshape(*values.shape[:2], -1)
            return deep(Raster(values, kind, is_rgb=values.shape[2] > 2, alpha=values.shape[2] == 4))
    raise RefusedError(f"it is a {kind} of more than 8 bits per sample", "convert it to a PNG or TIFF of 8 bits")


def raster_size(path: Path) -> tuple[int, int]:
    """Returns (height, width) of a TIFF out of its header; raises one of `UNREADABLE`."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        return page.imagelength, page.imagewidth


def _is_plain(image: ImageFile.ImageFile, path: Path) -> bool:
    """Returns whether Pillow reads all of a file: at most 8 unsigned bits per sample, and no band is left out."""
    if image.mode.startswith(_DEEP_MODES):
        return False
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        if tags.get(COLOURS) in (0, 1) and tags.get(_BANDS, 1) > len(image.getbands()):  # it would leave bands out
            return False
        return max(tags.get(_BITS, (1,))) <= 8 and _SIGNED not in tags.get(_TYPE, ())
    if image.format in ("JPEG2000", "AVIF"):
        return _stated_bits(path) <= 8
    if image.format == "PPM":
        return all(item <= 255 for _, _, _, given in image.tile for item in given or () if isinstance(item, int))
    return not any(codec == "SGI16" or ";16B" in str(given) for codec, _, _, given in image.tile)


def _stated_bits(path: Path) -> int:
    """Returns the bits per sample out of the header of a JPEG 2000 or AVIF file, of which Pillow keeps 8."""
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
    for mark, first, apart in ((b"\xff\x4f\xff\x51", 42, 3), (b"pixi", 9, 1)):  # after the number of components
        place = head.find(mark)
        if place >= 0:
            start = place + first
            stated = head[start : start + apart * head[start - 1] : apart]
            return max(((bits & 0x7F) + (apart == 3) for bits in stated), default=8)
    return 8


def _read_tiff(path: Path, known: bool, other: Callable[[int], np.ndarray | None] = lambda _: None) -> Raster:
    """Reads the first page of a TIFF.

    Args:
        path: the file.
        known: whether Pillow knows what the header describes.
        other: may decode so many bands where tifffile lacks the compression.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        bands = page.samplesperpixel
        what = _words("TIFF", bands, page.dtype)
        if page.imagelength * page.imagewidth > MAX_PIXELS:  # as Pillow; tifffile would allocate them
            raise Image.DecompressionBombError(f"{page.imagelength:,} x {page.imagewidth:,} pixels")
        if page.dtype is None or page.axes not in ("YX", "YXS", "SYX"):
            raise RefusedError(f"it is {what} and {page.imagedepth} layers", "write one layer into a file of its own")
        if page.photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
            raise RefusedError(
                f"it is {what} of the kind {tifffile.PHOTOMETRIC(page.photometric).name}",
                "convert it to RGB or grey of 8 bits",
            )
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > path.stat().st_size:  # tifffile would leave the rest black
            raise RefusedError(f"it is {what} that breaks off", "replace the file with a whole copy", damaged=True)
        values: np.ndarray | None
        try:
            values = page.asarray()
        except (*UNREADABLE, NotImplementedError, ImportError) as error:
            if page.compression in _OWN and page.bitspersample % 8 == 0:
                raise
            values = other(bands) if known else _read_as_rgb(path, page)
            shape = (page.imagelength, page.imagewidth, *([bands] if bands > 1 else []))
            if values is None or values.shape != shape:
                packed = tifffile.COMPRESSION(page.compression).name
                if known and page.compression in _PILLOWS:
                    reason = f"it is {what} with damaged {packed} compression"
                    raise RefusedError(reason, "replace the file with a whole copy", damaged=True) from error
                raise RefusedError(
                    f"it is {what} with {packed} compression, which cannot be read here ({error})",
                    "write it without (gdal_translate -co COMPRESS=DEFLATE IN OUT), or pip install imagecodecs",
                ) from error
        else:
            values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
        alpha = len(page.extrasamples) == 1 and page.extrasamples[0] in _ALPHA
        is_rgb = page.photometric == tifffile.PHOTOMETRIC.RGB
        return Raster(values.reshape(*values.shape[:2], -1), "TIFF", is_rgb, alpha)


def _read_as_rgb(path: Path, page: tifffile.TiffPage) -> np.ndarray | None:
    """Reads three or four bands of 8 bits that are called neither RGB nor RGBA, as libtiff's compressions go by bytes.

    Pillow refuses such headers, as GDAL writes them, and brings more decoders than tifffile: it is given a copy that
    calls the bands so.
    """
    if page.samplesperpixel not in (3, 4) or page.dtype != np.uint8:
        return None
    order = page.parent.byteorder + "H"
    content = bytearray(path.read_bytes())
    struct.pack_into(order, content, page.tags[COLOURS].valueoffset, tifffile.PHOTOMETRIC.RGB)
    if _EXTRA in page.tags:
        struct.pack_into(order, content, page.tags[_EXTRA].offset, _PRIVATE)
    with Image.open(io.BytesIO(content), formats=["TIFF"]) as image:
        return np.asarray(image)


def _read_opencv(path: Path) -> np.ndarray | None:
    """Reads samples of more than 8 bits, RGB or RGBA; OpenCV does not say where a file is damaged."""
    try:
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if values is None or values.ndim != 3:
        return values
    return values[..., [2, 1, 0, 3][: values.shape[2]]]


def _words(kind: str, bands: int, dtype: np.dtype | None) -> str:
    return f"a {kind} of {bands} band{'' if bands == 1 else 's'} of {dtype or 'an unknown type'}"


def _number(value: np.generic) -> str:
    return f"{value.item():,}" if value.dtype.kind in "iu" else f"{value.item():g}"
