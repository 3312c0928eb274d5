"""Predictions as a NumPy archive: an array for each id, or `masks` (N, H, W) beside `ids` (N,)."""

import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from s4eca.data.rle import check_size
from s4eca.errors import S4ecaError
from s4eca.evaluation.predictions.base import MaskError, Predictions, PredictionWriter, as_mask
from s4eca.wording import first

_SUFFIX = ".npy"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# what zipfile and NumPy raise on damaged, encrypted and unusual archives
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class _Place:
    """Where a mask is: a member of the archive and, in a stack of masks, its position."""

    member: str
    position: int | None = None


class NpzArchive(Predictions):
    """Reads an archive of bool or uint8 masks, each of them and its header when it is asked for.

    Nothing is unpickled. Out of a stack `masks` one mask is read at a time, fast only in the order of `ids` where the
    archive is compressed.

    Raises:
        S4ecaError: the file is no whole archive, repeats an id, or holds something else than masks by id.
    """

    format = "npz"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: IO[bytes] | None = None
        try:
            self._archive = zipfile.ZipFile(path)
        except _UNREADABLE as error:
            raise S4ecaError(f"{path} cannot be read as npz ({error}): write or copy the whole file again.") from error
        try:
            self._places = self._find()
        except BaseException:
            self._archive.close()
            raise
        super().__init__(path, self._places)

    def size(self, id: str) -> tuple[int, int]:
        """Returns (height, width) out of the array's header."""
        place = self._places[id]
        try:
            with self._archive.open(place.member) as stream:
                shape, _ = _mask_header(stream, 2 if place.position is None else 3)
        except _UNREADABLE as error:
            raise MaskError(id, str(error), self.path) from error
        return shape[-2], shape[-1]

    def mask(self, id: str) -> np.ndarray:
        """Returns a bool array (H, W), see `Predictions.mask`."""
        place = self._places[id]
        try:
            if place.position is not None:
                return as_mask(self._from_stack(place.position))
            with self._archive.open(place.member) as stream:
                shape, fortran = _mask_header(stream, 2)
                values = _read_pixels(stream, shape[::-1] if fortran else shape)
                _read_end(stream)
            return as_mask(np.ascontiguousarray(values.T) if fortran else values)
        except _UNREADABLE as error:
            raise MaskError(id, str(error), self.path) from error

    def close(self) -> None:
        """Closes the archive."""
        if self._stream is not None:
            self._stream.close()
        self._archive.close()

    def _find(self) -> dict[str, _Place]:
        members = self._archive.namelist()
        keys = [name.removesuffix(_SUFFIX) for name in members]
        foreign = [name for name in members if not name.endswith(_SUFFIX)]
        if foreign:
            raise S4ecaError(
                f"{self.path} holds {len(foreign):,} members that are no arrays ({first(foreign)}):"
                " write it with numpy.savez."
            )
        if {"masks", "ids"} <= set(keys) and self._dimensions("ids") == 1:
            return self._find_stack(keys)
        self._check_unique(keys)
        return {key: _Place(member) for key, member in zip(keys, members, strict=True)}

    def _find_stack(self, keys: list[str]) -> dict[str, _Place]:
        others = [key for key in keys if key not in ("masks", "ids")]
        if others or len(keys) > 2:
            raise S4ecaError(
                f"{self.path} holds more than masks and ids ({first(others or keys)}): leave the rest out."
            )
        try:
            with self._archive.open(f"ids{_SUFFIX}") as stream:
                shape, _, dtype = _header(stream)
                # as many as the header says would be made room for before they are read
                if prod(shape) * dtype.itemsize > self._archive.getinfo(f"ids{_SUFFIX}").file_size:
                    raise ValueError("it ends early")
                stream.seek(0)
                ids = np.lib.format.read_array(stream, allow_pickle=False)
                _read_end(stream)
            with self._archive.open(f"masks{_SUFFIX}") as stream:
                shape, fortran = _mask_header(stream, 3)
                self._start = stream.tell()
        except _UNREADABLE as error:
            raise S4ecaError(f"{self.path} has no readable masks and ids ({error}): write it again.") from error
        if ids.dtype.kind not in "UiuS":
            raise S4ecaError(f"The ids of {self.path} are {ids.dtype}: write them as text or whole numbers.")
        if fortran:
            raise S4ecaError(
                f"The masks of {self.path} are stored column by column, all of them interleaved: write"
                " numpy.ascontiguousarray(masks)."
            )
        names = [id.decode("utf-8", "replace") if isinstance(id, bytes) else str(id) for id in ids.tolist()]
        if len(names) != shape[0]:
            raise S4ecaError(f"{self.path} has {len(names):,} ids for {shape[0]:,} masks: write one id for each mask.")
        self._check_unique(names)
        self._shape, self._last = (shape[1], shape[2]), shape[0] - 1
        return {name: _Place(f"masks{_SUFFIX}", position) for position, name in enumerate(names)}

    def _from_stack(self, position: int) -> np.ndarray:
        if self._stream is None:
            self._stream = self._archive.open(f"masks{_SUFFIX}")
        self._stream.seek(self._start + position * self._shape[0] * self._shape[1])
        values = _read_pixels(self._stream, self._shape)
        if position == self._last:
            _read_end(self._stream)
        return values

    def _dimensions(self, key: str) -> int | None:
        try:
            with self._archive.open(f"{key}{_SUFFIX}") as stream:
                return len(_header(stream)[0])
        except _UNREADABLE:
            return None

    def _check_unique(self, ids: list[str]) -> None:
        repeated = [id for id, count in Counter(ids).items() if count > 1]
        if repeated:
            raise S4ecaError(
                f"{self.path} has {len(repeated):,} ids more than once ({first(repeated)}): keep one mask for each id."
            )


