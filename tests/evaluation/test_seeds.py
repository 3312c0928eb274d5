import json
import math

import pytest

from s4eca.errors import S4ecaError
from s4eca.evaluation.seeds import over_seeds


def run(miou: float | None, n: int = 4, split: str = "test", protocol: str = "original", **scores) -> dict:
    counts = {"n": n, "n_empty": 1, "n_no_target": 0, "nonempty/n": n - 1}
    return {
        "about": {"dataset": "rrsis_d", "split": split, "seed": 1},
        "protocols": {protocol: {"mIoU": miou, **scores, **counts}},
    }


def test_mean_and_sample_deviation_by_hand():
    # mean 0.6, squares 0.01 + 0 + 0.01, divided by 2: 0.01, whose root is 0.1
    runs = [run(0.5, oIoU=0.25), run(0.6, oIoU=0.25), run(0.7, oIoU=0.25)]
    scores = over_seeds(runs)["original"]
    assert scores["mIoU"] == (pytest.approx(0.6), pytest.approx(0.1), 3)
    assert scores["oIoU"] == (0.25, 0.0, 3)
    assert list(scores) == ["mIoU", "oIoU"], "counts are no scores"


def test_one_run_has_no_deviation():
    mean, deviation, runs = over_seeds([run(0.5)])["original"]["mIoU"]
    assert (mean, runs) == (0.5, 1)
    assert math.isnan(deviation)


def test_runs_without_a_value_are_not_counted_whether_nan_or_null():
    stored = json.loads(json.dumps(run(None, **{"N-acc": None})))
    scores = over_seeds([stored, run(0.2, **{"N-acc": math.nan}), run(0.4, **{"N-acc": math.nan})])["original"]
    assert scores["mIoU"] == (pytest.approx(0.3), pytest.approx(math.sqrt(0.02)), 2)
    mean, deviation, runs = scores["N-acc"]
    assert math.isnan(mean)
    assert math.isnan(deviation)
    assert runs == 0


def test_a_protocol_that_some_runs_lack_counts_those_that_have_it():
    both = run(0.5)
    both["protocols"] |= run(0.3, protocol="lavt")["protocols"]
    scores = over_seeds([both, run(0.7)])
    assert scores["original"]["mIoU"][2] == 2
    assert scores["lavt"]["mIoU"][2] == 1


def test_no_runs_give_nothing():
    assert over_seeds([]) == {}


@pytest.mark.parametrize(
    ("other", "named"), [(run(0.5, split="val"), r"split differs \(test, val\)"), (run(0.5, n=5), r"n under original")]
)
def test_runs_on_other_data_are_refused(other, named):
    with pytest.raises(S4ecaError, match=named):
        over_seeds([run(0.5), other])
