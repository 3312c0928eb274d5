"""An evaluation in numbers: overall with intervals, per category, per kind of expression, per size of the target."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from s4eca.evaluation.bootstrap import Bootstrap, intervals
from s4eca.evaluation.metrics import AREA, CATEGORY, NO_TARGET, protocol_scores, summarise
from s4eca.evaluation.results import Evaluation, SampleInfo

PIXELS = ("small", "medium", "large")
"""COCO's sizes by truth area in the image file: medium is from 32² up to, but not including, 96² pixels."""

PIXEL_BOUNDS = (32**2, 96**2)
"""Where the medium and the large begin."""

SHARES = ("below 0.1%", "0.1-1%", "1-10%", "10% and more")
"""Sizes by the truth's share of the image file; a bucket includes its lower bound."""

NO_CATEGORY = "(none)"


def summarise_evaluation(
    evaluation: Evaluation, replicates: int = 2000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Any]:
    """Returns everything that `metrics.json` holds: fractions and counts, NaN for what has no value.

    Args:
        evaluation: rows and samples.
        replicates: of the bootstrap; 0 for no intervals.
        seed: of its draws.
        confidence: of its intervals.

    Returns:
        `about`: as the evaluation has it.
        `protocols`: protocol to scores, and under `nonempty/NAME` those without the samples of empty truth.
        `intervals`: `confidence`, `replicates`, `seed`, and `protocols`: protocol to score to [low, high], those under
            `nonempty/NAME` where a truth is empty.
        `categories`: protocol to category to scores, in the order of their names, samples without one last.
        `kinds`: protocol to kind of expression to scores, as `categories`; missing where no sample has a kind.
        `sizes`: `pixels` and `share`: protocol to bucket to scores, over the samples whose truth has a pixel in the
        image file.

    Raises:
        S4ecaError: settings of the bootstrap that make no sense, or an unknown protocol.
    """
    bounds = _bounds(evaluation, Bootstrap(replicates, seed, confidence)) if replicates else {}
    names = dict(enumerate(evaluation.categories)) | {-1: NO_CATEGORY}
    pixels, shares = pixel_buckets(evaluation.samples), share_buckets(evaluation.samples)
    rows = evaluation.rows
    return {
        "about": dict(evaluation.about),
        "protocols": {protocol: protocol_scores(content, protocol) for protocol, content in rows.items()},
        "intervals": {"confidence": confidence, "replicates": replicates, "seed": seed, "protocols": bounds},
        "categories": {
            protocol: {
                names[code]: _scores(content[content[:, CATEGORY] == code], protocol)
                for code in names
                if (content[:, CATEGORY] == code).any()
            }
            for protocol, content in rows.items()
        },
        **_kinds(evaluation),
        "sizes": {"pixels": _sizes(rows, pixels, PIXELS), "share": _sizes(rows, shares, SHARES)},
    }


def _bounds(evaluation: Evaluation, settings: Bootstrap) -> dict[str, dict[str, list[float]]]:
    bounds = intervals(evaluation, settings)
    for protocol, rows in evaluation.rows.items():
        kept = np.flatnonzero((rows[:, AREA] > 0) | (rows[:, NO_TARGET] != 0)).tolist()
        if len(kept) < len(rows):
            part = Evaluation(evaluation.about, [evaluation.samples[i] for i in kept], {protocol: rows[kept]})
            again = intervals(part, settings)[protocol]
            bounds[protocol] |= {f"nonempty/{name}": again[name] for name in again if name not in ("N-acc", "T-acc")}
    return bounds


def _kinds(evaluation: Evaluation) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    if not any(sample.kind for sample in evaluation.samples):
        return {}
    kinds = np.array([sample.kind or "" for sample in evaluation.samples])
    names = sorted(set(kinds.tolist()), key=lambda kind: (not kind, kind))
    return {
        "kinds": {
            protocol: {name or NO_CATEGORY: _scores(content[kinds == name], protocol) for name in names}
            for protocol, content in evaluation.rows.items()
        }
    }


def pixel_buckets(samples: Sequence[SampleInfo]) -> np.ndarray:
    """Returns each sample's place in `PIXELS`, (N,) int64; -1 where the truth has no pixel or is not meant to have."""
    area = np.array([sample.area for sample in samples], np.int64)
    return np.where(_has_size(samples), np.digitize(area, PIXEL_BOUNDS), -1)


def share_buckets(samples: Sequence[SampleInfo]) -> np.ndarray:
    """Returns each sample's place in `SHARES`, (N,) int64; -1 where the truth has no pixel or is not meant to have."""
    area = np.array([sample.area for sample in samples], np.int64)
    image = np.array([sample.size[0] * sample.size[1] for sample in samples], np.int64)
    # in integers, so that exactly a tenth of an image is in the bucket that starts there
    place = sum((parts * area >= image).astype(np.int64) for parts in (1000, 100, 10))
    return np.where(_has_size(samples), place, -1)


def _has_size(samples: Sequence[SampleInfo]) -> np.ndarray:
    return np.array([sample.area > 0 and not sample.no_target for sample in samples], bool)


def _sizes(
    rows: Mapping[str, np.ndarray], buckets: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    return {
        protocol: {name: _scores(content[buckets == place], protocol) for place, name in enumerate(names)}
        for protocol, content in rows.items()
    }


def _scores(rows: np.ndarray, protocol: str) -> dict[str, float]:
    return summarise(rows, protocol).as_dict()
