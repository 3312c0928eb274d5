"""What the benchmarks share: steps that take turns, their spread, and the machine they ran on.

Whatever else the machine does falls on all that take turns, so a ratio of one round says more than two absolute times.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Seconds:
    """Seconds of a call, and its ratio to the reference's of the same round: median and quartiles."""

    median: float
    q1: float
    q3: float
    ratio: float
    ratio_q1: float
    ratio_q3: float

    @property
    def speedup(self) -> tuple[float, float, float]:
        """How many times as fast as the reference: lower quartile, median and upper quartile."""
        return 1 / self.ratio_q3, 1 / self.ratio, 1 / self.ratio_q1


def take_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, reference: str, device: str | torch.device = "cpu"
) -> dict[str, Seconds]:
    """Times calls in turn, `rounds` times each after one round that warms up.

    Args:
        calls: what to time, by name; each round begins with another one.
        rounds: at least 1.
        reference: name of the call that ratios are to.
        device: where they run; a GPU is waited for before and after each call.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            seconds = _seconds(calls[name], torch.device(device))
            if turn > 0:
                taken[name].append(seconds)
    return {name: _spread(times, taken[reference]) for name, times in taken.items()}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns lower quartile, median and upper quartile; of a single value it three times."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return low, middle, high


def times(seconds: Seconds | None) -> list[str]:
    """Returns seconds and ratio with their quartiles as cells of a table, dashes where nothing was timed."""
    if seconds is None:
        return ["-", "-"]
    return [
        f"{seconds.median:.3g} ({seconds.q1:.3g}-{seconds.q3:.3g})",
        f"{seconds.ratio:.2f} ({seconds.ratio_q1:.2f}-{seconds.ratio_q3:.2f})",
    ]


def markdown(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, its first column to the left."""
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_rows(file: Path, about: Mapping[str, Any], tables: Mapping[str, Sequence[Any]]) -> None:
    """Writes tables, whose rows are dataclasses, with what they were measured with, as JSON."""
    content = {"about": about, **{title: [asdict(row) for row in rows] for title, rows in tables.items()}}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def machine(device: str | torch.device) -> dict[str, Any]:
    """Returns what a measurement ran on, as plain values."""
    gpu = torch.device(device).type == "cuda"
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if gpu else None,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _spread(own: list[float], base: list[float]) -> Seconds:
    q1, median, q3 = quartiles(own)
    ratio_q1, ratio, ratio_q3 = quartiles([one / other for one, other in zip(own, base, strict=True)])
    return Seconds(median, q1, q3, ratio, ratio_q1, ratio_q3)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cpu() -> str:
    """Returns the processor's model, or the architecture where the system does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
