"""Predictions on disk: PNG folder, npz archive and COCO RLE in JSON, read lazily and written whole."""

from s4eca.evaluation.predictions.base import MaskError, Predictions, PredictionWriter
from s4eca.evaluation.predictions.formats import (
    FORMATS,
    open_writer,
    prediction_path,
    read_predictions,
    write_predictions,
)
from s4eca.evaluation.predictions.rle import decode, encode

__all__ = [
    "FORMATS",
    "MaskError",
    "PredictionWriter",
    "Predictions",
    "decode",
    "encode",
    "open_writer",
    "prediction_path",
    "read_predictions",
    "write_predictions",
]
