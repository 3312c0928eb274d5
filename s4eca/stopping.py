"""Being told to stop: SIGTERM, Ctrl-C, and SIGUSR1, with which SLURM warns before the time is up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from lightning.pytorch.utilities.exceptions import SIGTERMException

ASKING = (signal.SIGTERM, signal.SIGUSR1)
CAUGHT = (*ASKING, signal.SIGINT)

TWICE = 1.0
"""Seconds within which a second Ctrl-C is the first one again: `timeout` sends a signal to its command and to the group
that it belongs to."""


class StopSignals:
    """Catches SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) while a run lasts.

    Lightning's own handling is not used: for SIGUSR1 under SLURM it saves in the middle of a step and goes on training,
    and its handler of SIGTERM starts a collective operation in every process, wherever that process is.

    While `deferring` is set, a signal is only noted in `asked`, for whoever sets it to act on after a complete step;
    otherwise it ends the run at once, and so does a second Ctrl-C. What comes while the run ends is one signal more for
    the same end. Where SIGINT is ignored, as in the background of a script, it stays so.

    Attributes:
        asked: the first signal that came, None as long as there was none.
        deferring: whether somebody looks at `asked`.
        step: optimiser steps that the run had made when it stopped, None before training.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.deferring = False
        self.step: int | None = None
        self._since = 0.0
        self._ending = False
        self._caught: tuple[int, ...] = CAUGHT
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        """Installs the handlers, where this is the main thread: others cannot have any."""
        if threading.current_thread() is threading.main_thread():
            self._caught = ASKING if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else CAUGHT
            self._before = {signum: signal.getsignal(signum) for signum in self._caught}
            self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the earlier handlers back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """What came."""
        return "Ctrl-C" if self.asked == signal.SIGINT else signal.Signals(self.asked or signal.SIGTERM).name

    @property
    def status(self) -> int:
        """The exit status of a process that was stopped so: 143 for SIGTERM, 138 for SIGUSR1, 130 for Ctrl-C."""
        return 128 + (self.asked or signal.SIGTERM)

    def is_stop(self, exception: BaseException) -> bool:
        """Whether an exception is the end that a signal asked for; Lightning makes SystemExit(1) of Ctrl-C."""
        if isinstance(exception, KeyboardInterrupt) or isinstance(exception.__context__, KeyboardInterrupt):
            self.asked = signal.SIGINT
            return True
        return isinstance(exception, SIGTERMException)

    def install(self) -> None:
        """Installs the handlers again, after Lightning has put its own in front of them."""
        if threading.current_thread() is threading.main_thread():
            for signum in self._caught:
                signal.signal(signum, self._ask)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        insists = signum == signal.SIGINT and self.asked is not None and now - self._since > TWICE
        if self.asked is None:
            self.asked, self._since = signum, now
        if (self.deferring or self._ending) and not insists:
            return
        self._ending = True
        raise KeyboardInterrupt if signum == signal.SIGINT else SIGTERMException


@contextmanager
def ending_by_signals() -> Iterator[None]:
    """Makes a command end by a signal without a traceback, with a line on standard error and the signal's status.

    Raises:
        SystemExit: see `StopSignals.status`.
    """
    with StopSignals() as signals:
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if signals.asked is None:  # it ends by itself
                raise
            print(f"stopped by {signals.name}", file=sys.stderr)
            sys.exit(signals.status)


def requeue() -> str:
    """Puts this SLURM job back into the queue and returns a sentence about it.

    SLURM does that by itself after a preemption, not when the time is up, which is what SIGUSR1 warns of.
    """
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_JOB_ID")
    if job is None:
        return "this is no SLURM job, so that nothing was put back into a queue"
    name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array is not None else job
    try:
        done = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True, check=False)
        reason = done.stderr.strip() if done.returncode else None
    except OSError as error:
        reason = error.strerror or str(error)
    return f"job {name} is back in the queue" if reason is None else f"job {name} could not be requeued ({reason})"
