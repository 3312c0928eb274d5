"""How good the best proposal of each target is: the ceiling that no selector can pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s4eca.dgl_rsis.parts import Proposals
from s4eca.evaluation.summary import PIXEL_BOUNDS, PIXELS


def best_iou(proposals: Proposals, truth: np.ndarray) -> float:
    """Returns the highest IoU of a proposal with a truth mask (H, W) bool; 0 without proposals.

    Raises:
        ValueError: the truth has another size or no pixel.
    """
    if truth.shape != proposals.size:
        raise ValueError(f"a truth of {truth.shape} for proposals of {proposals.size}")
    area = int(np.count_nonzero(truth))
    if not area:
        raise ValueError("a truth without a pixel has no best proposal")
    packed = np.packbits(truth.astype(bool))
    common = np.array([np.bitwise_count(bits & packed).sum(dtype=np.int64) for bits in proposals.bits], np.int64)
    return float((common / (proposals.areas + area - common)).max(initial=0.0))


@dataclass(frozen=True)
class Recall:
    """Proposal recall over targets; shares and means are NaN where there is no target.

    Attributes:
        targets: their number.
        mean_best_iou: mean over the targets of the best proposal's IoU.
        at_50: share of the targets with a best IoU of at least 0.5.
        at_75: the same for 0.75.
        mean_count: mean number of proposals.
        sizes: `small`, `medium`, `large` (see `s4eca.evaluation.summary.PIXELS`) to the mean best IoU of those targets.
    """

    targets: int
    mean_best_iou: float
    at_50: float
    at_75: float
    mean_count: float
    sizes: dict[str, float]

    @classmethod
    def of(cls, best: Sequence[float], areas: Sequence[int], counts: Sequence[int]) -> "Recall":
        """Sums up targets.

        Args:
            best: best IoU of each.
            areas: truth pixels of each, in the image file.
            counts: number of proposals that each had.
        """
        values = np.asarray(best, float)
        buckets = np.digitize(np.asarray(areas), PIXEL_BOUNDS)
        return cls(
            targets=len(values),
            mean_best_iou=_mean(values),
            at_50=_mean(values >= 0.5),
            at_75=_mean(values >= 0.75),
            mean_count=_mean(np.asarray(counts, float)),
            sizes={name: _mean(values[buckets == place]) for place, name in enumerate(PIXELS)},
        )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
