"""The published evaluation protocols: at which size masks are compared, and what counts as a hit.

They differ by several points on the same predictions, so that a number without its protocol's name says little.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s4eca.data.references import Batch
from s4eca.errors import S4ecaError

TENTHS = (5, 6, 7, 8, 9)
"""The IoU thresholds of Pr@0.5 … Pr@0.9, in tenths."""

DETRIS_PROBABILITY = 0.35
# what torch.arange(0.5, 1.0, 0.1) holds: 0.6, 0.8 are a little above, 0.7, 0.9 a little below the decimal number
DETRIS_THRESHOLDS = np.float32(np.array(TENTHS) / 10).astype(np.float64)


@dataclass(frozen=True)
class Protocol:
    """One way to score a prediction.

    Attributes:
        name: as written in configs and reports.
        masks: (logits (B, H, W), batch) to B pairs of bool masks (prediction, truth) of equal size.
        iou: (intersection (N,), union (N,)) int64 pixels to IoU (N,) float64.
        hits: (intersection (N,), union (N,)) int64 pixels to bool (N, 5), one column per threshold.
    """

    name: str
    masks: Callable[[Tensor, Batch], Iterator[tuple[Tensor, Tensor]]]
    iou: Callable[[np.ndarray, np.ndarray], np.ndarray]
    hits: Callable[[np.ndarray, np.ndarray], np.ndarray]


def select(names: Iterable[str]) -> list[Protocol]:
    """Returns the protocols of these names, in this order; raises `S4ecaError` for an unknown one."""
    chosen = []
    for name in names:
        if name not in PROTOCOLS:
            raise S4ecaError(f"Evaluation protocol '{name}' is unknown: use one of {', '.join(PROTOCOLS)}.")
        chosen.append(PROTOCOLS[name])
    return chosen


def at_input_size(logits: Tensor, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Compares at the model's input size (LAVT, RMSIN `test.py`): logit > 0 against the resized truth `batch.mask`."""
    for logit, truth in zip(logits, batch.mask, strict=True):
        yield logit > 0, truth


def at_original_size(logits: Tensor, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Compares at the image's own size: bilinear logits > 0 against the original truth.

    Raises:
        S4ecaError: the batch brings no original masks.
    """
    for logit, truth in zip(logits, _original_masks(batch), strict=True):
        yield _resize(logit.float(), truth, "bilinear") > 0, truth


def at_original_size_detris(logits: Tensor, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Compares at the image's own size: bicubic probabilities > 0.35 (CRIS, ETRIS, DETRIS `engine.py`).

    Their letterboxing is not undone, as images are resized to the input size here without it.

    Raises:
        S4ecaError: the batch brings no original masks.
    """
    for logit, truth in zip(logits, _original_masks(batch), strict=True):
        yield _resize(logit.float().sigmoid(), truth, "bicubic") > DETRIS_PROBABILITY, truth


def plain_iou(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Returns I / U, 0 where the union is empty (LAVT, RMSIN `test.py`).

    RMSIN's validation loop says 0 where the intersection is empty, which is the same number.
    """
    return np.divide(intersection, union, out=np.zeros(len(union)), where=union > 0)


def smoothed_iou(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Returns I / (U + 1e-6) (CRIS, ETRIS, DETRIS `engine.py`)."""
    return intersection / (union + 1e-6)


def reaches(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Returns I / U >= t as bool (N, 5), in integers, so that an exact 7/10 counts at 0.7."""
    hits = [(union > 0) & (10 * intersection >= tenth * union) for tenth in TENTHS]
    return np.stack(hits, axis=1)


def exceeds(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Returns I / (U + 1e-6) > t as bool (N, 5), with t the float32 numbers of DETRIS.

    An exact 0.5, 0.6 or 0.8 never counts, an exact 0.7 counts from a union of 59 pixels on, an exact 0.9 from 38 on.
    """
    return smoothed_iou(intersection, union)[:, None] > DETRIS_THRESHOLDS


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("lavt", at_input_size, plain_iou, reaches),
        Protocol("original", at_original_size, plain_iou, reaches),
        Protocol("detris", at_original_size_detris, smoothed_iou, exceeds),
    )
}


def _original_masks(batch: Batch) -> list[Tensor]:
    if len(batch.original_masks) != len(batch):
        raise S4ecaError(
            "The batch brings no original masks, which the protocols 'original' and 'detris' compare with: "
            "load the split for evaluation, or evaluate with the protocol 'lavt' alone."
        )
    return batch.original_masks


def _resize(grid: Tensor, like: Tensor, mode: str) -> Tensor:
    """Resizes a map (H, W) to another's size; pixel centres keep their place, as in PIL's resize of the image."""
    return F.interpolate(grid[None, None], size=tuple(like.shape), mode=mode, align_corners=False)[0, 0]


def count_pixels(prediction: Tensor, truth: Tensor) -> Tensor:
    """Returns (intersection, union, truth area) in pixels as int64 (3,), on the masks' device."""
    return torch.stack([(prediction & truth).sum(), (prediction | truth).sum(), truth.sum()])
