"""When a training loop may ask the device for numbers: at the steps whose metrics Lightning logs."""

from lightning import Trainer


class LogClock:
    """Strikes once per `trainer.log_every_n_steps` optimiser steps, as Lightning's own logging does.

    Anything fetched from a GPU makes the host wait until the GPU has done all that was queued. Between two strikes
    nothing is fetched, so that the host stays ahead.
    """

    def __init__(self) -> None:
        self._step = 0

    def start(self, trainer: Trainer) -> None:
        """Starts where training starts, in a resumed run too."""
        self._step = trainer.global_step

    def strikes(self, trainer: Trainer) -> bool:
        """Returns whether the batch that has just ended is one to log; ask once per batch, when it ends."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step == self._step:  # its gradients are being accumulated
            return False
        self._step = step
        return every > 0 and step % every == 0
