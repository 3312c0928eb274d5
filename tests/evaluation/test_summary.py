import math
from dataclasses import replace

import numpy as np
import pytest

from s4eca.errors import S4ecaError
from s4eca.evaluation.summary import PIXELS, SHARES, pixel_buckets, share_buckets, summarise_evaluation


def test_the_structure_is_that_of_metrics_json(evaluation_of):
    evaluation = evaluation_of([(1, 2, 2), (1, 1, 1)], protocols=("lavt", "original"), image_size=480)
    summary = summarise_evaluation(evaluation, replicates=50, seed=3, confidence=0.9)
    assert list(summary) == ["about", "protocols", "intervals", "categories", "sizes"]
    assert summary["about"] == {"dataset": "rrsis_d", "split": "test", "name": "run", "seed": 1, "image_size": 480}
    precision = [f"Pr@0.{tenth}" for tenth in range(5, 10)]
    scores = ["mIoU", "oIoU", *precision, "n", "n_empty", "n_no_target", "N-acc", "T-acc"]
    nonempty = [f"nonempty/{name}" for name in ("mIoU", "oIoU", *precision, "n")]
    for protocol in ("lavt", "original"):
        assert list(summary["protocols"][protocol]) == scores + nonempty
        assert list(summary["categories"][protocol]["(none)"]) == scores
        assert list(summary["intervals"]["protocols"][protocol]) == ["mIoU", "oIoU", *precision]
        assert list(summary["sizes"]["pixels"][protocol]) == ["small", "medium", "large"]
        assert list(summary["sizes"]["share"][protocol]) == ["below 0.1%", "0.1-1%", "1-10%", "10% and more"]
    assert {name: summary["intervals"][name] for name in ("confidence", "replicates", "seed")} == {
        "confidence": 0.9,
        "replicates": 50,
        "seed": 3,
    }
    for low, high in summary["intervals"]["protocols"]["lavt"].values():
        assert low <= high


def test_scores_by_hand(evaluation_of):
    # two targets, a defect, two no-target samples of which one is rejected: IoU 1/2, 3/4, 0
    counts = [(1, 2, 2), (3, 4, 3), (0, 5, 0), (0, 7, 0), (0, 0, 0)]
    summary = summarise_evaluation(evaluation_of(counts, no_target=[False] * 3 + [True] * 2), replicates=0)
    scores = summary["protocols"]["original"]
    assert (scores["n"], scores["n_empty"], scores["n_no_target"], scores["nonempty/n"]) == (3, 1, 2, 2)
    assert scores["mIoU"] == pytest.approx(1.25 / 3)
    assert scores["oIoU"] == 4 / 11
    assert scores["nonempty/mIoU"] == 0.625
    assert scores["nonempty/oIoU"] == 4 / 6
    assert (scores["N-acc"], scores["T-acc"]) == (0.5, 1.0)
    assert summary["intervals"] == {"confidence": 0.95, "replicates": 0, "seed": 0, "protocols": {}}


def test_categories_are_sorted_and_those_without_one_come_last(evaluation_of):
    names = ["ship", None, "dam", "ship", "Airport"]
    evaluation = evaluation_of([(1, 2, 1), (3, 4, 3), (1, 4, 1), (1, 1, 1), (0, 1, 1)], categories=names)
    table = summarise_evaluation(evaluation, replicates=0)["categories"]["original"]
    assert [(name, scores["n"], scores["mIoU"]) for name, scores in table.items()] == [
        ("Airport", 1, 0.0),
        ("dam", 1, 0.25),
        ("ship", 2, 0.75),
        ("(none)", 1, 0.75),
    ]
    assert table["ship"]["oIoU"] == 2 / 3


def test_a_category_of_no_target_samples_alone_has_no_iou(evaluation_of):
    evaluation = evaluation_of([(0, 0, 0), (1, 1, 1)], categories=[None, "dam"], no_target=[True, False])
    table = summarise_evaluation(evaluation, replicates=0)["categories"]["original"]
    assert list(table) == ["dam", "(none)"]
    assert (table["(none)"]["n"], table["(none)"]["n_no_target"], table["(none)"]["N-acc"]) == (0, 1, 1.0)
    assert math.isnan(table["(none)"]["mIoU"])


