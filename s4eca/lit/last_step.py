"""What a run needs to go on exactly where it stopped, however it stopped."""

import warnings
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from s4eca.lit.agreement import AnyWishes
from s4eca.lit.ema import EMA
from s4eca.lit.referring import ReferringModule
from s4eca.lit.sharded import FSDP
from s4eca.stopping import StopSignals

DUE = "validation_due"


class LastStep(Checkpoint):
    """Writes `last.ckpt` when a run is stopped, fails or ends, as of its last complete step.

    Lightning's `ModelCheckpoint(save_on_exception=True)` saves what it finds: a loader that has already given out the
    batch that failed, random states from the middle of a step, and during a validation perhaps averaged weights, so
    that the resumed run is another one. Here the states of loops, generators and callbacks are kept after every
    complete step, which costs about half a millisecond. Weights and optimiser states are those of that step anyhow,
    until an optimiser begins the next one; an exception in the middle of an optimiser step therefore saves nothing, and
    the last periodic checkpoint counts.

    A validation that was due and had not ended when a checkpoint was written is run first when training goes on from
    it; Lightning would leave it out, and the checkpoint that it might have selected with it.

    It derives from Lightning's `Checkpoint` to come after all other callbacks, whose states belong to the step as well.

    Args:
        path: file to write, `RUN/checkpoints/last.ckpt`.
        signals: asked before every batch whether to stop. With several processes all stop where one is asked to, a
            batch later than one alone would, so that none waits for its GPU to answer.
    """

    def __init__(self, path: Path, signals: StopSignals | None = None) -> None:
        self.path, self.signals = Path(path), signals
        self._kept: dict[str, Any] | None = None
        self._any_is_asked = AnyWishes()
        self._in_optimizer = False
        self._owed = False
        self._max_steps: int | None = None

    @property
    def is_saved(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.path.is_file()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the step to be complete."""
        if self.signals is not None:
            self.signals.install()
            self.signals.deferring = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stops where that was asked for."""
        self._stop_where_asked(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stops where that was asked for; the validation is run when training goes on.

        Several processes may have different numbers of batches here, so that they can only agree before the first one.
        """
        if not trainer.sanity_checking and trainer.world_size == 1:
            self._stop_where_asked(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """What is kept no longer fits the weights."""
        self._in_optimizer = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps where the run is, after a batch with which a step is complete."""
        if not trainer.fit_loop._should_accumulate():
            self._keep(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets right what `on_load_checkpoint` has changed for a validation that was owed; stops where asked to."""
        if self._owed:
            self._owed = False
            loop = trainer.fit_loop.epoch_loop
            total: Any = loop.val_loop.batch_progress.total
            total.ready = total.started = total.completed
            if self._max_steps is not None:
                loop.max_steps, self._max_steps = self._max_steps, None
        if not trainer.sanity_checking:
            self._stop_where_asked(trainer, at_once=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps that the validation is done, unless the end of the epoch follows."""
        loop = trainer.fit_loop  # inside a step with accumulated gradients the state before it counts
        if not (trainer.sanity_checking or loop._should_accumulate() or loop.epoch_loop._num_ready_batches_reached()):
            self._keep(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps that the epoch is done, with what other callbacks have made of its validation.

        The loops' state stays that of the last batch: from there Lightning goes on with the next epoch, whereas from
        the state at this hook it would count on in the old one.
        """
        if self._kept is not None:
            self._kept |= {DUE: False, "callbacks": _states(trainer)}
        if _is_ending(trainer):  # not in `on_train_end`, where an EMA has replaced the raw weights
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All is saved, and from here on a signal ends the run at once."""
        self._kept = None
        if self.signals is not None:
            self.signals.deferring = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the last complete step; what goes wrong with it is said and does not hide the exception."""
        if self.signals is not None:
            self.signals.deferring = True  # a second signal does not break this off
            self.signals.step = trainer.global_step
        together = isinstance(exception, SIGTERMException)  # which all processes meet at the same place
        if isinstance(trainer.strategy, FSDP) and not together:
            return  # the weights lie in all processes, and the others do not come
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EMA):
                callback.on_validation_end(trainer, pl_module)  # the raw weights, where a validation had replaced them
        if isinstance(pl_module, ReferringModule):
            pl_module.guard.undo()  # running statistics of a step that has been begun
        try:
            self._save(trainer)
        except Exception as error:
            warnings.warn(f"the last step could not be saved: {error}", stacklevel=1)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes in every checkpoint whether a validation is due after its step."""
        checkpoint[DUE] = _validation_due(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Makes Lightning run a validation that is owed: as if its first batch had been begun."""
        if not checkpoint.get(DUE):
            return
        self._owed = True
        progress = checkpoint["loops"]["fit_loop"]
        batches, validation = progress["epoch_loop.batch_progress"], progress["epoch_loop.val_loop.batch_progress"]
        for part in ("total", "current"):
            batches[part]["completed"] = batches[part]["processed"]
        total = validation["total"]
        total["ready"] = total["started"] = total["completed"] + 1
        total["processed"] = total["completed"]
        validation["current"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        loop = trainer.fit_loop.epoch_loop
        if loop.max_steps == checkpoint["global_step"]:  # Lightning would have nothing left to do
            self._max_steps, loop.max_steps = loop.max_steps, loop.max_steps + 1

    def _stop_where_asked(self, trainer: Trainer, at_once: bool = False) -> None:
        if self.signals is None:
            return
        asked = self.signals.asked is not None
        if trainer.world_size > 1:
            asked = self._any_is_asked.ask(asked, trainer.strategy.root_device)
            if at_once:  # a validation may take longer than there is time
                asked = self._any_is_asked.wait()
        if asked:
            raise SIGTERMException

    def _keep(self, trainer: Trainer) -> None:
        kept = {
            "epoch": trainer.current_epoch,
            "loop": _copied(trainer.fit_loop.state_dict()),
            "callbacks": _states(trainer),
            DUE: _validation_due(trainer),
        }
        self._kept, self._in_optimizer = kept, False

    def _save(self, trainer: Trainer) -> None:
        kept = self._kept
        if kept is None or self._in_optimizer or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not trainer.is_global_zero and not isinstance(trainer.strategy, FSDP):
            return
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        checkpoint["epoch"], checkpoint[DUE] = kept["epoch"], kept[DUE]
        checkpoint["loops"]["fit_loop"] = kept["loop"]
        checkpoint["callbacks"] = kept["callbacks"]
        # without a barrier: after a failure the other processes do not come
        trainer.strategy.save_checkpoint(checkpoint, str(self.path))


def _is_ending(trainer: Trainer) -> bool:
    """Whether the epoch that has just ended is the run's last."""
    loop = trainer.fit_loop
    current: Any = loop.epoch_progress.current
    last_epoch = loop.max_epochs not in (None, -1) and current.processed >= loop.max_epochs
    return trainer.should_stop or trainer.global_step == trainer.max_steps or last_epoch


def _states(trainer: Trainer) -> dict[str, Any]:
    """Returns what the callbacks would store, random states among it."""
    states = {item.state_key: item.state_dict() for item in trainer.callbacks}  # type: ignore[attr-defined]
    return {key: _copied(state) for key, state in states.items() if state}


def _copied(node: Any) -> Any:
    """Copies dicts and lists, which their owners change; tensors and tuples are replaced, not changed."""
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(value) for value in node] if isinstance(node, list) else node


def _validation_due(trainer: Trainer) -> bool:
    """Whether a training batch has just ended and a validation follows."""
    loop = trainer.fit_loop.epoch_loop
    total: Any = loop.batch_progress.total
    fetcher = trainer.fit_loop._data_fetcher
    return total.completed == total.processed - 1 and fetcher is not None and loop._should_check_val_fx(fetcher)
