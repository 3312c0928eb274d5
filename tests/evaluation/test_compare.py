import dataclasses
import json
import math

import numpy as np
import pytest

from s4eca.errors import S4ecaError
from s4eca.evaluation.bootstrap import Bootstrap
from s4eca.evaluation.compare import compare
from s4eca.evaluation.results import Evaluation

A = [(3, 6, 4), (7, 10, 8), (0, 9, 9), (5, 5, 5), (9, 10, 9)]
B = [(4, 6, 4), (7, 10, 8), (9, 9, 9), (4, 5, 5), (9, 12, 9)]
IMAGES = ["b", "a", "b", "c", "a"]


def changed(evaluation: Evaluation, place: int, **values) -> Evaluation:
    """The evaluation with something else said about one sample."""
    samples = list(evaluation.samples)
    samples[place] = dataclasses.replace(samples[place], **values)
    return dataclasses.replace(evaluation, samples=samples)


@pytest.fixture
def pair(evaluation_of) -> tuple[Evaluation, Evaluation]:
    return evaluation_of(A, images=IMAGES, name="one"), evaluation_of(B, images=IMAGES, name="two")


def test_differences_by_hand(pair):
    comparison = compare(*pair, settings=Bootstrap(replicates=50))
    paired = comparison.protocols["original"]
    # IoU 1/2, 7/10, 0, 1, 9/10 and 2/3, 7/10, 1, 4/5, 3/4
    assert (paired.wins, paired.ties, paired.losses) == (2, 1, 2)
    miou, oiou, strict = (paired.scores[name] for name in ("mIoU", "oIoU", "Pr@0.9"))
    assert (miou.a, miou.b) == (pytest.approx(3.1 / 5), pytest.approx((2 / 3 + 0.7 + 1 + 0.8 + 0.75) / 5))
    assert miou.difference == pytest.approx(miou.b - miou.a)
    assert (oiou.a, oiou.b) == (24 / 40, 33 / 42)
    assert (strict.a, strict.b, strict.difference) == (0.4, 0.2, pytest.approx(-0.2))
    assert (comparison.samples, comparison.images) == (5, 3)
    assert (comparison.a["name"], comparison.b["name"]) == ("one", "two")
    assert list(paired.scores) == ["mIoU", "oIoU", *(f"Pr@0.{tenth}" for tenth in range(5, 10))]


def test_both_runs_are_scored_on_the_same_draws(pair):
    """Against a loop that draws images and scores both runs on what it drew."""
    draws = np.random.default_rng(4).integers(3, size=(400, 3))
    differences = []
    for draw in draws:
        drawn = [place for image in draw for place in range(5) if IMAGES[place] == "abc"[image]]
        mean = [np.mean([run[place][0] / run[place][1] for place in drawn]) for run in (A, B)]
        differences.append(mean[1] - mean[0])
    ours = compare(*pair, settings=Bootstrap(400, seed=4, confidence=0.9)).protocols["original"].scores["mIoU"]
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(differences, [0.05, 0.95])), abs=1e-12)
    not_positive = sum(difference < 1e-12 for difference in differences)
    not_negative = sum(difference > -1e-12 for difference in differences)
    assert ours.not_positive == not_positive / 400
    assert ours.p == pytest.approx(2 * (min(not_positive, not_negative) + 1) / 401)


def test_what_is_hard_for_both_does_not_widen_the_interval(evaluation_of):
    rng = np.random.default_rng(0)
    hard = rng.integers(10, 900, 200)
    a, b = (evaluation_of([(int(i), 1000, 1000) for i in run]) for run in (hard, hard + rng.integers(0, 21, 200)))
    score = compare(a, b, settings=Bootstrap(500)).protocols["original"].scores["mIoU"]
    # the differences alone: mean about 0.010, deviation 0.006 over the root of 200
    assert score.high - score.low == pytest.approx(2 * 1.96 * 0.00606 / math.sqrt(200), rel=0.15)
    assert score.low > 0
    assert score.not_positive == 0
    assert score.p == pytest.approx(2 / 501), "never 0"
    back = compare(b, a, settings=Bootstrap(500)).protocols["original"].scores["mIoU"]
    assert (back.low, back.high) == (pytest.approx(-score.high), pytest.approx(-score.low))
    assert (back.not_positive, back.p) == (1.0, score.p)


def test_a_run_against_itself_is_no_difference(pair):
    paired = compare(pair[0], pair[0]).protocols["original"]
    assert (paired.wins, paired.ties, paired.losses) == (0, 5, 0)
    for score in paired.scores.values():
        assert (score.difference, score.low, score.high, score.not_positive, score.p) == (0, 0, 0, 1, 1)


def test_equal_fractions_tie_and_empty_unions_tie(evaluation_of):
    a = evaluation_of([(2, 3, 3), (0, 0, 0), (0, 0, 0)])
    b = evaluation_of([(2, 3, 3), (0, 0, 0), (0, 7, 0)])
    a.rows["original"][0, 1:3] = 4, 6
    paired = compare(a, b, settings=Bootstrap(10)).protocols["original"]
    assert (paired.wins, paired.ties, paired.losses) == (0, 3, 0)


