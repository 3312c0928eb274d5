"""Evaluating the training-free method on label maps: open-vocabulary semantic segmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningModule

from s4eca.data.semantic.labelled import SemanticSample
from s4eca.dgl_rsis.pipeline import Pipeline
from s4eca.errors import S4ecaError
from s4eca.evaluation.semantic.metric import SemanticMetric, SemanticScores, score_confusion
from s4eca.evaluation.semantic.pictures import Gallery, SemanticPicture
from s4eca.lit.dgl_rsis import look, stage_times


class DglLabels(LightningModule):
    """DGL-RSIS (our re-implementation) on classes: each pixel gets a label from the masks that cover it.

    Args:
        pipeline: the method; its knowledge names the data's classes in the order of their ids.
        settings: see `Pipeline.label`.
        labels: names of the data's labels, background first.
        pictures: how many images are kept for the report.

    Attributes:
        scores: of the last test.
        gallery: images of all processes with their label maps.

    Raises:
        S4ecaError: the knowledge has other classes than the data, or a setting is out of range.
    """

    scores: SemanticScores

    def __init__(
        self, pipeline: Pipeline, settings: Mapping[str, Any], labels: Sequence[str], pictures: int = 6
    ) -> None:
        super().__init__()
        known = list(pipeline.classes)
        if known != list(labels[1:]):
            raise S4ecaError(
                f"the knowledge has the classes {', '.join(known)} and the data {', '.join(labels[1:])}; choose the "
                "data's own with model.knowledge."
            )
        tau, threshold = settings["tau"], settings["threshold"]
        if not isinstance(tau, int | float) or tau <= 0:
            raise S4ecaError(f"model.labels.tau={tau} must be a number above 0.")
        if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise S4ecaError(f"model.labels.threshold={threshold} must be a number from 0 to 1.")
        self.pipeline, self.settings = pipeline, dict(settings)
        self.metric = SemanticMetric(len(labels))
        self.pictures = pictures
        self.gallery = Gallery(pictures)
        self._proposals: list[int] = []

    @property
    def images(self) -> int:
        """How many images the last test scored."""
        return len(self._proposals)

    def on_test_start(self) -> None:
        """Forgets an earlier test."""
        self.gallery, self._proposals = Gallery(self.pictures), []

    def test_step(self, batch: Sequence[SemanticSample], batch_idx: int) -> None:
        """Counts the images of a batch."""
        for sample in batch:
            prediction = self.predict(sample)
            self._proposals.append(len(self.pipeline.stages.proposals(look(sample.image, sample.id))))
            assert sample.labels is not None  # the data module refuses a split without
            self.metric.update(torch.from_numpy(prediction).to(self.device), sample.labels.to(self.device))
            picture = sample.image.permute(1, 2, 0).cpu().numpy()
            self.gallery.offer(
                SemanticPicture(sample.index, sample.id, picture, sample.labels.cpu().numpy(), prediction)
            )

    def predict_step(self, batch: Sequence[SemanticSample], batch_idx: int) -> list[tuple[str, np.ndarray]]:
        """Returns the id and the label map (H, W) uint8 of each image."""
        return [(sample.id, self.predict(sample)) for sample in batch]

    def predict(self, sample: SemanticSample) -> np.ndarray:
        """Returns the label map (H, W) uint8 of an image."""
        return self.pipeline.label(look(sample.image, sample.id), self.settings)

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the split."""
        self.scores = score_confusion(self.metric.compute())
        self.metric.reset()
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, (self._proposals, self.gallery.pictures))
            self._proposals = [count for counts, _ in parts for count in counts]
            self.gallery = Gallery(self.pictures)
            for picture in (picture for _, pictures in parts for picture in pictures):
                self.gallery.offer(picture)
        for name, value in self.scores.as_dict().items():
            self.log(f"test/{name}", value, sync_dist=True)

    def summary(self) -> dict[str, Any]:
        """Returns what the report says beside the scores; seconds are of this process."""
        mean = float(np.mean(self._proposals)) if self._proposals else None
        without = sum(count == 0 for count in self._proposals)
        return {
            "proposals_per_image": mean,
            "fallbacks": {"no proposal": without} if without else "none",
            **stage_times(self.pipeline.stages),
        }
