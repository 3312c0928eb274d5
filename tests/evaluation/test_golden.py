"""The scores against the formulas of the published evaluation scripts, written out here as plain loops.

Each function tells in its own words what one script computes from the masks, in double precision.
"""

import numpy as np
import pytest
import torch

from s4eca.evaluation.metrics import ReferringMetrics

HEIGHT, WIDTH = 25, 40


def overlap(intersection: int, union: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A prediction inside its truth with so many pixels in common and in all, at scattered places."""
    prediction, truth = np.zeros((2, HEIGHT * WIDTH), bool)
    truth[order[:union]] = True
    prediction[order[:intersection]] = True
    return prediction.reshape(HEIGHT, WIDTH), truth.reshape(HEIGHT, WIDTH)


def hand_made() -> tuple[np.ndarray, np.ndarray]:
    """Predictions and truths (N, H, W): the corners of the definitions, and every threshold met exactly."""
    order = np.random.default_rng(0).permutation(HEIGHT * WIDTH)
    nothing, everything = np.zeros((HEIGHT, WIDTH), bool), np.ones((HEIGHT, WIDTH), bool)
    left = np.arange(WIDTH)[None] < WIDTH // 2
    pairs = [
        (nothing, nothing),  # both empty
        (everything, nothing),  # the truth is empty
        (nothing, everything),  # the prediction is empty
        (nothing | left, nothing | ~left),  # both there, nothing in common
        (everything, everything),
        overlap(1, 1, order),
    ]
    for tenth in (5, 6, 7, 8, 9):
        # exactly t: small, around the sizes from which DETRIS counts 7/10 (59) and 9/10 (38), and large
        pairs += [overlap(tenth * tens, 10 * tens, order) for tens in (1, 2, 3, 4, 5, 6, 7, 30, 100)]
        # one pixel to either side
        pairs += [overlap(tenth * 100 + step, 1000, order) for step in (-1, 1)]
    # the prediction around the truth instead of inside it
    pairs += [pair[::-1] for pair in pairs[6:20]]
    predictions, truths = (np.stack(masks) for masks in zip(*pairs, strict=True))
    return predictions, truths


def count(prediction: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    intersection = union = 0
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        intersection += p and t
        union += p or t
    return intersection, union


def lavt_test(predictions: np.ndarray, truths: np.ndarray) -> dict[str, float]:
    """LAVT's and RMSIN's test.py: a sample without any pixel scores 0, a threshold counts when reached."""
    hits = [0] * 5
    total_iou, all_intersections, all_unions, seen = 0.0, 0, 0, 0
    for prediction, truth in zip(predictions, truths, strict=True):
        intersection, union = count(prediction, truth)
        iou = 0.0 if union == 0 else intersection * 1.0 / union
        total_iou += iou
        all_intersections += intersection
        all_unions += union
        for place, threshold in enumerate((0.5, 0.6, 0.7, 0.8, 0.9)):
            hits[place] += iou >= threshold
        seen += 1
    return named(total_iou / seen, all_intersections / all_unions, [hit / seen for hit in hits])


def rmsin_validation(predictions: np.ndarray, truths: np.ndarray) -> dict[str, float]:
    """RMSIN's loop in train.py: a sample without a common pixel scores 0, a threshold counts when reached."""
    ious, all_intersections, all_unions = [], 0, 0
    for prediction, truth in zip(predictions, truths, strict=True):
        intersection, union = count(prediction, truth)
        ious.append(intersection / union if intersection != 0 else 0.0)
        all_intersections, all_unions = all_intersections + intersection, all_unions + union
    precision = [sum(iou >= threshold for iou in ious) / len(ious) for threshold in (0.5, 0.6, 0.7, 0.8, 0.9)]
    return named(sum(ious) / len(ious), all_intersections / all_unions, precision)


def detris_engine(predictions: np.ndarray, truths: np.ndarray) -> dict[str, float]:
    """engine.py of CRIS, ETRIS and DETRIS: 1e-6 in the denominator, thresholds of a float32 range to be exceeded.

    The overall IoU, which DETRIS prints since March 2025 only, is taken as the plain ratio of the sums.
    """
    ious, all_intersections, all_unions = [], 0, 0
    for prediction, truth in zip(predictions, truths, strict=True):
        intersection, union = count(prediction, truth)
        ious.append(intersection / (union + 1e-6))
        all_intersections, all_unions = all_intersections + intersection, all_unions + union
    precision = []
    for threshold in torch.arange(0.5, 1.0, 0.1).tolist():  # what the float32 numbers are in double precision
        precision.append(sum(iou > threshold for iou in ious) / len(ious))
    return named(sum(ious) / len(ious), all_intersections / all_unions, precision)


def named(miou: float, oiou: float, precision: list[float]) -> dict[str, float]:
    return {"mIoU": miou, "oIoU": oiou} | {f"Pr@0.{i}": share for i, share in enumerate(precision, start=5)}


@pytest.fixture(scope="module")
def masks() -> tuple[np.ndarray, np.ndarray]:
    return hand_made()


@pytest.fixture(scope="module")
def metric(masks, make_batch) -> ReferringMetrics:
    """The metric after batches of uneven size, logits of either sign, truths of one size everywhere."""
    predictions, truths = masks
    metric = ReferringMetrics()
    for start in range(0, len(truths), 7):
        part = slice(start, start + 7)
        logits = torch.from_numpy(np.where(predictions[part], 3.0, -3.0)).float()
        metric.update(logits, make_batch(truths[part], index=range(start, start + len(truths[part]))))
    return metric


@pytest.mark.parametrize(
    ("protocol", "formula"),
    [
        ("lavt", lavt_test),
        ("original", lavt_test),
        ("lavt", rmsin_validation),
        ("original", rmsin_validation),
        ("detris", detris_engine),
    ],
)
def test_scores_are_those_of_the_published_formulas(masks, metric, protocol, formula):
    ours = metric.compute()[protocol]
    wanted = formula(*masks)
    assert {name: ours[name] for name in wanted} == pytest.approx(wanted, rel=0, abs=1e-12)


def test_the_masks_tell_the_formulas_apart(masks):
    """What the test above could not see if it were otherwise."""
    lavt, detris = lavt_test(*masks), detris_engine(*masks)
    assert abs(lavt["mIoU"] - detris["mIoU"]) > 1e-9
    assert all(lavt[f"Pr@0.{tenth}"] > detris[f"Pr@0.{tenth}"] for tenth in range(5, 10))


def test_exact_thresholds_one_by_one(make_batch):
    """(tenth, union) -> hit: lavt always; detris by the sizes that exact arithmetic gives (59 for 0.7, 38 for 0.9)."""
    order = np.random.default_rng(1).permutation(HEIGHT * WIDTH)
    for tenth in (5, 6, 7, 8, 9):
        for union in (10, 30, 40, 50, 60, 1000):
            prediction, truth = overlap(tenth * union // 10, union, order)
            metric = ReferringMetrics(("lavt", "detris"))
            metric.update(torch.from_numpy(np.where(prediction, 3.0, -3.0)).float()[None], make_batch(truth[None]))
            scores = metric.compute()
            assert scores["lavt"][f"Pr@0.{tenth}"] == 1.0
            counts = (tenth == 7 and union >= 59) or (tenth == 9 and union >= 38)
            assert scores["detris"][f"Pr@0.{tenth}"] == counts, (tenth, union)
