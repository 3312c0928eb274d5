"""Intervals for scores: the percentile bootstrap over images (Efron and Tibshirani 1993, chapter 13)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s4eca.errors import S4ecaError
from s4eca.evaluation.metrics import ratios, terms
from s4eca.evaluation.results import Evaluation

_AT_ONCE = 2**20  # drawn images held in memory, so that 16,159 samples need tens of megabytes whatever the replicates


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn.

    Replicate r draws as many images as there are, with replacement: `numpy.random.default_rng(seed)` yields its
    `integers(images)` for one replicate after the other, and they number the image names in sorted order. All
    references on an image are drawn together, as their scores are not independent.

    Attributes:
        replicates: number of draws.
        seed: of the draws.
        confidence: share of the replicates inside an interval.
    """

    replicates: int = 2000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.replicates < 1:
            raise S4ecaError(f"The bootstrap cannot have {self.replicates} replicates: set 1 or more, 2000 by default.")
        if not 0 < self.confidence < 1:
            raise S4ecaError(f"The confidence {self.confidence} is no share: set one between 0 and 1, such as 0.95.")
        if self.seed < 0:
            raise S4ecaError(f"The bootstrap's seed {self.seed} is negative: set 0 or more.")


def replicate(
    rows: Mapping[str, np.ndarray], images: Sequence[str], settings: Bootstrap
) -> dict[str, dict[str, np.ndarray]]:
    """Scores every replicate.

    Args:
        rows: for each protocol (N, 6) int64; all protocols see the same draws.
        images: N names of the rows' images.
        settings: how to draw; equal settings and images give equal draws.

    Returns:
        Protocol to score to (R,) float64, NaN in replicates without a sample for the score.
    """
    names, image = np.unique(np.asarray(images, dtype=str), return_inverse=True)
    per_image = [_sum_by_image(terms(content, protocol), image, len(names)) for protocol, content in rows.items()]
    stacked = np.concatenate(per_image, axis=1) if per_image else np.zeros((len(names), 0))
    # sums of integers stay exact: 10^5 samples of 10^8 pixels are below 2^53
    sums = np.concatenate([counts @ stacked for counts in _draws(len(names), settings)])
    width = stacked.shape[1] // max(len(rows), 1)
    return {protocol: ratios(sums[:, place * width : (place + 1) * width].T) for place, protocol in enumerate(rows)}


def intervals(evaluation: Evaluation, settings: Bootstrap) -> dict[str, dict[str, list[float]]]:
    """Returns the interval [low, high] of mIoU, oIoU, Pr@0.5 … Pr@0.9 and, with no-target samples, N-acc and T-acc.

    Of a score that some replicates do not have, such as N-acc where few samples are no-target, it is the interval over
    the others; NaN where none has it.
    """
    replicates = replicate(evaluation.rows, [sample.image for sample in evaluation.samples], settings)
    any_no_target = any(sample.no_target for sample in evaluation.samples)
    return {
        protocol: {
            name: list(interval(values, settings.confidence))
            for name, values in scores.items()
            if any_no_target or name not in ("N-acc", "T-acc")
        }
        for protocol, scores in replicates.items()
    }


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Returns the percentiles of replicates (R,) between which the share `confidence` of them lies; NaN without any."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _sum_by_image(content: np.ndarray, image: np.ndarray, images: int) -> np.ndarray:
    return np.stack([np.bincount(image, line, minlength=images) for line in content], axis=1)


def _draws(images: int, settings: Bootstrap) -> Iterator[np.ndarray]:
    """Yields how often each image was drawn, (some replicates, images) float64, until all replicates are drawn."""
    generator = np.random.default_rng(settings.seed)
    step = max(1, _AT_ONCE // max(images, 1))
    for start in range(0, settings.replicates, step):
        size = min(step, settings.replicates - start)
        # one bincount for all of them: each replicate counts in a range of its own
        drawn = generator.integers(images, size=(size, images)) if images else np.zeros((size, 0), np.int64)
        drawn += np.arange(size)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images).astype(np.float64)