def test_pixel_buckets_split_at_coco_areas(evaluation_of):
    areas = [0, 1, 1023, 1024, 9215, 9216, 10_000]
    samples = evaluation_of([(0, 1, 1)] * 7, areas=areas).samples
    assert pixel_buckets(samples).tolist() == [-1, 0, 0, 1, 1, 2, 2]
    assert PIXELS == ("small", "medium", "large")


def test_share_buckets_split_at_decades_exactly(evaluation_of):
    # of 200 x 300 = 60,000 pixels: 60, 600 and 6,000 are the bounds
    areas = [0, 59, 60, 599, 600, 5999, 6000, 60_000]
    samples = evaluation_of([(0, 1, 1)] * 8, areas=areas, size=(200, 300)).samples
    assert share_buckets(samples).tolist() == [-1, 0, 1, 1, 2, 2, 3, 3]
    assert len(SHARES) == 4


def test_sizes_are_those_of_the_image_file_whatever_the_protocol(evaluation_of):
    """Rows of `lavt` count pixels at input size; a target that is small in the file is small under every protocol."""
    evaluation = evaluation_of(
        [(300, 400, 400), (1, 2, 2), (0, 9, 0), (0, 3, 0)],
        areas=[9216, 1000, 0, 0],
        no_target=[False, False, False, True],
        protocols=("lavt", "original"),
    )
    sizes = summarise_evaluation(evaluation, replicates=0)["sizes"]
    for protocol in ("lavt", "original"):
        assert {name: scores["n"] for name, scores in sizes["pixels"][protocol].items()} == {
            "small": 1,
            "medium": 0,
            "large": 1,
        }
        assert sizes["pixels"][protocol]["large"]["mIoU"] == 0.75
        assert [scores["n"] for scores in sizes["share"][protocol].values()] == [0, 0, 0, 2]
        assert math.isnan(sizes["pixels"][protocol]["medium"]["mIoU"])


def test_no_samples_at_all(evaluation_of):
    summary = summarise_evaluation(evaluation_of([]))
    assert summary["protocols"]["original"]["n"] == 0
    assert summary["categories"]["original"] == {}
    assert all(np.isnan(bounds).all() for bounds in summary["intervals"]["protocols"]["original"].values())


@pytest.mark.parametrize(
    ("options", "named"),
    [({"replicates": -1}, "-1 replicates"), ({"confidence": 95}, "confidence 95"), ({"seed": -2}, "seed -2")],
)
def test_settings_that_make_no_sense_are_refused(evaluation_of, options, named):
    with pytest.raises(S4ecaError, match=named):
        summarise_evaluation(evaluation_of([(1, 1, 1)]), **options)


def test_samples_without_the_empty_truths_have_intervals_of_their_own(evaluation_of):
    full = [(1, 2, 2), (3, 4, 3), (2, 5, 4), (6, 6, 6)]
    everything = evaluation_of([*full, (0, 5, 0), (0, 3, 0)], no_target=[False] * 5 + [True])
    bounds = summarise_evaluation(everything, replicates=200)["intervals"]["protocols"]["original"]
    # the same as of an evaluation that never had the defect
    alone = summarise_evaluation(evaluation_of([*full, (0, 3, 0)], no_target=[False] * 4 + [True]), replicates=200)
    expected = alone["intervals"]["protocols"]["original"]
    assert not any(name.startswith("nonempty/") for name in expected)
    for name in ("mIoU", "oIoU", "Pr@0.5", "Pr@0.9"):
        assert bounds[f"nonempty/{name}"] == expected[name]
    assert bounds["mIoU"] != expected["mIoU"]


def test_scores_per_kind_of_expression(evaluation_of):
    evaluation = evaluation_of([(1, 2, 2), (3, 4, 3), (0, 5, 1)], protocols=("lavt", "original"))
    assert "kinds" not in summarise_evaluation(evaluation, replicates=0)
    samples = [
        replace(sample, kind=kind) for sample, kind in zip(evaluation.samples, ("size", None, "class"), strict=True)
    ]
    kinds = summarise_evaluation(replace(evaluation, samples=samples), replicates=0)["kinds"]
    assert list(kinds) == ["lavt", "original"]
    found = {name: (scores["mIoU"], scores["n"]) for name, scores in kinds["original"].items()}
    assert list(found.items()) == [("class", (0.0, 1)), ("size", (0.5, 1)), ("(none)", (0.75, 1))]
