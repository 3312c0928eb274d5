"""The metric of referring segmentation: one row of integers per sample and protocol, scores computed from the rows."""

from collections.abc import Mapping, Sequence
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
"""Columns of the rows: position in the dataset, pixels, pixels, pixels of the truth, category code or -1, no-target flag."""


@dataclass(frozen=True)
class Scores:
    """What a set of rows is worth under one protocol; fractions, NaN without samples.

    Attributes:
        miou: mean of the samples' IoU (some papers: gIoU).
        oiou: ΣI / ΣU over the samples (some papers: cIoU, or gIoU); 0 where every union is empty.
        precision: share of samples that are hits at IoU 0.5, 0.6, 0.7, 0.8 and 0.9.
        n: samples.
        n_empty: samples whose truth has no pixel.
    """

    miou: float
    oiou: float
    precision: tuple[float, ...]
    n: int
    n_empty: int

    def as_dict(self) -> dict[str, float]:
        """Returns the scores under the field's names: mIoU, oIoU, Pr@0.5 … Pr@0.9, n, n_empty."""
        precision = {f"Pr@0.{tenth}": share for tenth, share in zip(TENTHS, self.precision, strict=True)}
        return {"mIoU": self.miou, "oIoU": self.oiou, **precision, "n": self.n, "n_empty": self.n_empty}


def summarise(rows: np.ndarray, protocol: str) -> Scores:
    """Scores rows (N, 6) int64 under a protocol; raises `S4ecaError` for an unknown protocol."""
    (rules,) = select([protocol])
    n, n_empty = len(rows), int((rows[:, AREA] == 0).sum())
    if n == 0:
        return Scores(np.nan, np.nan, (np.nan,) * len(TENTHS), n, n_empty)
    intersection, union = rows[:, INTERSECTION], rows[:, UNION]
    overall = float(intersection.sum() / union.sum()) if union.any() else 0.0
    precision = rules.hits(intersection, union).mean(0)
    return Scores(float(rules.iou(intersection, union).mean()), overall, tuple(precision.tolist()), n, n_empty)


def without_empty(rows: np.ndarray) -> np.ndarray:
    """Returns the rows whose truth has at least one pixel."""
    return rows[rows[:, AREA] > 0]


def per_category(rows: np.ndarray, protocol: str, categories: Sequence[str]) -> dict[str, Scores]:
    """Scores each category that occurs, in the order of `categories`; rows without one come last as `(none)`."""
    names = dict(enumerate(categories)) | {-1: "(none)"}
    groups = {name: rows[rows[:, CATEGORY] == code] for code, name in names.items()}
    return {name: summarise(group, protocol) for name, group in groups.items() if len(group)}


def per_size(rows: np.ndarray, protocol: str, bounds: tuple[int, int] = (32**2, 96**2)) -> dict[str, Scores]:
    """Scores small, medium and large targets, without the empty ones.

    Sizes are pixels of the truth at the protocol's size; the default bounds are COCO's: medium is from 32² up to, but
    not including, 96².
    """
    rows = without_empty(rows)
    size = np.digitize(rows[:, AREA], bounds)
    return {name: summarise(rows[size == i], protocol) for i, name in enumerate(("small", "medium", "large"))}


class ReferringMetrics(Metric):
    """mIoU, oIoU and Pr@0.5 … Pr@0.9 under several protocols at once.

    The state is one int64 row per sample and protocol, on the device of the logits. Rows are gathered over processes
    and de-duplicated by sample index, so that padding samplers do not count a sample twice and the scores do not
    depend on batch size or number of processes.

    Args:
        protocols: names out of `lavt`, `original`, `detris`.
        categories: class names; a row holds the position here, or -1 for no category or one that is not listed.

    Raises:
        S4ecaError: an unknown protocol; in `update`, a batch without the original masks that a protocol needs.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(
        self,
        protocols: Sequence[str] = tuple(PROTOCOLS),
        categories: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.protocols = select(protocols)
        self.categories = tuple(categories)
        self._codes: Mapping[str | None, int] = {name: code for code, name in enumerate(self.categories)}
        for protocol in self.protocols:
            self.add_state(_state(protocol.name), default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Adds a batch: logits (B, H, W) at input size and the batch they were predicted from."""
        codes = torch.tensor([self._codes.get(name, -1) for name in batch.categories], dtype=torch.int64)
        codes, index = codes.to(logits.device), batch.index.to(logits.device)
        no_target = torch.tensor(batch.no_target, dtype=torch.int64).to(logits.device)
        for protocol in self.protocols:
            counts = torch.stack([count_pixels(*masks) for masks in protocol.masks(logits, batch)])
            rows = torch.cat([index[:, None], counts, codes[:, None], no_target[:, None]], dim=1)
            getattr(self, _state(protocol.name)).append(rows)

    def compute(self) -> dict[str, dict[str, float]]:
        """Returns the scores of each protocol, as fractions.

        Each holds mIoU, oIoU, Pr@0.5 … Pr@0.9, n and n_empty over all samples, and the same without the samples of
        empty truth under `nonempty/mIoU` and so on.
        """
        scores = {}
        for protocol in self.protocols:
            rows = self.rows(protocol.name)
            nonempty = summarise(without_empty(rows), protocol.name).as_dict()
            nonempty.pop("n_empty")
            scores[protocol.name] = summarise(rows, protocol.name).as_dict() | {
                f"nonempty/{name}": value for name, value in nonempty.items()
            }
        return scores

    def rows(self, protocol: str) -> np.ndarray:
        """Returns the rows (N, 6) int64 of all processes, each sample once, in the dataset's order.

        With several processes every one of them must call this.
        """
        gather = self._to_sync and not self._is_synced
        with self.sync_context(self.dist_sync_fn, should_sync=gather, should_unsync=gather):
            state = getattr(self, _state(protocol))
            rows = dim_zero_cat(state).cpu().numpy() if len(state) else np.zeros((0, 6), np.int64)
        _, first = np.unique(rows[:, INDEX], return_index=True)
        return rows[first]

    def sync(self, *args: Any, **options: Any) -> None:
        """Gathers the rows of all processes; called by torchmetrics."""
        # for a process that saw no sample torchmetrics sends a float vector, which the others' rows cannot be joined to
        for protocol in self.protocols:
            state = getattr(self, _state(protocol.name))
            if isinstance(state, list) and not state:
                state.append(torch.zeros((0, 6), dtype=torch.int64, device=self.device))
        super().sync(*args, **options)


def _state(protocol: str) -> str:
    return f"rows_{protocol}"
