"""The progress bar of a run."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from s4eca.lit.log_clock import LogClock

SHOWN = ("train/loss", "samples/s", "wait %", "memory GiB", "train/skipped_steps")


class ProgressBar(RichProgressBar):
    """Lightning's, with numbers that are fetched from the device at the steps that Lightning logs, and kept between.

    What is logged with `prog_bar=True` in a training step is fetched by Lightning in every step, whatever the bar's
    refresh rate; so nothing is, and the bar asks for itself. Scores of a validation are shown as ever. Nothing is shown
    of steps that were skipped while there are none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clock = LogClock()
        self._numbers: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        super().on_train_start(trainer, pl_module)
        self._clock.start(trainer)
        self._numbers = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves on."""
        if self._clock.strikes(trainer) and self.is_enabled:
            known = trainer.callback_metrics
            self._numbers = {name: float(known[name]) for name in SHOWN if name in known}
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _get_train_description(self, current_epoch: int) -> str:
        """Names the epoch, and the last one where epochs bound the training."""
        description = super()._get_train_description(current_epoch)
        if self.trainer.max_epochs == -1:  # steps do, and Lightning would write Epoch 5/-2
            description = description.replace("/-2", "", 1)
        return description.ljust(len(self.validation_description))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Returns what stands behind the bar."""
        shown = {name: value for name, value in self._numbers.items() if value or not name.endswith("skipped_steps")}
        return {**shown, **super().get_metrics(trainer, pl_module)}
