"""The metric of referring segmentation: one row of integers per sample and protocol, scores computed from the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from s4eca.data.references import Batch
from s4eca.evaluation.protocols import PROTOCOLS, TENTHS, count_pixels, select

INDEX, INTERSECTION, UNION, AREA, CATEGORY, NO_TARGET = range(6)
"""Columns of the rows: position in the dataset, pixels, pixels, pixels of the truth, category code, no-target flag.

The metric writes -1, which is no category; `build_evaluation` knows the names and fills in the codes.
"""

PRECISION = tuple(f"Pr@0.{tenth}" for tenth in TENTHS)


@dataclass(frozen=True)
class Scores:
    """What a set of rows is worth under one protocol; fractions, NaN where there is no sample to score.

    Samples whose expression names nothing on purpose (no-target) have no IoU: they count in `n_accuracy` alone. That
    differs from GRES's gIoU and cIoU, into which they enter, and leaves mIoU and oIoU comparable with other datasets'.

    Attributes:
        miou: mean of the samples' IoU (some papers: gIoU).
        oiou: ΣI / ΣU over the samples (some papers: cIoU, or gIoU); 0 where every union is empty.
        precision: share of samples that are hits at IoU 0.5, 0.6, 0.7, 0.8 and 0.9.
        n: samples that are scored by IoU, all but the no-target ones.
        n_empty: those of them whose truth has no pixel at the protocol's size, a defect of the annotation.
        n_no_target: no-target samples.
        n_accuracy: N-acc, share of the no-target samples whose predicted mask is empty (GRES, Liu et al., CVPR 2023).
        t_accuracy: T-acc, share of the other samples whose predicted mask is not empty (the same place).
    """

    miou: float
    oiou: float
    precision: tuple[float, ...]
    n: int
    n_empty: int
    n_no_target: int
    n_accuracy: float
    t_accuracy: float

    def as_dict(self) -> dict[str, float]:
        """Returns the scores under the field's names: mIoU, oIoU, Pr@0.5 … Pr@0.9, n, n_empty, n_no_target, …."""
        return {
            "mIoU": self.miou,
            "oIoU": self.oiou,
            **dict(zip(PRECISION, self.precision, strict=True)),
            "n": self.n,
            "n_empty": self.n_empty,
            "n_no_target": self.n_no_target,
            "N-acc": self.n_accuracy,
            "T-acc": self.t_accuracy,
        }


def summarise(rows: np.ndarray, protocol: str) -> Scores:
    """Scores rows (N, 6) int64 under a protocol; raises `S4ecaError` for an unknown protocol."""
    named = {name: float(value) for name, value in ratios(terms(rows, protocol).sum(axis=1)).items()}
    targets = rows[rows[:, NO_TARGET] == 0]
    return Scores(
        miou=named["mIoU"],
        oiou=named["oIoU"],
        precision=tuple(named[name] for name in PRECISION),
        n=len(targets),
        n_empty=int((targets[:, AREA] == 0).sum()),
        n_no_target=len(rows) - len(targets),
        n_accuracy=named["N-acc"],
        t_accuracy=named["T-acc"],
    )


def protocol_scores(rows: np.ndarray, protocol: str) -> dict[str, float]:
    """Returns the scores of rows by name, and again under `nonempty/NAME` without the samples of empty truth."""
    nonempty = summarise(without_empty(rows), protocol).as_dict()
    names = ("mIoU", "oIoU", *PRECISION, "n")
    return summarise(rows, protocol).as_dict() | {f"nonempty/{name}": nonempty[name] for name in names}


def without_empty(rows: np.ndarray) -> np.ndarray:
    """Returns the rows whose truth has at least one pixel."""
    return rows[rows[:, AREA] > 0]


def terms(rows: np.ndarray, protocol: str) -> np.ndarray:
    """Returns what each row adds to the sums that every score is a ratio of, float64 (12, N).

    Lines are: scored by IoU, IoU, intersection, union, hits at five thresholds, predicted although scored, no target,
    rightly empty. Sums of any rows, drawn once or several times, go to `ratios`.

    Raises:
        S4ecaError: an unknown protocol.
    """
    (rules,) = select([protocol])
    intersection, union = rows[:, INTERSECTION], rows[:, UNION]
    no_target = rows[:, NO_TARGET] != 0
    target = ~no_target
    empty = union - rows[:, AREA] + intersection == 0  # pixels of the prediction
    lines = [
        target,
        rules.iou(intersection, union) * target,
        intersection * target,
        union * target,
        *(rules.hits(intersection, union) & target[:, None]).T,
        target & ~empty,
        no_target,
        no_target & empty,
    ]
    return np.stack([np.asarray(line, np.float64) for line in lines])


