"""Pictures of validation samples: as files in the run folder, and as mask overlays in W&B."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from s4eca.data.references import Batch
from s4eca.evaluation.pictures import save_panels


class ValidationPictures(Callback):
    """Shows the first samples of the validation split after every validation.

    Files are `pictures/step_STEP/*.png` in the run folder; with a W&B logger the same samples go there with truth and
    prediction as switchable overlays.

    Args:
        limit: number of samples; 0 for none.
    """

    def __init__(self, limit: int = 4) -> None:
        self.limit = limit
        self._left = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts anew."""
        self._left = 0 if trainer.sanity_checking or not trainer.is_global_zero else self.limit

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws what is left to draw from this batch."""
        if self._left <= 0:
            return
        folder = Path(trainer.default_root_dir) / "pictures" / f"step_{trainer.global_step:06d}"
        save_panels(folder, batch, outputs, self._left)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                _send(logger, batch, outputs, self._left, trainer.global_step)
        self._left -= len(batch)


def _send(logger: WandbLogger, batch: Batch, logits: Tensor, limit: int, step: int) -> None:
    import wandb

    names = {0: "rest", 1: "target"}
    pictures = []
    for place in range(min(limit, len(batch))):
        masks = {
            "truth": {"mask_data": batch.mask[place].byte().cpu().numpy(), "class_labels": names},
            "prediction": {"mask_data": (logits[place] > 0).byte().cpu().numpy(), "class_labels": names},
        }
        image = batch.image[place].permute(1, 2, 0).cpu().numpy()
        pictures.append(wandb.Image(image, caption=batch.expressions[place], masks=masks))
    logger.experiment.log({"val/pictures": pictures, "trainer/global_step": step})
