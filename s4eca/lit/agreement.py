"""Several processes decide alike, without any of them waiting for its GPU, and fail as one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch import Tensor

from s4eca.errors import S4ecaError

FAILED = ".failed"


class AnyWishes:
    """Asks all processes of a run whether one of them wishes something.

    The question is put to the GPUs and its answer read at the next call, when they have long had it: a process never
    waits until its GPU has nothing left to do. All processes must call it equally often.
    """

    def __init__(self) -> None:
        self._answer: Tensor | None = None
        self._ready: torch.cuda.Event | None = None

    def ask(self, wish: bool, device: torch.device) -> bool:
        """Puts the question again; returns whether any process wished it at the call before."""
        before = self.wait()
        flag = torch.full((), int(wish), dtype=torch.int32, device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        if device.type == "cuda":
            self._answer = torch.empty((), dtype=torch.int32, pin_memory=True)
            self._answer.copy_(flag, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()
        else:
            self._answer = flag
        return before

    def wait(self) -> bool:
        """Returns whether any process wished it at the last call, as soon as that is known."""
        if self._answer is None:
            return False
        if self._ready is not None:
            self._ready.synchronize()
        return bool(self._answer.item())


@contextmanager
def failing_as_one(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Lets the process that met an error for the user say it alone.

    To the others it is a connection that broke, in whatever they exchanged at that moment. The first leaves a note in
    the folder before it ends; the others then end with the same status and without a word.

    Args:
        trainer: that runs meanwhile.
        folder: of the run, which all processes share; where they do not, each of them says what it knows.

    Raises:
        SystemExit: status 2, in the others.
    """
    note = folder / FAILED
    if trainer.is_global_zero:
        note.unlink(missing_ok=True)
    try:
        yield
    except S4ecaError:
        if trainer.world_size > 1 and folder.is_dir():
            note.touch()
        raise
    except RuntimeError:
        if trainer.world_size > 1 and note.exists():
            sys.exit(2)
        raise


class EpochLoop(_TrainingEpochLoop):
    """Lightning's loop over an epoch, without its question before every batch whether process 0 was told to stop.

    That question waits for the GPU, and asks after a signal handler that `StopSignals` replaces; `LastStep` asks in its
    place.
    """

    @classmethod
    def install(cls, trainer: Trainer) -> None:
        """Puts it in the place of a new trainer's own."""
        own = trainer.fit_loop.epoch_loop
        trainer.fit_loop.epoch_loop = cls(trainer, own.min_steps, own.max_steps)

    def _broadcast_sigterm_tensor(self) -> None:
        pass