def test_no_target_samples_have_accuracies_and_no_wins(evaluation_of):
    flags = [False, True, True]
    a = evaluation_of([(1, 2, 2), (0, 5, 0), (0, 0, 0)], no_target=flags)
    b = evaluation_of([(1, 2, 2), (0, 0, 0), (0, 0, 0)], no_target=flags)
    paired = compare(a, b, settings=Bootstrap(200)).protocols["original"]
    assert (paired.scores["N-acc"].a, paired.scores["N-acc"].b) == (0.5, 1.0)
    assert (paired.wins, paired.ties, paired.losses) == (0, 1, 0)
    assert not math.isnan(paired.scores["N-acc"].low), "draws without a no-target sample are left out"


def test_runs_in_another_order_are_paired_by_id(pair):
    a, b = pair
    order = [3, 0, 4, 2, 1]
    turned = Evaluation(b.about, [b.samples[i] for i in order], {p: rows[order] for p, rows in b.rows.items()})
    assert compare(a, turned).protocols == compare(a, b).protocols


def test_everything_is_plain_for_json(pair):
    stored = json.loads(json.dumps(compare(*pair, settings=Bootstrap(20, 1, 0.9)).as_dict()))
    assert stored["bootstrap"] == {"replicates": 20, "seed": 1, "confidence": 0.9}
    assert (stored["samples"], stored["images"], stored["b"]["name"]) == (5, 3, "two")
    assert stored["protocols"]["original"]["scores"]["Pr@0.9"]["a"] == 0.4
    assert stored["protocols"]["original"]["wins"] == 2


def test_other_samples_are_refused(pair, evaluation_of):
    a, b = pair
    with pytest.raises(S4ecaError, match=r"5 in the first one only \(the first: id-0, id-1, id-2\)"):
        compare(a, evaluation_of([]))
    with pytest.raises(S4ecaError, match=r"1 in the first one only \(the first: id-3\) and 1 .* \(.*: new\)"):
        compare(a, changed(b, 3, id="new"))
    with pytest.raises(S4ecaError, match="share ids"):
        compare(a, changed(b, 3, id="id-0"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"area": 8}, r"area of 1 of 5 samples \(the first: id-3: 5 and 8\)"),
        ({"expression": "the other ship"}, "expression of 1 of 5"),
        ({"no_target": True}, "no_target of 1 of 5"),
        ({"image": "x.jpg"}, "image of 1 of 5"),
        ({"size": (7, 7)}, "size of 1 of 5"),
    ],
)
def test_other_truths_expressions_and_images_are_refused(pair, values, named):
    with pytest.raises(S4ecaError, match=named):
        compare(pair[0], changed(pair[1], 3, **values))


@pytest.mark.parametrize("about", [{"split": "val"}, {"expressions": "shuffled with seed 0"}])
def test_other_splits_and_shuffled_expressions_are_refused(pair, evaluation_of, about):
    other = evaluation_of(B, images=IMAGES, **about)
    with pytest.raises(S4ecaError, match=f"differ in their {next(iter(about))}"):
        compare(pair[0], other)
    assert compare(other, other), "with itself it can be compared"


def test_protocols_must_be_common(evaluation_of):
    a, b = evaluation_of(A, protocols=("lavt", "original")), evaluation_of(B, protocols=("original", "detris"))
    with pytest.raises(S4ecaError, match=r"different protocols \(lavt, original; original, detris\): choose original"):
        compare(a, b)
    assert list(compare(a, b, ["original"]).protocols) == ["original"]
    with pytest.raises(S4ecaError, match="second run was not evaluated under the protocol 'lavt'"):
        compare(a, b, ["lavt"])


def test_truths_at_another_input_size_are_refused_under_lavt_alone(evaluation_of):
    a, b = (evaluation_of(run, protocols=("lavt", "original")) for run in (A, B))
    b.rows["lavt"][:, 1:4] *= 4
    with pytest.raises(S4ecaError, match=r"Under lavt the truths of 5 of 5 samples differ .*id-0: 4 and 16"):
        compare(a, b)
    assert compare(a, b, ["original"]).protocols["original"].wins == 2


def test_masks_that_only_stand_for_a_protocol_are_not_compared_with_exact_ones(evaluation_of):
    notes = {"lavt": "resized with nearest", "original": "as given"}
    exact = evaluation_of(A, images=IMAGES, protocols=("lavt", "original"))
    scored = evaluation_of(B, images=IMAGES, protocols=("lavt", "original"), at="original", notes=notes)
    with pytest.raises(S4ecaError, match=r"Under lavt .*exactly; resized with nearest\): choose --protocol original"):
        compare(exact, scored)
    assert list(compare(exact, scored, ["original"]).protocols) == ["original"]
    assert list(compare(scored, scored).protocols) == ["lavt", "original"]
