import math
from datetime import timedelta

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.data.references import Batch
from s4eca.errors import S4ecaError
from s4eca.evaluation.metrics import ReferringMetrics, row, summarise, without_empty


def rows_of(*pairs: tuple[int, int]) -> np.ndarray:
    """Rows from (intersection, union); the truth has one pixel unless the union is empty."""
    return np.array([[i, inter, union, min(union, 1), -1, 0] for i, (inter, union) in enumerate(pairs)], dtype=np.int64)


def random_case(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and truths (n, 6, 6); some are empty, most overlap well."""
    rng = np.random.default_rng(seed)
    truths = rng.random((n, 6, 6)) < rng.choice([0, 0.3, 0.8], (n, 1, 1))
    flips = rng.random((n, 6, 6)) < rng.choice([0, 0.05, 0.3], (n, 1, 1))
    return truths ^ flips, truths


def as_logits(predictions: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.where(predictions, 5.0, -5.0)).float()


def brute_force(predictions: np.ndarray, truths: np.ndarray) -> dict[str, float]:
    """The LAVT protocol in plain Python, pixel by pixel."""
    ious, total_intersection, total_union = [], 0, 0
    for prediction, truth in zip(predictions, truths, strict=True):
        intersection = union = 0
        for p, t in zip(prediction.ravel(), truth.ravel(), strict=True):
            intersection += int(p and t)
            union += int(p or t)
        ious.append(intersection / union if union else 0.0)
        total_intersection += intersection
        total_union += union
    scores = {
        "mIoU": sum(ious) / len(ious),
        "oIoU": total_intersection / total_union if total_union else 0.0,
        "n": len(ious),
        "n_empty": sum(not truth.any() for truth in truths),
        "n_no_target": 0,
        "T-acc": sum(prediction.any() for prediction in predictions) / len(predictions),
    }
    for threshold in ("0.5", "0.6", "0.7", "0.8", "0.9"):
        scores[f"Pr@{threshold}"] = sum(iou >= float(threshold) for iou in ious) / len(ious)
    return scores


def assert_same_scores(ours: dict, theirs: dict) -> None:
    """Exactly the same, NaN being the same as NaN."""
    assert ours.keys() == theirs.keys()
    for protocol, scores in ours.items():
        assert scores == pytest.approx(theirs[protocol], rel=0, abs=0, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_scores_agree_with_brute_force_whatever_the_batches(seed, sizes, make_batch):
    predictions, truths = random_case(seed, sum(sizes))
    metric = ReferringMetrics(("lavt", "original"))
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        metric.update(as_logits(predictions[part]), make_batch(truths[part], index=range(start, start + size)))
        start += size
    scores = metric.compute()
    expected = brute_force(predictions, truths)
    full = truths.any((1, 2))
    if full.any():
        nonempty = brute_force(predictions[full], truths[full])
        del nonempty["n_empty"], nonempty["n_no_target"], nonempty["T-acc"]
        expected |= {f"nonempty/{name}": value for name, value in nonempty.items()}
        assert scores["lavt"].keys() == expected.keys() | {"N-acc"}
    assert math.isnan(scores["lavt"]["N-acc"])
    assert {name: scores["lavt"][name] for name in expected} == pytest.approx(expected)
    # at equal sizes the two protocols are one
    assert scores["original"] == pytest.approx(scores["lavt"], nan_ok=True)


def test_two_samples_by_hand(make_batch):
    """Truth 4 px, predicted 2 of them and 1 beside: I 2, U 5. Truth 2 px, both predicted: I 2, U 2."""
    truths = np.array([[[1, 1, 1], [1, 0, 0]], [[1, 0, 0], [1, 0, 0]]], dtype=bool)
    predictions = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [1, 0, 0]]], dtype=bool)
    metric = ReferringMetrics()
    metric.update(as_logits(predictions), make_batch(truths, index=[12, 7]))
    rows, sizes = metric.gathered()
    assert rows["lavt"].tolist() == [[7, 2, 2, 2, -1, 0], [12, 2, 5, 4, -1, 0]]
    assert sizes.tolist() == [[7, 2, 3, 2], [12, 2, 3, 4]]
    scores = metric.compute()
    for protocol in ("lavt", "original"):
        assert scores[protocol]["mIoU"] == pytest.approx((2 / 5 + 1) / 2)
        assert scores[protocol]["oIoU"] == pytest.approx(4 / 7)
        assert [scores[protocol][f"Pr@0.{t}"] for t in range(5, 10)] == [0.5] * 5
    assert scores["detris"]["mIoU"] == pytest.approx((2 / 5.000001 + 2 / 2.000001) / 2, abs=1e-12)
    assert scores["detris"]["oIoU"] == pytest.approx(4 / 7)


def test_protocols_differ_on_exact_thresholds():
    rows = rows_of((3, 5), (5, 10), (7, 10), (70, 100), (9, 10))
    lavt, detris = summarise(rows, "lavt"), summarise(rows, "detris")
    assert lavt.precision == (1.0, 0.8, 0.6, 0.2, 0.2)
    # 5/10 and 3/5 are lost at their threshold, 7/10 and 9/10 are too small, 70/100 is large enough
    assert detris.precision == (0.8, 0.6, 0.4, 0.2, 0.0)


def test_empty_truths_are_counted_in_and_out(make_batch):
    truths = np.zeros((3, 2, 2), bool)
    predictions = np.zeros((3, 2, 2), bool)
    truths[0], predictions[0, 0] = True, True  # I 2, U 4
    predictions[2] = True  # truth empty, U 4; sample 1 is empty on both sides
    metric = ReferringMetrics(("lavt",))
    metric.update(as_logits(predictions), make_batch(truths))
    scores = metric.compute()["lavt"]
    assert (scores["n"], scores["n_empty"], scores["nonempty/n"]) == (3, 2, 1)
    assert scores["mIoU"] == pytest.approx(0.5 / 3)
    assert scores["nonempty/mIoU"] == 0.5
    assert scores["oIoU"] == 2 / 8
    assert scores["nonempty/oIoU"] == 0.5
    assert scores["Pr@0.5"] == pytest.approx(1 / 3)
    assert scores["nonempty/Pr@0.5"] == 1.0


def test_a_sample_seen_twice_counts_once(make_batch):
    predictions, truths = random_case(3, 5)
    once, twice = ReferringMetrics(), ReferringMetrics()
    once.update(as_logits(predictions), make_batch(truths))
    again = [3, 0, 4, 1, 2, 3, 0]
    twice.update(as_logits(predictions[again]), make_batch(truths[again], index=again))
    assert_same_scores(twice.compute(), once.compute())
    for one, two in zip(
        [once.gathered()[0]["detris"], once.gathered()[1]],
        [twice.gathered()[0]["detris"], twice.gathered()[1]],
        strict=True,
    ):
        assert (one == two).all()
        assert len(one) == 5


def test_gathered_states_of_two_processes_are_those_of_one(make_batch):
    predictions, truths = random_case(4, 7)
    one = ReferringMetrics()
    one.update(as_logits(predictions), make_batch(truths))
    halves = []
    for index in ([0, 2, 4, 6], [1, 3, 5, 0]):  # a padding sampler repeats sample 0
        metric = ReferringMetrics()
        metric.update(as_logits(predictions[index]), make_batch(truths[index], index=index))
        halves.append(metric)
    for state in ("rows_lavt", "rows_original", "rows_detris", "truth_sizes"):
        setattr(halves[0], state, [torch.cat(getattr(half, state)) for half in halves])
    assert_same_scores(halves[0].compute(), one.compute())
    assert halves[0].gathered()[1].tolist() == one.gathered()[1].tolist()


def join(rank: int, folder: str, updates: list[tuple[torch.Tensor, Batch]]) -> None:
    """One of two processes; stores what it computes."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    try:
        metric = ReferringMetrics()
        for logits, batch in updates:
            metric.update(logits, batch)
        rows, sizes = metric.gathered()
        torch.save([metric.compute(), torch.from_numpy(rows["lavt"]), torch.from_numpy(sizes)], f"{folder}/{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_a_process_without_samples_joins_the_gathering(make_batch, tmp_path):
    predictions, truths = random_case(5, 4)
    logits, batch = as_logits(predictions), make_batch(truths)
    child = torch.multiprocessing.get_context("fork").Process(target=join, args=(1, str(tmp_path), []))
    child.start()
    join(0, str(tmp_path), [(logits, batch)])
    child.join()
    assert child.exitcode == 0
    metric = ReferringMetrics()
    metric.update(logits, batch)
    for rank in range(2):
        scores, rows, sizes = torch.load(tmp_path / f"{rank}.pt")
        assert_same_scores(scores, metric.compute())
        assert rows.tolist() == metric.gathered()[0]["lavt"].tolist()
        assert sizes.tolist() == metric.gathered()[1].tolist()


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_no_samples_give_nan_and_zero_counts():
    scores = ReferringMetrics().compute()["original"]
    counts = {"n", "n_empty", "n_no_target", "nonempty/n"}
    assert {scores[name] for name in counts} == {0}
    assert all(math.isnan(value) for name, value in scores.items() if name not in counts)
    rows, sizes = ReferringMetrics().gathered()
    assert (rows["original"].shape, sizes.shape) == ((0, 6), (0, 4))


def test_only_empty_unions_score_zero():
    scores = summarise(rows_of((0, 0), (0, 0)), "lavt")
    assert (scores.miou, scores.oiou, scores.precision) == (0.0, 0.0, (0.0,) * 5)


def test_reset_forgets_the_rows(make_batch):
    predictions, truths = random_case(6, 3)
    metric = ReferringMetrics(("lavt",))
    metric.update(as_logits(predictions), make_batch(truths))
    assert metric.compute()["lavt"]["n"] == 3
    metric.reset()
    metric.update(as_logits(predictions[:1]), make_batch(truths[:1]))
    assert metric.compute()["lavt"]["n"] == 1


def test_rows_are_integers_without_gradient(make_batch):
    predictions, truths = random_case(7, 2)
    metric = ReferringMetrics(("original",))
    metric.update(as_logits(predictions).requires_grad_(), make_batch(truths))
    assert metric.rows_original[0].dtype == torch.int64
    assert not metric.rows_original[0].requires_grad


def test_no_target_samples_are_scored_by_emptiness_alone(make_batch):
    """Two targets (one predicted empty), three no-target samples (two predicted empty, one with 3 pixels)."""
    truths, predictions = np.zeros((2, 5, 2, 3), bool)
    truths[0], truths[1, 0, 0] = True, True
    predictions[0, 0], predictions[3, 0] = True, True
    metric = ReferringMetrics()
    metric.update(as_logits(predictions), make_batch(truths, no_target=[False, False, True, True, True]))
    for protocol, scores in metric.compute().items():
        assert (scores["n"], scores["n_empty"], scores["n_no_target"]) == (2, 0, 3), protocol
        assert scores["N-acc"] == pytest.approx(2 / 3)
        assert scores["T-acc"] == 0.5
        # I 3 of U 6, and I 0 of U 1: the false pixels of the no-target sample are in no union
        assert scores["mIoU"] == pytest.approx(0.25, abs=1e-6)
        assert scores["oIoU"] == pytest.approx(3 / 7)
        assert scores["Pr@0.5"] == (0.0 if protocol == "detris" else 0.5)
        assert scores["nonempty/n"] == 2
        assert "nonempty/N-acc" not in scores


def test_an_empty_truth_is_a_target_unless_it_is_meant_to_be_empty(make_batch):
    metric = ReferringMetrics(("lavt",))
    metric.update(-torch.ones(2, 2, 2), make_batch(torch.zeros(2, 2, 2), no_target=[False, True]))
    scores = metric.compute()["lavt"]
    assert (scores["n"], scores["n_empty"], scores["n_no_target"]) == (1, 1, 1)
    assert (scores["mIoU"], scores["N-acc"], scores["T-acc"]) == (0.0, 1.0, 0.0)


def test_only_no_target_samples_leave_the_rest_undefined():
    rows = rows_of((0, 0), (0, 4))
    rows[:, 3], rows[:, 5] = 0, 1
    scores = summarise(rows, "original")
    assert (scores.n, scores.n_no_target, scores.n_accuracy) == (0, 2, 0.5)
    assert all(math.isnan(value) for value in (scores.miou, scores.oiou, scores.t_accuracy, *scores.precision))


def test_a_row_of_numpy_masks_is_that_of_the_metric(make_batch):
    predictions, truths = random_case(8, 6)
    metric = ReferringMetrics(("original",))
    flags = [False, True, False, False, True, False]
    metric.update(as_logits(predictions), make_batch(truths, no_target=flags))
    rows = [row(i, *masks) for i, masks in enumerate(zip(predictions, truths, flags, strict=True))]
    assert np.array_equal(np.stack(rows), metric.gathered()[0]["original"])
    assert rows[0].dtype == np.int64


@pytest.mark.parametrize("other", [np.zeros((1, 3), bool), np.zeros((2, 3), np.uint8)])
def test_a_row_needs_bool_masks_of_equal_size(other):
    # numpy would stretch the first over the truth, and combine the second bit by bit
    with pytest.raises(ValueError, match="equal size and type bool"):
        row(0, other, np.ones((2, 3), bool))


def test_sizes_are_those_of_the_image_file_where_it_is_known(make_batch):
    metric = ReferringMetrics(("lavt",))
    truths = [torch.ones(8, 6), torch.zeros(3, 5)]
    metric.update(torch.ones(2, 4, 4), make_batch(torch.ones(2, 4, 4), truths))
    assert metric.gathered()[1].tolist() == [[0, 8, 6, 48], [1, 3, 5, 0]]
    metric.update(torch.ones(1, 4, 4), make_batch(torch.ones(1, 4, 4), [], index=[2]))
    assert metric.gathered()[1].tolist() == [[0, 8, 6, 48], [1, 3, 5, 0], [2, 4, 4, 16]]


def test_rows_without_a_truth_are_left_out():
    rows = rows_of((1, 1), (0, 0), (0, 3))
    assert without_empty(rows)[:, 0].tolist() == [0, 2]


def test_unknown_protocols_are_refused():
    with pytest.raises(S4ecaError, match="'coco' is unknown"):
        ReferringMetrics(("coco",))
    with pytest.raises(S4ecaError, match="'coco' is unknown"):
        summarise(rows_of((1, 1)), "coco")
