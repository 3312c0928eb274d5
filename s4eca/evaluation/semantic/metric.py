"""The metric of semantic segmentation: one confusion matrix over the whole split, and all scores from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from s4eca.data.semantic.labelled import IGNORED


class SemanticMetric(MulticlassConfusionMatrix):
    """Counts pixels by true and predicted class over all images and processes.

    `compute` returns the matrix (C, C) int64, a row per true class and a column per predicted one. Pixels whose label
    is `IGNORED` are not counted.

    Args:
        num_classes: C, background included.
    """

    def __init__(self, num_classes: int = 16) -> None:
        # `update` counts and checks in one pass instead
        super().__init__(num_classes, ignore_index=IGNORED, validate_args=False)

    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """Counts one image, or several of one size.

        Args:
            prediction: (…, H, W) uint8, class ids.
            labels: the same shape, uint8, class ids and `IGNORED`.

        Raises:
            ValueError: other shapes or types, or a value that is no class; nothing is counted then.
        """
        if prediction.shape != labels.shape:
            raise ValueError(f"a prediction of {tuple(prediction.shape)} for labels of {tuple(labels.shape)}")
        if prediction.dtype != torch.uint8 or labels.dtype != torch.uint8:
            raise ValueError(f"a prediction of {prediction.dtype} and labels of {labels.dtype} where both are uint8")
        counts = torch.bincount((labels.long() * 256 + prediction).flatten(), minlength=256 * 256).view(256, 256)
        wrong_labels = counts.sum(dim=1)
        wrong_labels[: self.num_classes] = wrong_labels[IGNORED] = 0
        for name, wrong in (("label", wrong_labels), ("prediction", counts[:, self.num_classes :].sum(dim=0))):
            if wrong.any():
                raise ValueError(f"{int(wrong.sum())} {name}s outside 0 … {self.num_classes - 1}")
        self.confmat += counts[: self.num_classes, : self.num_classes]


@dataclass(frozen=True, eq=False)
class SemanticScores:
    """What a confusion matrix is worth; fractions.

    A class without a value is NaN and left out of the means, as in mmsegmentation's `IoUMetric`: its IoU where it is
    neither in the truth nor predicted, its recall where it is not in the truth, its precision where it is not
    predicted.

    Attributes:
        matrix: (C, C) int64, a row per true class.
        iou: (C,) TP / (TP + FP + FN).
        recall: (C,) TP / (TP + FN), mmsegmentation's Acc.
        precision: (C,) TP / (TP + FP).
        pixel_accuracy: share of the counted pixels whose class is right, mmsegmentation's aAcc.
        mean_accuracy: mean of the recalls, background included.
        miou_all: mean of the IoUs, background included.
        miou_objects: mean of the IoUs without background's. Background pixels count all the same: one that is
            predicted as an object is a false positive of that class.
    """

    matrix: np.ndarray
    iou: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    pixel_accuracy: float
    mean_accuracy: float
    miou_all: float
    miou_objects: float

    def as_dict(self) -> dict[str, float]:
        """Returns the scores by name; for iSAID they are `mIoU16`, `mIoU15`, `pixel_accuracy` and `mAcc`."""
        return {
            f"mIoU{len(self.iou)}": self.miou_all,
            f"mIoU{len(self.iou) - 1}": self.miou_objects,
            "pixel_accuracy": self.pixel_accuracy,
            "mAcc": self.mean_accuracy,
        }


def score_confusion(matrix: np.ndarray | Tensor) -> SemanticScores:
    """Scores a confusion matrix (C, C), a row per true class and a column per predicted one, background first."""
    counts = np.asarray(matrix.cpu() if isinstance(matrix, Tensor) else matrix).astype(np.int64)
    right, truth, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    iou, recall = _share(right, truth + predicted - right), _share(right, truth)
    return SemanticScores(
        matrix=counts,
        iou=iou,
        recall=recall,
        precision=_share(right, predicted),
        pixel_accuracy=float(_share(right.sum(), counts.sum())),
        mean_accuracy=_mean(recall),
        miou_all=_mean(iou),
        miou_objects=_mean(iou[1:]),
    )


def summarise_semantic(
    scores: SemanticScores, about: Mapping[str, Any], labels: Sequence[str], images: int
) -> dict[str, Any]:
    """Returns all numbers of an evaluation as plain values, as `metrics.json` holds them.

    Args:
        scores: of the whole split.
        about: what was evaluated, plain values: `dataset`, `split`, `name` and what the producer adds.
        labels: names of the classes in the order of their ids, background first.
        images: number of images that were counted.

    Returns:
        `about`; `task`, which is `semantic`; `scores` (those of `SemanticScores.as_dict`, `images`, and `pixels` that
        were counted); `classes`, for each name IoU, recall, precision, and the pixels of the truth and of the
        prediction; `confusion`, the matrix.

    Raises:
        ValueError: the labels are not one per class.
    """
    truth, predicted = scores.matrix.sum(axis=1).tolist(), scores.matrix.sum(axis=0).tolist()
    columns = (scores.iou.tolist(), scores.recall.tolist(), scores.precision.tolist(), truth, predicted)
    names = ("IoU", "recall", "precision", "truth_pixels", "predicted_pixels")
    return {
        "about": dict(about),
        "task": "semantic",
        "scores": {**scores.as_dict(), "images": images, "pixels": sum(truth)},
        "classes": {
            label: dict(zip(names, values, strict=True)) for label, *values in zip(labels, *columns, strict=True)
        },
        "confusion": scores.matrix.tolist(),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divides; NaN where the whole is 0."""
    return np.where(whole == 0, np.nan, part / np.maximum(whole, 1))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
