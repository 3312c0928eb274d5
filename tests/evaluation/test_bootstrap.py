import math

import numpy as np
import pytest

from s4eca.evaluation import bootstrap
from s4eca.evaluation.bootstrap import Bootstrap, interval, intervals, replicate

IMAGES = ["b", "a", "b", "d", "c", "a", "b", "d"]
COUNTS = [(3, 6, 4), (7, 10, 8), (0, 9, 9), (0, 0, 0), (5, 5, 5), (0, 4, 0), (0, 0, 0), (9, 10, 9)]
NO_TARGET = [False, False, False, False, False, True, True, False]


def slow(draws: np.ndarray, detris: bool = False) -> dict[str, list[float]]:
    """Scores of the samples above for each draw of images (numbered a, b, c, d), one sample after the other."""
    result: dict[str, list[float]] = {name: [] for name in ("mIoU", "oIoU", "Pr@0.5", "Pr@0.9", "N-acc", "T-acc")}
    for draw in draws:
        ious, intersections, unions, found, rejected = [], 0, 0, [], []
        for image in draw:
            for name, (intersection, union, area), no_target in zip(IMAGES, COUNTS, NO_TARGET, strict=True):
                if name != "abcd"[image]:
                    continue
                predicted = union - area + intersection
                if no_target:
                    rejected.append(predicted == 0)
                    continue
                found.append(predicted > 0)
                ious.append(intersection / (union + 1e-6) if detris else intersection / union if union else 0.0)
                intersections, unions = intersections + intersection, unions + union
        result["mIoU"].append(np.mean(ious) if ious else math.nan)
        result["oIoU"].append(intersections / unions if unions else 0.0 if ious else math.nan)
        for threshold in (0.5, 0.9):
            # the float32 numbers nearest to 0.5 is itself, and to 0.9 a smaller one
            hits = [iou > float(np.float32(threshold)) if detris else iou >= threshold for iou in ious]
            result[f"Pr@{threshold}"].append(np.mean(hits) if hits else math.nan)
        result["N-acc"].append(np.mean(rejected) if rejected else math.nan)
        result["T-acc"].append(np.mean(found) if found else math.nan)
    return result


@pytest.fixture
def evaluation(evaluation_of):
    return evaluation_of(COUNTS, images=IMAGES, no_target=NO_TARGET, protocols=("original", "detris"))


def test_replicates_are_those_of_a_slow_loop_over_the_same_draws(evaluation):
    settings = Bootstrap(replicates=300, seed=5)
    draws = np.random.default_rng(5).integers(4, size=(300, 4))
    ours = replicate(evaluation.rows, IMAGES, settings)
    for protocol in ("original", "detris"):
        wanted = slow(draws, detris=protocol == "detris")
        for name, values in wanted.items():
            np.testing.assert_allclose(ours[protocol][name], values, rtol=0, atol=1e-12, err_msg=name)
    assert np.isnan(wanted["N-acc"]).any(), "some draws have no no-target sample"


def test_intervals_are_percentiles_of_the_replicates(evaluation):
    settings = Bootstrap(replicates=300, seed=5, confidence=0.8)
    wanted = slow(np.random.default_rng(5).integers(4, size=(300, 4)))
    ours = intervals(evaluation, settings)["original"]
    for name, values in wanted.items():
        known = sorted(value for value in values if not math.isnan(value))
        for bound, share in zip(ours[name], (0.1, 0.9), strict=True):
            place = share * (len(known) - 1)
            below, above = known[math.floor(place)], known[math.ceil(place)]
            assert bound == pytest.approx(below + (place - math.floor(place)) * (above - below), abs=1e-12), name


def test_draws_depend_on_the_seed_and_not_on_how_many_are_held_at_once(evaluation, monkeypatch):
    first = intervals(evaluation, Bootstrap(replicates=200))
    assert intervals(evaluation, Bootstrap(replicates=200)) == first
    assert intervals(evaluation, Bootstrap(replicates=200, seed=1)) != first
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 30)  # seven replicates of four images
    assert intervals(evaluation, Bootstrap(replicates=200)) == first


def test_references_on_one_image_are_drawn_together(evaluation_of):
    """Four references with the same overlap on each image say no more than one, and the interval stays as wide."""
    rng = np.random.default_rng(1)
    counts = [(int(i), 100, 100) for i in rng.integers(0, 101, 30)]
    alone = evaluation_of(counts)
    fourfold = evaluation_of(counts * 4, images=[sample.image for sample in alone.samples] * 4)
    apart = evaluation_of(counts * 4)
    settings = Bootstrap(replicates=500)
    one, together, separate = (intervals(which, settings)["original"] for which in (alone, fourfold, apart))
    for name, bounds in one.items():
        assert together[name] == pytest.approx(bounds, abs=1e-12)
    ratio = (separate["mIoU"][1] - separate["mIoU"][0]) / (one["mIoU"][1] - one["mIoU"][0])
    assert ratio == pytest.approx(0.5, abs=0.1), "four times the images would halve it"


def test_an_interval_of_the_mean_is_as_wide_as_theory_says(evaluation_of):
    rng = np.random.default_rng(2)
    overlaps = rng.integers(0, 101, 400)
    low, high = intervals(evaluation_of([(int(i), 100, 100) for i in overlaps]), Bootstrap())["original"]["mIoU"]
    half = 1.96 * overlaps.std() / 100 / math.sqrt(400)
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    assert (high + low) / 2 == pytest.approx(overlaps.mean() / 100, abs=0.1 * half)


def test_intervals_cover_the_truth_as_often_as_they_say(evaluation_of):
    """300 data sets of 100 images with 1 to 4 references, whose difficulty is the image's: the mean IoU is 0.6."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        references = rng.integers(1, 5, 100)
        difficulty = np.repeat(rng.uniform(0.3, 0.9, 100), references)
        overlaps = rng.binomial(1000, difficulty)
        images = np.repeat([f"{i}.jpg" for i in range(100)], references).tolist()
        evaluation = evaluation_of([(int(i), 1000, 1000) for i in overlaps], images=images)
        low, high = intervals(evaluation, Bootstrap(replicates=400))["original"]["mIoU"]
        covered += low <= 0.6 <= high
    assert 0.90 <= covered / 300 <= 0.99


def test_accuracies_have_intervals_where_there_are_no_target_samples(evaluation, evaluation_of):
    assert {"N-acc", "T-acc"} <= intervals(evaluation, Bootstrap(10))["original"].keys()
    assert not {"N-acc", "T-acc"} & intervals(evaluation_of([(1, 1, 1)]), Bootstrap(10))["original"].keys()


def test_an_interval_of_nothing_is_nan():
    assert np.isnan(interval(np.array([np.nan, np.nan]), 0.95)).all()
    assert interval(np.array([np.nan, 0.25]), 0.95) == (0.25, 0.25)


def test_one_image_has_no_spread(evaluation_of):
    evaluation = evaluation_of([(1, 2, 2), (1, 4, 4)], images=["a", "a"])
    assert intervals(evaluation, Bootstrap(20))["original"]["mIoU"] == [0.375, 0.375]