def ratios(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Turns sums of `terms`, (12,) or (12, R) for R draws, into scores () or (R,) by name; NaN without samples."""
    n, iou, intersection, union, *hits, predicted, no_target, rightly_empty = sums
    return {
        "mIoU": _divide(iou, n),
        # nothing predicted and nothing there in any sample: 0, as LAVT's test.py has it for each
        "oIoU": _divide(intersection, np.where((union == 0) & (n > 0), 1, union)),
        **{name: _divide(count, n) for name, count in zip(PRECISION, hits, strict=True)},
        "N-acc": _divide(rightly_empty, no_target),
        "T-acc": _divide(predicted, n),
    }


def row(index: int, prediction: np.ndarray, truth: np.ndarray, no_target: bool = False) -> np.ndarray:
    """Returns the row (6,) int64 of one sample from its masks, bool (H, W) of equal size.

    Raises:
        ValueError: the masks are not bool, or of different sizes.
    """
    if prediction.dtype != bool or truth.dtype != bool or prediction.shape != truth.shape:
        given = f"{prediction.dtype} {prediction.shape} and {truth.dtype} {truth.shape}"
        raise ValueError(f"masks of equal size and type bool are needed, not {given}")
    intersection, union = np.count_nonzero(prediction & truth), np.count_nonzero(prediction | truth)
    return np.array([index, intersection, union, np.count_nonzero(truth), -1, no_target], np.int64)


class ReferringMetrics(Metric):
    """mIoU, oIoU, Pr@0.5 … Pr@0.9, N-acc and T-acc under several protocols at once.

    The state is one int64 row per sample and protocol, and one with the sample's size, on the device of the logits.
    Rows are gathered over processes and de-duplicated by sample index, so that padding samplers do not count a sample
    twice and the scores do not depend on batch size or number of processes.

    Args:
        protocols: names out of `lavt`, `original`, `detris`.

    Raises:
        S4ecaError: an unknown protocol; in `update`, a batch without the original masks that a protocol needs.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(self, protocols: Sequence[str] = tuple(PROTOCOLS), **options: Any) -> None:
        super().__init__(**options)
        self.protocols = select(protocols)
        # columns of each state, so that a process without samples has something of the right shape to send
        self._widths = {_state(protocol.name): 6 for protocol in self.protocols} | {_SIZES: 4}
        for state in self._widths:
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Adds a batch: logits (B, H, W) at input size and the batch they were predicted from."""
        index = batch.index.to(logits.device)[:, None]
        no_category = torch.full_like(index, -1)
        no_target = torch.tensor(batch.no_target, dtype=torch.int64)[:, None].to(logits.device)
        for protocol in self.protocols:
            counts = torch.stack([count_pixels(*masks) for masks in protocol.masks(logits, batch)])
            rows = torch.cat([index, counts, no_category, no_target], dim=1)
            getattr(self, _state(protocol.name)).append(rows)
        truths = batch.original_masks or list(batch.mask)
        shapes = torch.tensor([tuple(truth.shape) for truth in truths], dtype=torch.int64).to(logits.device)
        areas = torch.stack([truth.sum() for truth in truths])[:, None].to(logits.device)
        getattr(self, _SIZES).append(torch.cat([index, shapes, areas], dim=1))

    def compute(self) -> dict[str, dict[str, float]]:
        """Returns the scores of each protocol, as `protocol_scores` names them."""
        rows, _ = self.gathered()
        return {protocol: protocol_scores(content, protocol) for protocol, content in rows.items()}

    def gathered(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns what was counted in all processes, each sample once, in the dataset's order.

        With several processes every one of them must call this.

        Returns:
            The rows (N, 6) int64 of each protocol, and the samples' sizes (N, 4) int64: index, height and width of the
            image file, pixels of the truth at that size. Where batches bring no original masks, sizes and areas are
            those at input size.
        """
        gather = self._to_sync and not self._is_synced
        with self.sync_context(self.dist_sync_fn, should_sync=gather, should_unsync=gather):
            rows = {protocol.name: self._unique(_state(protocol.name)) for protocol in self.protocols}
            return rows, self._unique(_SIZES)

    def _unique(self, state: str) -> np.ndarray:
        parts = getattr(self, state)
        content = dim_zero_cat(parts).cpu().numpy() if len(parts) else np.zeros((0, self._widths[state]), np.int64)
        _, first = np.unique(content[:, INDEX], return_index=True)
        return content[first]

    def sync(self, *args: Any, **options: Any) -> None:
        """Gathers the rows of all processes; called by torchmetrics."""
        # for a process that saw no sample torchmetrics sends a float vector, which the others' rows cannot be joined to
        for state, width in self._widths.items():
            parts = getattr(self, state)
            if isinstance(parts, list) and not parts:
                parts.append(torch.zeros((0, width), dtype=torch.int64, device=self.device))
        super().sync(*args, **options)


_SIZES = "truth_sizes"


def _state(protocol: str) -> str:
    return f"rows_{protocol}"


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divides where there is something to divide by; NaN elsewhere."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
