"""Evaluating the training-free method like a trained network: `test` and `predict`, nothing to fit."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s4eca.data.references import Batch
from s4eca.data.resize import fit_mask
from s4eca.dgl_rsis.parts import Evidence, Selection, View
from s4eca.dgl_rsis.pipeline import Pipeline
from s4eca.dgl_rsis.proposals.recall import best_iou
from s4eca.dgl_rsis.stages import Stages, name_pixels
from s4eca.evaluation.protocols import PROTOCOLS
from s4eca.lit.scoring import ScoringModule

CERTAIN = 10.0
"""The logit of a pixel inside a mask, its negative outside: there are no probabilities here."""


@dataclass(frozen=True)
class Finding:
    """What the report says of a sample beside its score.

    Attributes:
        proposals: how many masks there were to choose from.
        ceiling: IoU of the best of them with the truth at input size; NaN where the truth is empty.
        fallbacks: names of what was done instead of the rule.
    """

    proposals: int
    ceiling: float
    fallbacks: tuple[str, ...]


@dataclass(eq=False)  # not frozen: Lightning moves what a step returns and would refuse it
class Prediction:
    """One expression's result, as `predict` returns it.

    Attributes:
        id: of the reference.
        expression: of it.
        mask: (H, W) bool at the size of the image file.
        scores: (K,) float32, of the proposals.
        chosen: positions of the proposals that make the mask.
        activation: (rows, columns) float32 in [0, 1].
    """

    id: str
    expression: str
    mask: np.ndarray
    scores: np.ndarray
    chosen: tuple[int, ...]
    activation: np.ndarray


class DglRsis(ScoringModule):
    """DGL-RSIS (our re-implementation) on expressions; it runs at the batch's image size.

    Args:
        pipeline: the method.
        protocols: evaluation protocols.

    Attributes:
        findings: of the last test by reference id, of all processes.
    """

    def __init__(self, pipeline: Pipeline, protocols: Sequence[str] = tuple(PROTOCOLS)) -> None:
        super().__init__(protocols)
        self.pipeline = pipeline
        self.findings: dict[str, Finding] = {}

    def on_test_start(self) -> None:
        """Forgets an earlier test."""
        self.findings = {}

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Counts a batch and returns its masks as logits (B, S, S), ±`CERTAIN`."""
        masks = []
        for place, evidence, selection in self.select(batch):
            truth = batch.mask[place].cpu().numpy()
            ceiling = best_iou(evidence.proposals, truth) if truth.any() else float("nan")
            fallbacks = tuple(dict.fromkeys(names_of(evidence.phrase.fallback, selection.fallback)))
            self.findings[batch.ids[place]] = Finding(len(evidence.proposals), ceiling, fallbacks)
            masks.append(torch.from_numpy(selection.mask))
        logits = torch.where(torch.stack(masks).to(batch.image.device), CERTAIN, -CERTAIN)
        self.test_metrics.update(logits, batch)
        return logits

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """Returns the result of each sample."""
        return [
            Prediction(
                id=batch.ids[place],
                expression=batch.expressions[place],
                mask=fit_mask(selection.mask, batch.original_sizes[place]),
                scores=selection.scores,
                chosen=selection.chosen,
                activation=selection.activation,
            )
            for place, _, selection in self.select(batch)
        ]

    def select(self, batch: Batch) -> Iterator[tuple[int, Evidence, Selection]]:
        """Yields each sample's place in the batch with its evidence and selection; an image is looked at once."""
        views = [look(*parts) for parts in zip(batch.image, self._names(batch), batch.mask, strict=True)]
        start = 0
        while start < len(batch):
            stop = start + 1
            while stop < len(batch) and views[stop].key == views[start].key and not self.pipeline.proposer.needs_truth:
                stop += 1
            for offset, evidence in enumerate(self.pipeline.evidence(views[start], batch.expressions[start:stop])):
                yield start + offset, evidence, self.pipeline.selector.select(evidence)
            start = stop

    def on_test_epoch_end(self) -> None:
        """Gathers what other processes have found, and logs the scores."""
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self.findings)
            self.findings = {id: finding for part in parts for id, finding in part.items()}
        super().on_test_epoch_end()

    def summary(self) -> dict[str, Any]:
        """Returns what the report says of the last test: proposals, their ceiling, fallbacks, time by stage.

        The ceiling is the mean over the samples with a truth of the best proposal's IoU at input size, which no
        selector can pass by one mask. Seconds are means over what was computed and not read from the cache, in this
        process.
        """
        found = list(self.findings.values())
        ceilings = [item.ceiling for item in found if item.ceiling == item.ceiling]
        fallbacks = Counter(name for item in found for name in item.fallbacks)
        return {
            "proposals_per_image": float(np.mean([item.proposals for item in found])) if found else None,
            "proposal_recall": {
                "mean_best_IoU": float(np.mean(ceilings)) if ceilings else None,
                "share_at_0.5": float(np.mean([value >= 0.5 for value in ceilings])) if ceilings else None,
            },
            "fallbacks": dict(sorted(fallbacks.items())) or "none",
            **stage_times(self.pipeline.stages),
        }

    def _names(self, batch: Batch) -> list[str]:
        """Returns the names of the image files, for masks that were made elsewhere."""
        data = getattr(self._trainer, "datamodule", None)
        if data is None:
            return [""] * len(batch)
        references = data.references(data.evaluated)
        return [references[index].image.stem for index in batch.index.tolist()]


def look(image: Tensor, name: str = "", truth: Tensor | None = None) -> View:
    """Returns the view of an image (3, H, W) uint8, with the truth (H, W) bool for the oracle."""
    pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
    return View(pixels, name_pixels(pixels), name, None if truth is None else truth.cpu().numpy())


def names_of(*fallbacks: str | None) -> list[str]:
    """Returns the single names of fallbacks, which a stage joins by "; "."""
    return [name for fallback in fallbacks if fallback for name in fallback.split("; ")]


def stage_times(stages: Stages) -> dict[str, Any]:
    """Returns the mean seconds of what each stage has computed in this process, and how much it has read instead."""
    return {
        "seconds": {name: float(np.mean(values)) for name, values in stages.seconds.items() if values},
        "read_from_cache": {name: count for name, count in stages.reused.items() if count} or "nothing",
    }
