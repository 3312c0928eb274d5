"""What every format of predictions promises, for reading and for writing."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from s4eca.errors import S4ecaError
from s4eca.wording import first


class MaskError(S4ecaError):
    """One prediction that cannot be read as a mask.

    Attributes:
        id: of the reference it was made for.
        reason: half a sentence, for lists of several.
    """

    def __init__(self, id: str, reason: str, path: Path | None = None) -> None:
        where = "" if path is None else f" in {path}"
        super().__init__(f"The prediction for {id}{where} is no mask, {reason}: write it again.")
        self.id = id
        self.reason = reason


class Predictions(Mapping[str, np.ndarray], ABC):
    """Binary masks by reference id, in the order in which they are stored; a mask is decoded when it is asked for.

    Reading a mask several times decodes it several times. Walking through `items()` follows the file.

    Attributes:
        path: the file or folder.
        format: `png`, `npz` or `rle`.
        ids: every id once.
    """

    format: str

    def __init__(self, path: Path, ids: Iterable[str]) -> None:
        self.path = path
        self.ids = tuple(ids)
        self._known = frozenset(self.ids)

    @abstractmethod
    def size(self, id: str) -> tuple[int, int]:
        """Returns (height, width) without decoding the mask; raises `MaskError` where they cannot be read."""

    @abstractmethod
    def mask(self, id: str) -> np.ndarray:
        """Returns a bool array (H, W).

        Raises:
            MaskError: it is damaged or not binary.
            KeyError: there is no such id.
        """

    def close(self) -> None:
        """Closes what is open; nothing can be read afterwards."""

    def __getitem__(self, id: str) -> np.ndarray:
        return self.mask(id)

    def __contains__(self, id: object) -> bool:
        return id in self._known  # a Mapping's own would decode the mask

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PredictionWriter(ABC):
    """Writes masks one at a time; nothing stands at `path` before `close`, and what was there stays until then.

    As a context it closes at the end, or drops what was written where an exception ends it.

    Args:
        path: the file or folder to write; folders above it are made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}")
        self._written: set[str] = set()
        self._open = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._start()
        except OSError as error:
            raise self._failed(error) from error

    def add(self, id: str, mask: np.ndarray) -> None:
        """Writes the mask of a reference.

        Args:
            id: of the reference, not added before.
            mask: bool (H, W).

        Raises:
            S4ecaError: the id came before or cannot be stored, the array is no mask, or the disk refuses.
        """
        if not self._open:
            raise S4ecaError(f"The predictions in {self.path} are closed: open another writer to add {id}.")
        if id in self._written:
            raise S4ecaError(f"There are two predictions for {id}: add each reference once.")
        if mask.dtype != np.bool_ or mask.ndim != 2 or not mask.size:
            raise S4ecaError(
                f"The prediction for {id} is {mask.dtype} of shape {mask.shape}: pass a bool mask (height, width)."
            )
        try:
            self._write(id, mask)
        except OSError as error:
            raise self._failed(error) from error
        self._written.add(id)

    def close(self) -> Path:
        """Puts everything in place and returns its path."""
        if self._open:
            self._open = False
            try:
                self._finish()
            except OSError as error:
                raise self._failed(error) from error
        return self.path

    def discard(self) -> None:
        """Removes what was written so far; what stood at the path before is left as it was."""
        self._open = False
        with suppress(OSError):  # where the disk refused to write, it may refuse this too
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _write(self, id: str, mask: np.ndarray) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _drop(self) -> None: ...

    def _refuse_folder(self) -> None:
        if self.path.is_dir():
            raise S4ecaError(f"{self.path} is a folder: name a file for these predictions.")

    def _failed(self, error: OSError) -> S4ecaError:
        self.discard()
        return S4ecaError(f"{self.path} cannot be written ({error.strerror or error}): choose another place.")


def as_mask(values: np.ndarray) -> np.ndarray:
    """Returns 8-bit values (H, W) as a bool mask where they are 0 and 1, or 0 and 255.

    Raises:
        ValueError: other values, which the message names.
    """
    if values.max() <= 1:
        return values.astype(bool)
    mask = values == 255
    if np.count_nonzero(mask) + np.count_nonzero(values == 0) != values.size:
        found = [str(value) for value in np.unique(values)]
        raise ValueError(f"it holds the values {first(found, 6)} where 0 and 255, or 0 and 1, are expected")
    return mask
