"""Predictions as COCO run lengths in one JSON file: `{id: {"size": [H, W], "counts": "…"}}`."""

import json
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np

from s4eca.data.masks import encode_mask
from s4eca.data.rle import check_rle, paint, read_rle
from s4eca.errors import S4ecaError
from s4eca.evaluation.predictions.base import MaskError, Predictions, PredictionWriter
from s4eca.text import read_json, unmark
from s4eca.wording import first


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Returns a bool mask (H, W) as COCO RLE: `size` is [H, W], `counts` the compressed runs as text."""
    return encode_mask(mask)


def decode(rle: dict[str, Any]) -> np.ndarray:
    """Returns COCO RLE, its counts compressed or a list of run lengths, as a bool mask (H, W).

    Raises:
        S4ecaError: it is no RLE, or its runs do not add up to its size.
    """
    try:
        return _decode(rle)
    except ValueError as error:
        raise S4ecaError(f"The RLE cannot be decoded, {error}: encode the mask again.") from error


class RleFile(Predictions):
    """Reads a JSON file of COCO RLEs; the text of all masks is held, decoded masks are not.

    Raises:
        S4ecaError: the file is no whole JSON, repeats an id, or holds something else than RLEs by id.
    """

    format = "rle"

    def __init__(self, path: Path) -> None:
        self._rles = _read(path)
        super().__init__(path, self._rles)

    def size(self, id: str) -> tuple[int, int]:
        """Returns (height, width) as the entry states them."""
        height, width = self._rles[id]["size"]
        return height, width

    def mask(self, id: str) -> np.ndarray:
        """Returns a bool array (H, W), see `Predictions.mask`."""
        try:
            return _decode(self._rles[id])
        except ValueError as error:
            raise MaskError(id, str(error), self.path) from error


class RleWriter(PredictionWriter):
    """Writes a JSON file of COCO RLEs, one line per mask."""

    _stream: IO[str]

    def _start(self) -> None:
        self._refuse_folder()
        self._stream = self._partial.open("w", encoding="utf-8", newline="\n")

    def _write(self, id: str, mask: np.ndarray) -> None:
        before = ",\n" if self._written else "{\n"
        self._stream.write(f"{before}{json.dumps(id)}: {json.dumps(encode(mask))}")

    def _finish(self) -> None:
        self._stream.write("\n}\n" if self._written else "{}\n")
        self._stream.close()
        self._partial.replace(self.path)

    def _drop(self) -> None:
        try:
            if hasattr(self, "_stream"):
                self._stream.close()
        finally:
            self._partial.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    repeated: Counter[str] = Counter()

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs = [(unmark(key), value) for key, value in pairs]
        content = dict(pairs)
        if len(content) != len(pairs):
            repeated.update(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return content

    try:
        content = read_json(path, object_pairs_hook=unique)
    except (OSError, ValueError, RecursionError) as error:
        raise S4ecaError(f"{path} cannot be read as JSON ({error}): write or copy the whole file again.") from error
    if repeated:
        raise S4ecaError(
            f"{path} has {len(repeated):,} keys more than once ({first(list(repeated))}): keep one mask for each id."
        )
    if not isinstance(content, dict):
        raise S4ecaError(
            f'{path} holds a JSON {type(content).__name__} where {{id: {{"size": [H, W], "counts": "…"}}}} is expected:'
            " write one RLE under each id."
        )
    defects = [(id, reason) for id, rle in content.items() if (reason := _defect(rle)) is not None]
    if defects:
        raise S4ecaError(
            f"{len(defects):,} of {len(content):,} entries of {path} are no COCO RLE"
            f" ({first([f'{id}: {reason}' for id, reason in defects])}):"
            ' write {"size": [H, W], "counts": "…"} under each id.'
        )
    return content


def _decode(rle: dict[str, Any]) -> np.ndarray:
    """As `decode`; raises `ValueError` with half a sentence."""
    return paint(*read_rle(rle))


def _defect(rle: Any) -> str | None:
    """Returns what is wrong with an RLE as far as that shows without decoding it."""
    try:
        check_rle(rle)
    except ValueError as error:
        return str(error)
    return None