class NpzWriter(PredictionWriter):
    """Writes a compressed archive with one bool array for each id, as `numpy.load` reads it."""

    _archive: zipfile.ZipFile

    def _start(self) -> None:
        self._refuse_folder()
        self._archive = zipfile.ZipFile(self._partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1)

    def _write(self, id: str, mask: np.ndarray) -> None:
        name = f"{id}{_SUFFIX}"
        if zipfile.ZipInfo(name).filename != name:
            raise S4ecaError(f"The id {id!r} cannot be the name of an array: write these predictions as rle.")
        with self._archive.open(name, "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, np.ascontiguousarray(mask), allow_pickle=False)

    def _finish(self) -> None:
        self._archive.close()
        self._partial.replace(self.path)

    def _drop(self) -> None:
        try:
            if hasattr(self, "_archive"):
                self._archive.close()
        finally:
            self._partial.unlink(missing_ok=True)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"it is in version {version} of the npy format")
    return _HEADERS[version](stream)


def _mask_header(stream: IO[bytes], dimensions: int) -> tuple[tuple[int, ...], bool]:
    """Returns shape and whether the order is Fortran's; raises `ValueError` for anything that is no 8-bit mask."""
    shape, fortran, dtype = _header(stream)
    if dtype not in (np.bool_, np.uint8):
        raise ValueError(f"it is {dtype} where bool or uint8 is expected")
    if len(shape) != dimensions or 0 in shape[-2:]:
        raise ValueError(f"it has shape {shape} where {'(N, H, W)' if dimensions == 3 else '(H, W)'} is expected")
    check_size(shape[-2:])
    return shape, fortran


def _read_pixels(stream: IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
    # bool too is read as bytes, since a byte that is neither 0 nor 1 would be counted wrongly
    height, width = shape
    content = stream.read(height * width)
    if len(content) != height * width:
        raise ValueError("it ends early")
    return np.frombuffer(content, np.uint8).reshape(height, width)


def _read_end(stream: IO[bytes]) -> None:
    """Reads on to the end, where the archive compares its checksum."""
    if stream.read(1):
        raise ValueError("it is longer than its header says")
