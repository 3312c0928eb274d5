"""A made-up semantic evaluation, for the tests of its report."""

from typing import Any

import numpy as np
import torch

from fake_isaid import make_scene
from s4eca.data.semantic.palette import ISAID_LABELS
from s4eca.evaluation.semantic.metric import SemanticMetric, score_confusion, summarise_semantic
from s4eca.evaluation.semantic.pictures import SemanticPicture


def make_semantic(images: int = 3, side: int = 60, **about: Any) -> tuple[dict[str, Any], list[SemanticPicture]]:
    """Returns summary and pictures; class 15 is in neither truth nor prediction, class 14 is never predicted."""
    metric, pictures = SemanticMetric(), []
    for index in range(images):
        image, truth = make_scene((side, side), index)
        truth = truth % 15
        prediction = np.where(truth == 14, 0, truth).astype(np.uint8)
        prediction[: side // 4] = 0
        truth[:, -1] = 255
        metric.update(torch.from_numpy(prediction), torch.from_numpy(truth))
        pictures.append(SemanticPicture(index, f"P{index:04}_0_{side}_0_{side}", image, truth, prediction))
    facts = {"dataset": "isaid", "split": "val", "name": "run", "seed": 1, **about}
    return summarise_semantic(score_confusion(metric.compute()), facts, ISAID_LABELS, images), pictures
