"""Which format is read and written where."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from s4eca.errors import S4ecaError
from s4eca.evaluation.predictions.base import Predictions, PredictionWriter
from s4eca.evaluation.predictions.npz import NpzArchive, NpzWriter
from s4eca.evaluation.predictions.png import PngFolder, PngWriter
from s4eca.evaluation.predictions.rle import RleFile, RleWriter

FORMATS: Mapping[str, type[PredictionWriter]] = {"rle": RleWriter, "png": PngWriter, "npz": NpzWriter}
"""Formats that predictions are written in, lossless all of them."""

_NAMES = {"rle": "predictions.json", "png": "predictions", "npz": "predictions.npz"}


def read_predictions(path: str | Path) -> Predictions:
    """Opens predictions: a folder of PNG files, an npz archive (`.npz`) or COCO RLEs (`.json`).

    What can be known without decoding a mask is checked here.

    Raises:
        S4ecaError: there is nothing at the path, its format cannot be told, it holds no mask or an id twice, or it is
            damaged.
    """
    path = Path(path)
    if not path.exists():
        raise S4ecaError(f"There are no predictions at {path}: give a folder of PNG files, an .npz or a .json file.")
    suffix = path.suffix.lower()
    predictions: Predictions
    if path.is_dir():
        predictions = PngFolder(path)
    elif suffix == ".npz":
        predictions = NpzArchive(path)
    elif suffix == ".json":
        predictions = RleFile(path)
    else:
        raise S4ecaError(
            f"The format of {path} cannot be told: give a folder of PNG files, an .npz archive or a .json file of RLEs."
        )
    if not predictions:
        predictions.close()
        raise S4ecaError(f"{path} holds no prediction: write one mask for each reference of the split.")
    return predictions


def prediction_path(folder: str | Path, fmt: str) -> Path:
    """Returns what `open_writer` writes in a folder."""
    return Path(folder) / _NAMES[fmt]


def open_writer(folder: str | Path, fmt: str) -> PredictionWriter:
    """Opens a writer for `predictions.json`, `predictions.npz` or `predictions/*.png` in a folder.

    Args:
        folder: made where it is missing.
        fmt: `rle`, `npz` or `png`.

    Raises:
        S4ecaError: an unknown format, or a place that cannot be written.
    """
    writer = _writer(fmt)
    return writer(prediction_path(folder, fmt))


def write_predictions(path: str | Path, fmt: str, items: Iterable[tuple[str, np.ndarray]]) -> Path:
    """Writes (id, bool mask (H, W)) pairs one at a time and returns the path; an error leaves nothing behind.

    Args:
        path: the file, or for `png` the folder.
        fmt: `rle`, `npz` or `png`.
        items: in the order to store.

    Raises:
        S4ecaError: an unknown format, an id that comes twice, or a place that cannot be written.
    """
    with _writer(fmt)(Path(path)) as writer:
        for id, mask in items:
            writer.add(id, mask)
    return writer.path


def _writer(fmt: str) -> type[PredictionWriter]:
    if fmt not in FORMATS:
        raise S4ecaError(f"There is no format {fmt!r} for predictions: choose one of {', '.join(FORMATS)}.")
    return FORMATS[fmt]
