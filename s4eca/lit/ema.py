"""Exponential moving average of what is learned."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from s4eca.checkpoint import PREFIX
from s4eca.errors import S4ecaError


class EMA(Callback):
    """Averages learned parameters over steps; validation, checkpoints and the finished run use the average.

    Lightning's own WeightAveraging copies the whole module; this one holds what is learned and no frozen tower. The raw
    weights travel in the checkpoint beside the average, so that resuming is exact.

    Args:
        decay: weight of the past at every optimiser step.

    Raises:
        S4ecaError: `decay` is outside [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise S4ecaError(f"callbacks.ema.decay={decay} must be at least 0 and below 1.")
        self.average = get_ema_multi_avg_fn(decay)
        self.shadow: dict[str, Tensor] = {}
        self.raw: dict[str, Tensor] = {}
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the average at the weights as they are; a resumed run has it already."""
        self._step = trainer.global_step
        if not self.shadow:
            self.shadow = {name: value.detach().clone() for name, value in _learned(pl_module).items()}

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Updates the average after every optimiser step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        current = _learned(pl_module)
        averaged = [name for name, value in current.items() if value.is_floating_point()]
        for parts in (False, True):  # torch takes lists of whole tensors or of tensors in parts (trainer=fsdp)
            names = [name for name in averaged if isinstance(current[name], DTensor) == parts]
            if names:
                self.average([self.shadow[name] for name in names], [current[name] for name in names], self._step)
        for name in current.keys() - set(averaged):
            self.shadow[name].copy_(current[name])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average in place."""
        if self.shadow and not trainer.sanity_checking:
            self.raw = {name: value.detach().clone() for name, value in _learned(pl_module).items()}
            _fill(pl_module, self.shadow)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the raw weights back."""
        if self.raw:
            _fill(pl_module, self.raw)
            self.raw = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the module."""
        _fill(pl_module, self.shadow)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Stores the average where an evaluation looks for weights, and the raw weights beside it."""
        if self.shadow:
            checkpoint["raw_state_dict"] = checkpoint["state_dict"]
            checkpoint["state_dict"] = {PREFIX + name: value for name, value in self.shadow.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes the average from the weights, and puts the raw weights into the module.

        Raises:
            S4ecaError: the checkpoint was written without this callback.
        """
        if "raw_state_dict" not in checkpoint:
            raise S4ecaError("the checkpoint was written without EMA; resume without callbacks.ema, as it was trained.")
        device = pl_module.device
        self.shadow = {
            name.removeprefix(PREFIX): value.detach().clone().to(device)
            for name, value in checkpoint["state_dict"].items()
        }
        _fill(pl_module, {name.removeprefix(PREFIX): value for name, value in checkpoint["raw_state_dict"].items()})


def _learned(pl_module: LightningModule) -> dict[str, Tensor]:
    return pl_module.segmenter.learned_state()  # type: ignore[union-attr,operator]


@torch.no_grad()
def _fill(pl_module: LightningModule, values: dict[str, Tensor]) -> None:
    for name, tensor in _learned(pl_module).items():
        tensor.copy_(values[name])
