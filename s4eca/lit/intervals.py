"""How often a run validates and logs: what Lightning would only stumble over later."""

from typing import Any

from lightning import Trainer

from s4eca.errors import S4ecaError


def check_intervals(trainer: Trainer, data: Any) -> None:
    """Compares the trainer's intervals with the data, before anything is computed.

    Args:
        trainer: about to fit.
        data: data module; one that is not ours, or None, is not asked for the number of its batches.

    Raises:
        S4ecaError: an interval that is none, or validation after more batches than an epoch has.
    """
    every, log = trainer.val_check_interval, trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every is not None and every <= 0:
        raise S4ecaError(f"trainer.val_check_interval={every} is no interval: give batches, or a share of an epoch.")
    if log < 0:
        raise S4ecaError(f"trainer.log_every_n_steps={log} is no interval: give steps, or 0 to log no step.")
    if not hasattr(data, "references") or not isinstance(every, int) or trainer.check_val_every_n_epoch is None:
        return
    batches = len(data.references("train")) // trainer.world_size // data.batch_size
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if every > batches > 0:
        raise S4ecaError(
            f"trainer.val_check_interval={every} is more than the {batches} batches of an epoch: set "
            "trainer.check_val_every_n_epoch=null to count over epochs, or give fewer."
        )
