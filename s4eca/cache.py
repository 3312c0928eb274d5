"""One on-disk cache of arrays: keyed by what a value was made from, written in one step, checked whenever it is read.

It knows nothing about what it keeps. Whoever uses it puts into the key all that the value depends on (`digest`); an
entry whose ingredients have changed then has another key and is never served again.
"""

import hashlib
import json
import os
import shutil
import struct
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s4eca.errors import S4ecaError

_MAGIC = b"s4eca-1\n"
_FIXED = struct.Struct("<8sII")  # magic, checksum, length of the header
_ALIGN = 64
_SUFFIX = ".cached"
_BLOCK = 4096  # what a file system hands out at least


def digest(**parts: Any) -> str:
    """Returns a key for the value that is made from `parts`: strings, numbers, None, and lists and dicts of them.

    Raises:
        TypeError: a part is something else, whose text might not say what it holds.
    """
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What filling a cache takes.

    Attributes:
        entries: number of different keys.
        missing: how many of them are not there yet.
        needed: bytes that they will take.
        free: bytes that are free on the cache's disk.
    """

    entries: int
    missing: int
    needed: int
    free: int


@dataclass(frozen=True)
class Contents:
    """What a cache holds.

    Attributes:
        entries: number of entries.
        size: bytes in them.
        unfinished: files that a killed process left half-written; they may be deleted while nothing is running.
    """

    entries: int
    size: int
    unfinished: int


class DiskCache:
    """A folder of entries, each a dict of arrays in a file of its own.

    Any number of processes may read and fill it at once: an entry appears in one step, and two that make the same one
    put the same content in the same place. A file holds a checksum of all its bytes. A damaged one is reported by a
    warning that names it, and counts as missing, so that it is made again. Nothing is ever removed.

    Args:
        folder: of the cache; made when the first entry is written.
        kind: of the values, as a name for a folder inside it.
        setting: the config key of `folder`, for messages.
    """

    def __init__(self, folder: str | Path, kind: str, setting: str = "data.cache") -> None:
        self.folder = Path(folder) / kind
        self.setting = setting
        self._write_failed = False

    def path(self, key: str) -> Path:
        """Returns the file of an entry, whether it exists or not."""
        return self.folder / key[:2] / f"{key[2:]}{_SUFFIX}"

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Returns an entry as arrays of its own, None where there is none or it is damaged (with a warning)."""
        path = self.path(key)
        try:
            return _decode(np.fromfile(path, np.uint8), key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            warnings.warn(f"The cache entry {path} is damaged ({error}) and is made again.", stacklevel=2)
            return None

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes an entry, or replaces it as a whole.

        What cannot be written is reported by a warning, once: a full disk costs time later, not the run.
        """
        path = self.path(key)
        partial = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                # not flushed to the disk: after a power cut the checksum tells
                partial.write_bytes(_encode(arrays, key))
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            if not self._write_failed:
                self._write_failed = True
                warnings.warn(
                    f"The cache in {self.folder} cannot be written ({error}): the run goes on without what is missing;"
                    f" make room or choose another folder with {self.setting}.",
                    stacklevel=2,
                )

    def get_or_make(self, key: str, make: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        """Returns an entry; where there is none, `make` is called and its result kept."""
        found = self.get(key)
        if found is not None:
            return found
        made = make()
        self.put(key, made)
        return made

    def plan(self, keys: Iterable[str], example: Mapping[str, np.ndarray]) -> Plan:
        """Returns what it takes to have all `keys`, each as large as `example`; call it before filling.

        Raises:
            S4ecaError: the folder cannot be written, or its disk has too little room.
        """
        wanted = set(keys)
        missing = len(wanted - {f"{path.parent.name}{path.stem}" for path in self._files() if path.suffix == _SUFFIX})
        size = len(_encode(example, digest()))
        needed = missing * (-(-size // _BLOCK) * _BLOCK)
        if missing:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise S4ecaError(
                    f"The cache folder {self.folder} cannot be made ({error}): choose another one with {self.setting}."
                ) from error
            if not os.access(self.folder, os.W_OK):
                raise S4ecaError(
                    f"The cache folder {self.folder} lacks {missing:,} entries and cannot be written to: choose another"
                    f" one with {self.setting}."
                )
        free = shutil.disk_usage(self.folder).free if self.folder.is_dir() else 0
        if needed > free:
            raise S4ecaError(
                f"The cache in {self.folder} needs {readable(needed)} for {missing:,} more entries and its disk has"
                f" {readable(free)} free: make room, choose another folder with {self.setting}, or switch it off with"
                f" {self.setting}=null."
            )
        return Plan(len(wanted), missing, needed, free)

    def describe(self) -> Contents:
        """Counts what is there."""
        entries = size = unfinished = 0
        for path in self._files():
            if path.suffix == _SUFFIX:
                entries += 1
                size += path.stat().st_size
            else:
                unfinished += 1
        return Contents(entries, size, unfinished)

    def _files(self) -> Iterator[Path]:
        if self.folder.is_dir():
            for group in self.folder.iterdir():
                if group.is_dir():
                    yield from group.iterdir()


def readable(size: int) -> str:
    """Returns a number of bytes as text, for example `8.2 GiB`."""
    for unit, limit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size} bytes"


def _encode(arrays: Mapping[str, np.ndarray], key: str) -> bytes:
    """Returns the file of an entry.

    It is magic, checksum of the rest, length of the header, header (JSON: key, and each array's name, dtype, shape and
    offset), arrays. Reading it takes no copy, which is why it is not safetensors: its loader makes two.
    """
    rows, parts, offset = [], [], 0
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"The array {name!r} holds Python objects, which a cache does not keep.")
        part = array.tobytes()
        part += b"\0" * (-len(part) % _ALIGN)
        rows.append([name, array.dtype.str, array.shape, offset])
        parts.append(part)
        offset += len(part)
    header = json.dumps([key, rows]).encode()
    header += b" " * (-(_FIXED.size + len(header)) % _ALIGN)
    rest = len(header).to_bytes(4, "little") + header + b"".join(parts)
    return _MAGIC + zlib.crc32(rest).to_bytes(4, "little") + rest


def _decode(content: np.ndarray, key: str) -> dict[str, np.ndarray]:
    """Returns the arrays in the bytes of a file, as views of them; raises ValueError where it is damaged."""
    if len(content) < _FIXED.size:
        raise ValueError("it is too short")
    magic, checksum, length = _FIXED.unpack_from(content.data)
    if magic != _MAGIC:
        raise ValueError("it does not begin as one")
    if zlib.crc32(content.data[_FIXED.size - 4 :]) != checksum:
        raise ValueError("its checksum differs")
    start = _FIXED.size + length
    found, rows = json.loads(content[_FIXED.size : start].tobytes())
    if found != key:
        raise ValueError("it belongs to another key")
    return {name: np.ndarray(shape, dtype, content, start + offset) for name, dtype, shape, offset in rows}
