"""One trial: a training in this process that reports its validations, and ends early where it does not pay."""

import gc
import math
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
import torch
from lightning import Callback, LightningModule, Trainer
from optuna.exceptions import StorageInternalError, TrialPruned, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from s4eca.cli.training import train
from s4eca.errors import S4ecaError
from s4eca.sweep.composing import compose_train
from s4eca.sweep.inputs import SameInputs
from s4eca.sweep.space import Space


class Pruning(Callback):
    """Reports the metric at every validation, and ends the training where the study's pruner says so.

    The step of a report is the number of validations so far: trials with other batch sizes then compare at the same
    share of their training, and a pruner's settings do not depend on how long an epoch is.

    Args:
        trial: of the study.
        metric: as the module logs it.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.pruned = False
        self._trial, self._metric, self._validations = trial, metric, 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports; a storage that cannot be reached for a moment costs the report and not the training."""
        if trainer.sanity_checking:
            return
        logged = trainer.callback_metrics.get(self._metric)
        if logged is None:
            scores = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise S4ecaError(f"the search space's metric {self._metric} is not logged; there are {scores}.")
        self._validations += 1
        value = float(logged)
        if not math.isfinite(value):  # the run may come back; without any finite score it fails at its end
            return
        try:
            self._trial.report(value, self._validations)
            ended = trainer.global_step >= trainer.estimated_stepping_batches  # nothing is left to save
            if not ended and self._trial.should_prune():
                self.pruned = trainer.should_stop = True
        except UpdateFinishedTrialError:  # taken for crashed; what is trained from here on would count for nothing
            trainer.should_stop = True
        except (StorageInternalError, SQLAlchemyError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            warnings.warn(f"validation {self._validations} could not be reported to the study: {reason}", stacklevel=1)


class Heartbeat:
    """Signs of life of a running trial, from a thread, while the block runs.

    Optuna's own thread ends for good where the storage cannot be reached for a moment.

    Args:
        storage: of the study.
        trial: that runs.
    """

    def __init__(self, storage: RDBStorage, trial: optuna.Trial) -> None:
        self._storage, self._id = storage, trial._trial_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._sign()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._storage.get_heartbeat_interval()):
            self._sign()
        self._storage.remove_session()

    def _sign(self) -> None:
        with suppress(StorageInternalError, SQLAlchemyError):
            self._storage.record_heartbeat(self._id)


def train_trial(trial: optuna.Trial, space: Space, overrides: list[str], folder: Path) -> float:
    """Trains a trial's config into a run folder.

    Args:
        trial: whose values are in `overrides` already.
        space: of the study.
        overrides: of `train.yaml`.
        folder: that does not hold a run yet.

    Returns:
        The best value of the metric over the validations, as the run's checkpoint callback kept it.

    Raises:
        TrialPruned: it was ended early.
        S4ecaError: anything the user can mend.
    """
    pruning = Pruning(trial, space.metric)
    best = train(compose_train(overrides), folder, None, more=[SameInputs(trial), pruning])
    if pruning.pruned:
        raise TrialPruned
    if best is None or not math.isfinite(best):
        raise S4ecaError(f"no validation gave a finite {space.metric}.")
    return best


def free_memory() -> None:
    """Gives back what a trial held: a trainer and its module refer to each other, and the GPU's pool keeps blocks."""
    compiled: Any = sys.modules.get("torch._dynamo")
    if compiled is not None:
        compiled.reset()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
