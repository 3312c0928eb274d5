"""Predictions as a folder of 8-bit PNG files, `ID.png`; a `/` in an id is a folder."""

import io
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from s4eca.errors import S4ecaError
from s4eca.evaluation.predictions.base import MaskError, Predictions, PredictionWriter, as_mask
from s4eca.folders import is_hidden
from s4eca.wording import first

_SUFFIX = ".png"
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class PngFolder(Predictions):
    """Reads a folder of single-channel PNG files of 0 and 255, or of 0 and 1.

    Other files and hidden ones are passed over, as file managers leave them.

    Raises:
        S4ecaError: the folder cannot be listed, or two files have the same id (`7.png` and `7.PNG`).
    """

    format = "png"

    def __init__(self, path: Path) -> None:
        found = _png_files(path)
        repeated = [id for id, count in Counter(id for id, _ in found).items() if count > 1]
        if repeated:
            raise S4ecaError(
                f"{path} has {len(repeated):,} ids in more than one file ({first(repeated)}): keep one file for each."
            )
        self._files = dict(found)
        super().__init__(path, self._files)

    def size(self, id: str) -> tuple[int, int]:
        """Returns (height, width) out of the file's header."""
        path = self._files[id]
        try:
            with Image.open(path, formats=["PNG"]) as image:
                return image.height, image.width
        except _UNREADABLE as error:
            raise MaskError(id, f"it cannot be read as PNG ({_reason(error)})", self.path) from error

    def mask(self, id: str) -> np.ndarray:
        """Returns a bool array (H, W), see `Predictions.mask`."""
        path = self._files[id]
        try:
            content = path.read_bytes()
            # decoding alone ignores the checksums of the pixels
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                image.verify()
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                mode, values = image.mode, np.asarray(image)
        except _UNREADABLE as error:
            raise MaskError(id, f"it cannot be read as PNG ({_reason(error)})", self.path) from error
        if mode not in ("1", "L"):
            raise MaskError(id, f"it has mode {mode} where 8 bits in one channel are expected", self.path)
        try:
            return as_mask(values.view(np.uint8))
        except ValueError as error:
            raise MaskError(id, str(error), self.path) from error


class PngWriter(PredictionWriter):
    """Writes a folder of PNG files of 0 and 255.

    A folder at the path is replaced; one that holds anything but PNG files is refused.

    Raises:
        S4ecaError: there is something else at the path; in `add`, an id that cannot be a file name.
    """

    def _start(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise S4ecaError(f"{self.path} is a file: choose a folder of its own.")
        others = _others(self.path)
        if others:
            raise S4ecaError(
                f"{self.path} holds other things than PNG files ({first(others)}): choose a folder of its own."
            )
        self._drop()
        self._partial.mkdir()

    def _write(self, id: str, mask: np.ndarray) -> None:
        parts = id.split("/")
        if "\\" in id or "\0" in id or any(not part or part.startswith(".") for part in parts):
            raise S4ecaError(f"The id {id!r} cannot be the name of a file: write these predictions as rle.")
        file = self._partial.joinpath(*parts[:-1], parts[-1] + _SUFFIX)
        if len(parts) > 1:
            file.parent.mkdir(parents=True, exist_ok=True)
        # masks are flat: the lowest level is three times as fast, and the files stay small
        Image.fromarray(mask.astype(np.uint8) * 255).save(file, compress_level=1)

    def _finish(self) -> None:
        if not self.path.exists():
            self._partial.replace(self.path)
            return
        # a folder cannot be replaced in one step
        old = self.path.with_name(f".{self.path.name}.{os.getpid()}.old")
        self.path.replace(old)
        self._partial.replace(self.path)
        shutil.rmtree(old)

    def _drop(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)


def _png_files(path: Path) -> list[tuple[str, Path]]:
    """Returns (id, file) of every PNG file below a folder, sorted within each folder."""
    found = []
    for folder, folders, names in os.walk(path, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        inside = Path(folder).relative_to(path).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        for name in sorted(names):
            if name.lower().endswith(_SUFFIX) and not is_hidden(name):
                found.append((prefix + name[: -len(_SUFFIX)], Path(folder, name)))
    return found


def _others(path: Path) -> list[str]:
    """Returns the files that are no PNG, hidden ones included: who replaces the folder would delete them."""
    if not path.exists():
        return []
    return [n for _, _, names in os.walk(path, onerror=_refuse) for n in names if not n.lower().endswith(_SUFFIX)]


def _refuse(error: OSError) -> None:
    raise S4ecaError(f"{error.filename} cannot be listed ({error.strerror}): make the folder readable.") from error


def _reason(error: BaseException) -> str:
    # Pillow names the object in memory here, which says nothing
    return "no PNG file, or a damaged header" if "cannot identify" in str(error) else str(error)
