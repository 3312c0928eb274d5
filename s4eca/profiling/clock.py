"""A clock that always knows which part runs, so that the parts of a step sum to the step."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.profiler import record_function

from s4eca.profiling.parts import BACKWARD, NETWORK, RECOMPUTED, REST

# called with the part that has just ended, before the next one begins
Listener = Callable[[str], None]


class Clock:
    """Charges the time between two marks to the part that was innermost, and to no other.

    On a GPU the marks are events in the device's stream: a step never waits for the host because of them, and what is
    charged is the device's time, idle time included. Elsewhere they are the wall clock's.

    Args:
        device: where the step runs.

    Attributes:
        listeners: called at every mark.
        recording: whether marks are kept.
        tracing: whether parts are given to torch.profiler as ranges.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.listeners: list[Listener] = []
        self.recording = self.tracing = False
        self._stack = [REST]
        self._ranges: list[Any] = [None]
        self._steps: list[list[tuple[Any, str]]] = []

    @property
    def part(self) -> str:
        """Returns the part that runs."""
        return self._stack[-1]

    def enter(self, part: str) -> None:
        """Begins a part inside the one that runs; what runs of the network in the backward pass is recomputed."""
        if part in NETWORK and BACKWARD in self._stack:
            part = RECOMPUTED
        ended = self.part
        self._stack.append(part)
        self._ranges.append(self._open(part))
        self._mark(ended)

    def leave(self) -> None:
        """Ends the part that was entered last and goes on with the one around it."""
        ended = self._stack.pop()
        self._close(self._ranges.pop())
        self._mark(ended)

    def become(self, part: str) -> None:
        """Charges what is left of the part that runs to another one."""
        ended, self._stack[-1] = self.part, part
        self._close(self._ranges[-1])
        self._ranges[-1] = self._open(part)
        self._mark(ended)

    def begin_step(self) -> None:
        """Ends one step and begins the next, where marks are kept."""
        if self.recording:
            self.end_step()
            self._steps.append([(self.now(), self.part)])

    def end_step(self) -> None:
        """Ends a step."""
        if self._steps:
            self._steps[-1].append((self.now(), ""))

    def now(self) -> Any:
        """Returns this moment."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, one: Any, other: Any) -> float:
        """Returns the seconds between two moments that have both passed."""
        return other - one if isinstance(one, float) else one.elapsed_time(other) / 1000

    def settle(self) -> None:
        """Waits until everything on the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self) -> list[dict[str, float]]:
        """Returns the seconds of every part in every ended step."""
        self.settle()
        result = []
        for marks in self._steps:
            parts: dict[str, float] = {}
            for (start, part), (end, _) in pairwise(marks):
                parts[part] = parts.get(part, 0.0) + self.between(start, end)
            result.append(parts)
        return result

    def _mark(self, ended: str) -> None:
        for listener in self.listeners:
            listener(ended)
        if self.recording and self._steps:
            self._steps[-1].append((self.now(), self.part))

    def _open(self, part: str) -> Any:
        if not self.tracing:
            return None
        opened = record_function(part)
        opened.__enter__()
        return opened

    def _close(self, opened: Any) -> None:
        if opened is not None:
            opened.__exit__(None, None, None)
