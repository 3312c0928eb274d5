"""What a file is that was asked for its pixels and has none to give, and what to do about it."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tifffile
from PIL import Image

from s4eca.data.readers.listing import Listing
from s4eca.errors import S4ecaError
from s4eca.text import foreign

UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, OverflowError, struct.error, zlib.error),
    *(tifffile.TiffFileError, Image.DecompressionBombError),
)
"""What decoders raise at files that they cannot read."""

_HEAD = 1 << 20  # bytes that are looked at; the frame header of a JPEG comes after its metadata

_PICTURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_FETCH = "download it again"
_EXPORT = "convert it to an 8-bit RGB PNG or TIFF"
_UNPACK = "unpack it"
_OTHERS = (
    (b"%PDF", "a PDF", _EXPORT),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x93NUMPY", "a NumPy array", _EXPORT),
    (b"\x89HDF", "an HDF5 file", _EXPORT),
    (b"CDF", "a NetCDF file", _EXPORT),
    (b"8BPS", "a Photoshop file", _EXPORT),
    (b"\xff\x0a", "a JPEG XL", _EXPORT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL", _EXPORT),
    (b"v/1\x01", "an OpenEXR file", _EXPORT),
    (b"%!PS", "a PostScript file", _EXPORT),
)


class RefusedError(Exception):
    """Why a file is not read, before it is known whose file it is.

    Attributes:
        reason: half a sentence, such as `it is an empty file`.
        remedy: what to do, as an order.
        damaged: whether a whole copy would be read.
    """

    def __init__(self, reason: str, remedy: str, damaged: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.damaged = damaged


class PixelError(S4ecaError):
    """A file of pixels that cannot be used.

    Attributes:
        reason: half a sentence about the file, without its name.
        damaged: False where the file is whole and of a kind that is not read.
    """

    # loaders raise a worker's error anew, from its message alone
    def __init__(self, message: str, reason: str = "", damaged: bool = True) -> None:
        super().__init__(message)
        self.reason = reason or message
        self.damaged = damaged


@contextmanager
def explained(what: str, path: Path) -> Iterator[None]:
    """Turns whatever a decoder raises at a file into one sentence that says what the file is.

    Args:
        what: how the sentence begins, such as `The image a.jpg cannot be decoded`.
        path: the file.

    Raises:
        PixelError: in place of a `RefusedError` and of what `UNREADABLE` names.
    """
    try:
        yield
    except RefusedError as refusal:
        raise _named(what, refusal) from refusal
    except UNREADABLE as error:
        raise _named(what, explain(path, error)) from error


def _named(what: str, refusal: RefusedError) -> PixelError:
    return PixelError(f"{what}, {refusal.reason}: {refusal.remedy}.", refusal.reason, refusal.damaged)


def is_tiff(path: Path) -> bool:
    """Returns whether a file begins as TIFFs do."""
    try:
        with path.open("rb") as stream:
            return _picture(stream.read(4)) == "TIFF"
    except OSError:
        return False


def explain(path: Path, error: BaseException) -> RefusedError:
    """Returns what a file is that a decoder has refused.

    Args:
        path: the file.
        error: what the decoder said.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except FileNotFoundError:
        if path.is_symlink():
            return RefusedError(f"it is a link to {path.readlink()}, which is not there", "put the file in its place")
        return RefusedError(f"there is no such file{_beside(path)}", "put it there")
    except OSError as problem:
        return RefusedError(f"it cannot be opened ({problem.strerror})", "make it a readable file")
    if isinstance(error, Image.DecompressionBombError):
        return RefusedError(f"it is too large ({error})", "cut it into tiles, as with gdal_retile.py")
    name = _picture(head)
    if name is None:
        what, remedy = _other(head)
        return RefusedError(f"it is {what}", remedy, damaged=remedy not in (_EXPORT, _UNPACK))
    bits = _jpeg_bits(head) if name == "JPEG" else None
    if bits not in (None, 8):
        return RefusedError(f"it is a JPEG of {bits} bits per sample", "convert it to 8 bits per sample")
    if isinstance(error, Image.UnidentifiedImageError | LookupError):
        remedy = f"{_EXPORT}, or replace it with a whole copy"
        return RefusedError(f"it begins as a {name} and is damaged, or of a rare kind", remedy, damaged=True)
    words = " ".join(str(error).split()) or type(error).__name__
    return RefusedError(f"it is a damaged {name} ({words})", "replace the file with a whole copy", damaged=True)


def _picture(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for begin, name in _PICTURES if head.startswith(begin)), None)


def _other(head: bytes) -> tuple[str, str]:
    """Returns what a file is that is no picture, and what to do about it."""
    if not head:
        return "an empty file", _FETCH
    if not head.strip(b"\0"):
        return "nothing but zeros, as downloads that broke off leave", _FETCH
    kind = foreign(head)
    if kind is not None:
        return kind
    for begin, what, remedy in _OTHERS:
        if head.startswith(begin):
            return what, remedy
    if head[4:8] == b"ftyp":
        return f"a file of the kind {head[8:12].decode('latin-1').strip()!r}, as HEIC and videos are", _EXPORT
    text = head[:512].lstrip().lower()
    if text.startswith((b"<?xml", b"<svg")):
        return "an XML document", _EXPORT
    if all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head[:512]):
        try:
            return f"a text ({' '.join(head[:60].decode('utf-8').split())!r})", "give a picture in its place"
        except UnicodeDecodeError:
            pass
    return f"no picture that is known (it begins with the bytes {head[:8].hex(' ')})", _EXPORT


def _jpeg_bits(head: bytes) -> int | None:
    """Returns the bits per sample that a JPEG's frame header states, None where there is none."""
    place = 2
    while place + 5 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return head[place + 4]
        place += 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return None


def _beside(path: Path) -> str:
    """Returns what is there instead of a missing file: names that differ by their ending only, or what else."""
    listing = Listing()
    names = sorted(name for name in listing.folder(path.parent) if Path(name).stem.lower() == path.stem.lower())
    return f", only {', '.join(names[:3])}" if names else f", and {listing.describe(path.parent)}"
