"""Keeps the masks of an evaluation, for the report and for export."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from s4eca.data.references import Batch
from s4eca.evaluation.predictions import encode
from s4eca.evaluation.protocols import at_original_size


class CollectPredictions(Callback):
    """Keeps every sample's mask at the image's own size, as the protocol `original` compares it.

    Attributes:
        masks: COCO RLE by reference id; after the evaluation those of all processes.
    """

    def __init__(self) -> None:
        self.masks: dict[str, dict[str, Any]] = {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Encodes the masks of a batch of logits (B, H, W)."""
        for id, (prediction, _) in zip(batch.ids, at_original_size(outputs, batch), strict=True):
            self.masks[id] = encode(prediction.cpu().numpy())

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gathers what the other processes have kept."""
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self.masks)
            self.masks = {id: mask for part in parts for id, mask in part.items()}
