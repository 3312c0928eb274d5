import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.evaluation.semantic.metric import SemanticMetric, score_confusion, summarise_semantic

# three classes by hand: background, a, b
TRUTH = [[0, 0, 1], [1, 2, 255]]
PREDICTION = [[0, 1, 1], [2, 2, 0]]


def counted(*pairs, num_classes: int = 3) -> np.ndarray:
    metric = SemanticMetric(num_classes)
    for prediction, labels in pairs:
        metric.update(torch.tensor(prediction, dtype=torch.uint8), torch.tensor(labels, dtype=torch.uint8))
    return metric.compute().numpy()


def looped(pairs, num_classes: int) -> np.ndarray:
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for prediction, labels in pairs:
        for guess, label in zip(np.ravel(prediction), np.ravel(labels), strict=True):
            if label != 255:
                matrix[label, guess] += 1
    return matrix


def test_the_matrix_by_hand_leaves_ignored_pixels_out():
    assert counted((PREDICTION, TRUTH)).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_the_scores_by_hand():
    scores = score_confusion(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
    assert scores.iou.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 2])
    assert scores.recall.tolist() == pytest.approx([1 / 2, 1 / 2, 1])
    assert scores.precision.tolist() == pytest.approx([1, 1 / 2, 1 / 2])
    assert scores.as_dict() == pytest.approx(
        {"mIoU3": (1 / 2 + 1 / 3 + 1 / 2) / 3, "mIoU2": (1 / 3 + 1 / 2) / 2, "pixel_accuracy": 3 / 5, "mAcc": 2 / 3}
    )


def test_background_taken_for_an_object_lowers_the_score_of_the_objects():
    right, wrong = counted(([[0, 1]], [[0, 1]])), counted(([[1, 1]], [[0, 1]]))
    assert score_confusion(right).miou_objects == 1
    assert score_confusion(wrong).miou_objects == 0.5


def test_classes_without_a_value_are_left_out_of_the_means():
    # class 1 is predicted only, class 2 in the truth only, class 3 in neither
    scores = score_confusion(counted(([[0, 1, 0]], [[0, 0, 2]]), num_classes=4))
    assert scores.iou.tolist() == pytest.approx([1 / 3, 0, 0, math.nan], nan_ok=True)
    assert scores.recall.tolist() == pytest.approx([1 / 2, math.nan, 0, math.nan], nan_ok=True)
    assert scores.precision.tolist() == pytest.approx([1 / 2, 0, math.nan, math.nan], nan_ok=True)
    assert (scores.miou_all, scores.miou_objects, scores.mean_accuracy) == pytest.approx((1 / 9, 0, 1 / 4))


def test_nothing_counted_has_no_score():
    scores = score_confusion(counted(([[0, 0]], [[255, 255]])))
    assert all(math.isnan(value) for value in scores.as_dict().values())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_matrix_of_a_split_is_that_of_a_plain_loop(seed, images):
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        size = random.integers(1, 9, 2)
        labels = random.integers(0, 17, size)
        pairs.append((random.integers(0, 16, size).tolist(), np.where(labels == 16, 255, labels).tolist()))
    assert counted(*pairs, num_classes=16).tolist() == looped(pairs, 16).tolist()


def test_two_halves_of_a_split_add_up():
    random = np.random.default_rng(0)
    pairs = [(random.integers(0, 16, (7, 5)).tolist(), random.integers(0, 16, (7, 5)).tolist()) for _ in range(4)]
    halves = []
    for half in (pairs[:2], pairs[2:]):
        metric = SemanticMetric()
        for prediction, labels in half:
            metric.update(torch.tensor(prediction, dtype=torch.uint8), torch.tensor(labels, dtype=torch.uint8))
        halves.append(metric)
    # what torchmetrics does to the states of two processes
    (state,) = halves[0]._reductions
    joined = halves[0]._reductions[state](torch.stack([getattr(half, state) for half in halves]))
    assert joined.tolist() == looped(pairs, 16).tolist()


@pytest.mark.parametrize(
    ("prediction", "labels", "reason"),
    [
        ([[0, 1]], [[0], [1]], r"a prediction of \(1, 2\) for labels of \(2, 1\)"),
        ([[0, 3]], [[0, 1]], "1 predictions outside 0 … 2"),
        ([[0, 1]], [[254, 3]], "2 labels outside 0 … 2"),
        ([[0, 255]], [[0, 255]], "1 predictions outside"),
    ],
)
def test_what_is_no_class_is_refused_before_it_is_counted(prediction, labels, reason):
    metric = SemanticMetric(3)
    with pytest.raises(ValueError, match=reason):
        metric.update(torch.tensor(prediction, dtype=torch.uint8), torch.tensor(labels, dtype=torch.uint8))
    assert metric.confmat.sum() == 0


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="where both are uint8"):
        SemanticMetric(3).update(torch.tensor([[0]]), torch.tensor([[0]], dtype=torch.uint8))


def test_the_summary_holds_every_number():
    summary = summarise_semantic(
        score_confusion(counted((PREDICTION, TRUTH))), {"dataset": "isaid"}, ["background", "a", "b"], images=1
    )
    assert (summary["about"], summary["task"]) == ({"dataset": "isaid"}, "semantic")
    assert (summary["scores"]["images"], summary["scores"]["pixels"]) == (1, 5)
    assert summary["classes"]["b"] == {
        "IoU": 0.5,
        "recall": 1,
        "precision": 0.5,
        "truth_pixels": 1,
        "predicted_pixels": 2,
    }
    assert summary["confusion"] == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
    with pytest.raises(ValueError, match="zip"):
        summarise_semantic(score_confusion(np.eye(3)), {}, ["background", "a"], images=1)
