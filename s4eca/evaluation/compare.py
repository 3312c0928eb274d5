"""Two runs on the same samples: what is the difference, and could it be luck of the draw?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from s4eca.errors import S4ecaError
from s4eca.evaluation.about import approximated, list_differences
from s4eca.evaluation.bootstrap import Bootstrap, interval, replicate
from s4eca.evaluation.metrics import AREA, INTERSECTION, NO_TARGET, PRECISION, UNION, ratios, terms
from s4eca.evaluation.results import Evaluation, SampleInfo

SCORES = ("mIoU", "oIoU", *PRECISION, "N-acc", "T-acc")


@dataclass(frozen=True)
class Difference:
    """One score of two runs, as fractions; NaN where there is no sample for it.

    Attributes:
        a: of the first run.
        b: of the second run.
        difference: b - a.
        low: lower bound of the difference's interval.
        high: its upper bound.
        not_positive: share of the replicates whose difference is 0 or less.
        p: two-sided bootstrap p value of no difference: twice the smaller of the shares of replicates with a difference
            of 0 or less and of 0 or more, each as (k + 1) / (R + 1) so that it is never 0, and at most 1 (Davison and
            Hinkley 1997, 4.2).
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    not_positive: float
    p: float


@dataclass(frozen=True)
class Paired:
    """Two runs under one protocol.

    Attributes:
        scores: by name, in the order of `SCORES`; N-acc and T-acc where there are no-target samples.
        wins: samples scored by IoU on which the second run has the larger one.
        ties: those on which both have the same.
        losses: those on which the first run has the larger one.
    """

    scores: Mapping[str, Difference]
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same samples.

    Attributes:
        a: what the first run was, see `Evaluation.about`.
        b: what the second one was.
        samples: number of samples.
        images: number of images they are on, which the bootstrap draws.
        settings: of the bootstrap.
        protocols: results by protocol.
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    samples: int
    images: int
    settings: Bootstrap
    protocols: Mapping[str, Paired]

    @property
    def differences(self) -> dict[str, list[str]]:
        """In what the runs differ, name and seed included: both values in words by entry."""
        found = list_differences(self.a, self.b)
        for entry in ("name", "seed"):
            values = [str(about.get(entry)).replace("None", "none") for about in (self.a, self.b)]
            found |= {entry: values} if values[0] != values[1] else {}
        return found

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as plain values: a, b, differences, samples, images, bootstrap, protocols."""
        return {
            "a": dict(self.a),
            "b": dict(self.b),
            "differences": self.differences,
            "samples": self.samples,
            "images": self.images,
            "bootstrap": asdict(self.settings),
            "protocols": {protocol: asdict(paired) for protocol, paired in self.protocols.items()},
        }


def compare(
    a: Evaluation, b: Evaluation, protocols: Sequence[str] | None = None, settings: Bootstrap | None = None
) -> Comparison:
    """Compares two runs sample by sample; every difference is the second run's score less the first one's.

    Both runs are scored on the same bootstrap draws of images, so that what is difficult for both does not widen the
    interval of their difference.

    Args:
        a: the first run.
        b: the second run, on the same samples in any order.
        protocols: names; None for those of the runs, which must then be the same.
        settings: of the bootstrap.

    Raises:
        S4ecaError: the runs were not evaluated on the same samples with the same expressions and truths, or not under
            the same protocols.
    """
    settings = settings or Bootstrap()
    names = _common_protocols(a, b, protocols)
    _check_about(a, b)
    _check_exact(a, b, names)
    place = _places(a, b)
    _check_samples(a.samples, [b.samples[i] for i in place])
    rows_a = {name: a.rows[name] for name in names}
    rows_b = {name: b.rows[name][place] for name in names}
    for name in names:
        _check_areas(name, a, rows_a[name][:, AREA], rows_b[name][:, AREA])
    images = [sample.image for sample in a.samples]
    replicates_a, replicates_b = replicate(rows_a, images, settings), replicate(rows_b, images, settings)
    with_no_target = any(sample.no_target for sample in a.samples)
    result = {}
    for name in names:
        score_a, score_b = (ratios(terms(rows[name], name).sum(axis=1)) for rows in (rows_a, rows_b))
        scores = {
            score: _difference(
                float(score_a[score]),
                float(score_b[score]),
                replicates_b[name][score] - replicates_a[name][score],
                settings.confidence,
            )
            for score in SCORES
            if with_no_target or score not in ("N-acc", "T-acc")
        }
        result[name] = Paired(scores, *_wins(rows_a[name], rows_b[name]))
    return Comparison(a.about, b.about, len(images), len(set(images)), settings, result)


def _difference(a: float, b: float, replicates: np.ndarray, confidence: float) -> Difference:
    low, high = interval(replicates, confidence)
    known = replicates[~np.isnan(replicates)]
    known[np.abs(known) < 1e-12] = 0  # sums of the same numbers in another order
    if not len(known):
        return Difference(a, b, b - a, low, high, np.nan, np.nan)
    below, above = int((known <= 0).sum()), int((known >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (len(known) + 1))
    return Difference(a, b, b - a, low, high, below / len(known), p)


def _wins(rows_a: np.ndarray, rows_b: np.ndarray) -> tuple[int, int, int]:
    """Returns on how many samples b has the larger, the same and the smaller I / U, compared in integers."""
    scored = rows_a[:, NO_TARGET] == 0
    # where one union is empty so is the truth: both IoU are 0, and so are both products
    b = rows_b[scored, INTERSECTION] * rows_a[scored, UNION]
    a = rows_a[scored, INTERSECTION] * rows_b[scored, UNION]
    return int((b > a).sum()), int((b == a).sum()), int((b < a).sum())


def _common_protocols(a: Evaluation, b: Evaluation, wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        if set(a.rows) != set(b.rows):
            common = [name for name in a.rows if name in b.rows]
            remedy = f"choose {' or '.join(common)}" if common else "evaluate both under a common one"
            listed = f"{', '.join(a.rows)}; {', '.join(b.rows)}"
            raise S4ecaError(f"The runs were evaluated under different protocols ({listed}): {remedy}.")
        return list(a.rows)
    for name in wanted:
        for run, evaluation in (("first", a), ("second", b)):
            if name not in evaluation.rows:
                raise S4ecaError(
                    f"The {run} run was not evaluated under the protocol '{name}': it has {', '.join(evaluation.rows)}."
                )
    return list(dict.fromkeys(wanted))


def _check_exact(a: Evaluation, b: Evaluation, names: Sequence[str]) -> None:
    """Raises `S4ecaError` where one run was scored exactly under a protocol and the other by a stand-in for it."""
    unlike = [name for name in names if approximated(a.about, name) != approximated(b.about, name)]
    if unlike:
        reasons = [approximated(run.about, unlike[0]) or "exactly" for run in (a, b)]
        common = [name for name in a.rows if name in b.rows]
        alike = [name for name in common if approximated(a.about, name) == approximated(b.about, name)]
        remedy = f"choose --protocol {' or '.join(alike)}" if alike else "score both in the same way"
        raise S4ecaError(
            f"Under {', '.join(unlike)} the runs were not scored alike ({unlike[0]}: {reasons[0]}; {reasons[1]}):"
            f" {remedy}."
        )


def _check_about(a: Evaluation, b: Evaluation) -> None:
    """Raises `S4ecaError` where the runs say that they were evaluated on different things."""
    for key, default in (("split", None), ("expressions", "real")):
        first, second = (evaluation.about.get(key, default) for evaluation in (a, b))
        if first != second:
            raise S4ecaError(f"The runs differ in their {key} ({first}; {second}): evaluate both on the same.")


def _places(a: Evaluation, b: Evaluation) -> list[int]:
    """Returns the position in `b` of every sample of `a`."""
    places = {sample.id: place for place, sample in enumerate(b.samples)}
    ids = {sample.id for sample in a.samples}
    if len(ids) != len(a.samples) or len(places) != len(b.samples):
        raise S4ecaError("The samples of a run share ids, and cannot be paired: give every reference an id of its own.")
    only_a = [sample.id for sample in a.samples if sample.id not in places]
    only_b = [sample.id for sample in b.samples if sample.id not in ids]
    parts = [
        f"{len(only)} in the {run} one only (the first: {', '.join(only[:3])})"
        for run, only in (("first", only_a), ("second", only_b))
        if only
    ]
    if parts:
        raise S4ecaError(f"The runs have other samples, {' and '.join(parts)}: evaluate both on the same split.")
    return [places[sample.id] for sample in a.samples]


def _check_samples(a: Sequence[SampleInfo], b: Sequence[SampleInfo]) -> None:
    for what in ("image", "expression", "no_target", "size", "area"):
        different = [
            f"{mine.id}: {getattr(mine, what)} and {getattr(other, what)}"
            for mine, other in zip(a, b, strict=True)
            if getattr(mine, what) != getattr(other, what)
        ]
        if different:
            raise S4ecaError(
                f"The runs differ in the {what} of {len(different)} of {len(a)} samples (the first:"
                f" {'; '.join(different[:3])}): evaluate both on the same data."
            )


def _check_areas(protocol: str, run: Evaluation, a: np.ndarray, b: np.ndarray) -> None:
    """Raises `S4ecaError` where truths differ at a protocol's size, as they do for `lavt` between two input sizes."""
    different = np.flatnonzero(a != b)
    if len(different):
        listed = ", ".join(f"{run.samples[i].id}: {a[i]} and {b[i]}" for i in different[:3])
        raise S4ecaError(
            f"Under {protocol} the truths of {len(different)} of {len(a)} samples differ in area (the first: {listed}"
            " pixels), as with another input size: compare under another protocol, or evaluate both at one size."
        )
