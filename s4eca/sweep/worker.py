"""A worker: takes trials of a study, one after the other, until as many have ended as were asked for."""

import os
import shlex
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import optuna
import torch
from optuna.exceptions import StorageInternalError, TrialPruned, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from s4eca.errors import S4ecaError
from s4eca.overrides import override
from s4eca.stopping import ASKING, requeue
from s4eca.sweep.space import Space
from s4eca.sweep.storage import enqueue_again, fail_stale, retried_from
from s4eca.sweep.study import DONE, count, is_one_too_many
from s4eca.sweep.trial import Heartbeat, free_memory, train_trial

EQUAL_ERRORS, ERRORS = 3, 10
"""A worker stops after so many failed trials in a row: of the same sentence, and of any."""

POLL = 10.0
"""Longest pause, in seconds, between two looks at other workers' trials."""

PAUSES = (1.0, 4.0, 15.0, 40.0)
"""Seconds between attempts to write a trial's end; a trained trial is worth a minute."""

R = TypeVar("R")


@dataclass
class Worker:
    """What a worker knows.

    Attributes:
        study: that it works for.
        storage: where that is.
        space: what the study tries.
        overrides: that all trials have in common.
        folder: of the study; every trial gets `trial_NUMBER` in it.
        name: `HOST:PID`.
    """

    study: optuna.Study
    storage: RDBStorage
    space: Space
    overrides: list[str]
    folder: Path
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    _errors: list[str] = field(default_factory=list)
    _unsigned: dict[int, float] = field(default_factory=dict)

    def work(self, n_trials: int, wait: bool = True) -> None:
        """Runs trials until the study has `n_trials` that are complete or pruned.

        Args:
            n_trials: of the study as a whole, whoever runs them; failed ones and their copies do not count.
            wait: whether to stay while others run the last trials, so as to repeat one whose worker crashes.

        Raises:
            S4ecaError: trials fail one after the other, or the storage is lost.
            SystemExit: Ctrl-C, SIGTERM, or SIGUSR1, which also requeues a SLURM job; the trial is in the queue again.
        """
        try:
            with _stopping():
                self._work(n_trials, wait)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except (StorageInternalError, SQLAlchemyError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise S4ecaError(
                f"the study's storage is lost ({reason}); start the same command again when it is back. A trial that"
                " ran here will be repeated."
            ) from error

    def _work(self, n_trials: int, wait: bool) -> None:
        announced = False
        while (missing := self._missing(n_trials)) > 0:
            running = count(self._trials())[TrialState.RUNNING]
            if running < missing:
                self._run_next(n_trials)
                announced = False
                continue
            if not wait:
                print(f"nothing left to begin: others run the last {running} trials")
                return
            if not announced:
                print(f"waiting for {running} trials of other workers, to repeat those that crash", flush=True)
            announced = True
            time.sleep(min(POLL, self._heartbeat()))

    def _missing(self, n_trials: int) -> int:
        """Returns how many trials have not ended yet, after a look for crashed ones."""

        def look() -> int:
            fail_stale(self.study)
            self._fail_unsigned()
            states = count(self._trials())
            return n_trials - sum(states[state] for state in DONE)

        return self._stored(look)

    def _run_next(self, n_trials: int) -> None:
        """Runs one trial and writes its end."""
        trial = self._stored(self._ask)
        state, value, error, stop = TrialState.FAIL, None, None, None
        try:
            with Heartbeat(self.storage, trial):
                given = self._stored(lambda: self._begin(trial))
                if self._stored(lambda: is_one_too_many(self.study, trial.number, n_trials)):
                    self._end(trial, TrialState.FAIL, None, "not needed: other workers began the last ones")
                    return
                value = self._train(trial, given)
                state = TrialState.COMPLETE
        except TrialPruned:
            state = TrialState.PRUNED
        except (S4ecaError, torch.OutOfMemoryError) as raised:
            error = str(raised)
        except (KeyboardInterrupt, SystemExit) as raised:
            _ignore_signals()
            error, stop = "stopped from outside", raised
        except BaseException as raised:
            self._end(trial, state, None, f"{type(raised).__name__}: {raised}")
            raise
        ended = self._end(trial, state, value, error)
        if stop is not None:
            if not any(retried_from(other) == trial.number for other in self._trials()):
                self._stored(lambda: enqueue_again(self.study, ended))
            print(f"trial {trial.number} is in the queue again", flush=True)
            raise stop
        free_memory()
        self._check_errors(error)

    def _ask(self) -> optuna.Trial:
        with warnings.catch_warnings():  # that heartbeats are for study.optimize(); `Heartbeat` sends them here
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            return self.study.ask()

    def _begin(self, trial: optuna.Trial) -> list[str]:
        """Returns a trial's overrides, written into the study with what else is known of it; can be repeated."""
        trial.set_user_attr("worker", self.name)
        given = [override(axis.key, axis.suggest(trial)) for axis in self.space.axes]
        trial.set_user_attr("folder", str(self._folder(trial)))
        trial.set_user_attr("overrides", given)
        return given

    def _folder(self, trial: optuna.Trial) -> Path:
        return self.folder / f"trial_{trial.number:05d}"

    def _train(self, trial: optuna.Trial, given: list[str]) -> float:
        folder = self._folder(trial)
        print(f"trial {trial.number}: {shlex.join(given)}", flush=True)
        named = any(item.partition("=")[0] == "name" for item in self.overrides)
        name = [] if named else [override("name", f"{self.study.study_name}_{folder.name}")]
        return train_trial(trial, self.space, [*self.overrides, *given, *name], folder)

    def _end(self, trial: optuna.Trial, state: TrialState, value: float | None, error: str | None) -> FrozenTrial:
        """Writes a trial's end, and says what it was."""

        def write() -> FrozenTrial:
            if error is not None:
                with suppress(UpdateFinishedTrialError):
                    trial.set_user_attr("error", error)
            # where another worker has taken this one for crashed, the trial's end is written already
            return self.study.tell(trial, value, state, skip_if_finished=True)

        ended = self._stored(write)
        words = f"trial {trial.number} {ended.state.name.lower()}"
        if ended.state != state:
            print(f"{words}: it gave no sign of life for too long and was queued again; this run of it does not count")
        elif error is not None:
            print(f"{words}: {error}")
        else:
            best = f"; best {self.study.best_value:.4f} of trial {self.study.best_trial.number}" if self._any() else ""
            print(f"{words}: {self.space.metric} {ended.value:.4f}{best}" if ended.value is not None else words)
        sys.stdout.flush()
        return ended

    def _check_errors(self, error: str | None) -> None:
        self._errors = [] if error is None else [*self._errors, error]
        last = self._errors[-EQUAL_ERRORS:]
        if len(last) == EQUAL_ERRORS and len(set(last)) == 1:
            raise S4ecaError(f"{EQUAL_ERRORS} trials in a row failed alike, the sweep stops: {error}")
        if len(self._errors) >= ERRORS:
            raise S4ecaError(f"{ERRORS} trials in a row failed, the sweep stops; the last one: {error}")

    def _fail_unsigned(self) -> None:
        """Ends trials whose worker died before their first sign of life, which Optuna leaves running for ever."""
        running = {t.number: t for t in self._trials() if t.state == TrialState.RUNNING}
        running = {number: trial for number, trial in running.items() if "worker" not in trial.user_attrs}
        now = time.monotonic()
        self._unsigned = {number: self._unsigned.get(number, now) for number in running}
        for number, since in self._unsigned.items():
            if now - since > 2 * self._heartbeat():
                try:
                    self.storage.set_trial_state_values(running[number]._trial_id, TrialState.FAIL)
                except UpdateFinishedTrialError:
                    continue
                retry = self.storage.get_heartbeat_stale_trial_callback()
                assert retry is not None
                retry(self.study, running[number])

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _any(self) -> bool:
        return any(trial.state == TrialState.COMPLETE for trial in self._trials())

    def _heartbeat(self) -> int:
        interval = self.storage.get_heartbeat_interval()
        assert interval is not None
        return interval

    def _stored(self, action: Callable[[], R]) -> R:
        """Does something with the storage; tries again for a minute where it cannot be reached."""
        for pause in PAUSES:
            try:
                return action()
            except (StorageInternalError, SQLAlchemyError):
                time.sleep(pause)
        return action()


@contextmanager
def _stopping() -> Iterator[None]:
    """Makes SIGTERM and SIGUSR1 end the worker as Ctrl-C does; `train` has its own way for as long as it runs."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if number == signal.SIGUSR1:
            print(requeue(), flush=True)
        sys.exit(128 + number)

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (*ASKING, signal.SIGINT)}
    for asking in ASKING:
        signal.signal(asking, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """Lets the trial's end be written, however often someone presses Ctrl-C."""
    for number in (*ASKING, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
