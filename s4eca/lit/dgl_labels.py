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
        images: how many were scored, in all processes.
        gallery: images of this process with their label maps.

    Raises:
        S4ecaError: the knowledge has other classes than the data.
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
        self.pipeline, self.settings = pipeline, dict(settings)
        self.metric = SemanticMetric(len(labels))
        self.gallery = Gallery(pictures)
        self.images = 0
        self._proposals: list[int] = []

    def test_step(self, batch: Sequence[SemanticSample], batch_idx: int) -> None:
        """Counts the images of a batch."""
        for sample in batch:
            prediction = self.predict(sample)
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
        view = look(sample.image, sample.id)
        self._proposals.append(len(self.pipeline.stages.proposals(view)))
        return self.pipeline.label(view, self.settings)

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the split."""
        self.scores = score_confusion(self.metric.compute())
        self.metric.reset()
        self.images = len(self._proposals)
        if self.trainer.world_size > 1:
            self.images = int(self.all_gather(torch.tensor(self.images, device=self.device)).sum())  # type: ignore[union-attr]
        for name, value in self.scores.as_dict().items():
            self.log(f"test/{name}", value, sync_dist=True)

    def summary(self) -> dict[str, Any]:
        """Returns what the report says beside the scores; of this process."""
        mean = float(np.mean(self._proposals)) if self._proposals else None
        without = sum(count == 0 for count in self._proposals)
        return {
            "proposals_per_image": mean,
            "fallbacks": {"no proposal": without} if without else "none",
            **stage_times(self.pipeline.stages),
        }
