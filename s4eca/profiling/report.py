"""What a profile found: as a table, as Markdown and as JSON."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from s4eca.profiling.parts import METHOD, OCCASIONAL, PARTS

TIME = ("part", "ms", "quartiles", "share", "GMACs")
MEMORY = ("part", "kept", "peak", "parameters", "gradients", "optimiser")
RESIDENT = ("parameters", "gradients", "optimiser")


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        seconds: of every part, one entry for each measured step; they sum to the step.
        plain_seconds: of whole steps without marks inside.
        wall_seconds: of the measured steps on the host's clock.
        batch_size: samples of a step.
        kept: bytes that autograd keeps for the backward pass, by the part that saved them.
        macs: multiply-accumulates by part.
        peaks: the most bytes above those at the step's start, while a part ran; empty where not known.
        resident: bytes of `parameters`, `gradients` and `optimiser`, by part.
        device: name of the GPU, or `cpu`.
        threads: PyTorch's on the host.
        gpu_peak: bytes the allocator had given out at most, None on a CPU.
        precision: the trainer's.
        accumulated: batches per optimiser step.
        compiled: whether blocks are compiled.
        grad_checkpointing: as configured.
        placement: as configured.
        method: its name.
        feature_cache: whether there is one.
        filling: measured steps that filled the feature cache.
        notes: sentences to read with the table.
    """

    seconds: Sequence[Mapping[str, float]]
    plain_seconds: Sequence[float]
    wall_seconds: Sequence[float]
    batch_size: int
    kept: Mapping[str, int]
    macs: Mapping[str, int]
    peaks: Mapping[str, int]
    resident: Mapping[str, Mapping[str, int]]
    device: str
    threads: int
    gpu_peak: int | None
    precision: str
    accumulated: int
    compiled: bool
    grad_checkpointing: str
    placement: str
    method: str
    feature_cache: bool
    filling: int
    notes: list[str] = field(default_factory=list)

    @property
    def step_seconds(self) -> list[float]:
        """Returns the seconds of every measured step: the sum of its parts."""
        return [sum(parts.values()) for parts in self.seconds]

    def share(self, part: str) -> float:
        """Returns a part's share of all measured steps, as a fraction."""
        return sum(parts.get(part, 0.0) for parts in self.seconds) / sum(self.step_seconds)

    @property
    def largest(self) -> str:
        """Returns the part that takes the most time."""
        return max(PARTS, key=self.share)

    @property
    def samples_per_second(self) -> float:
        """Returns the samples of the median step over its seconds."""
        return self.batch_size / statistics.median(self.step_seconds)

    def parts(self) -> list[str]:
        """Returns the parts that the table has a row for."""
        return [part for part in PARTS if part not in OCCASIONAL or any(part in step for step in self.seconds)]

    def sentences(self) -> list[str]:
        """Returns what belongs above and below the table."""
        median, plain = statistics.median(self.step_seconds), statistics.median(self.plain_seconds)
        where = self.device if self.gpu_peak is not None else f"cpu, {self.threads} threads"
        clock = "device time by CUDA events" if self.gpu_peak is not None else "wall time"
        accumulated = f", every {self.accumulated}th with the optimiser" if self.accumulated > 1 else ""
        result = [
            f"{len(self.seconds)} steps of batch {self.batch_size}{accumulated}, {clock}, {where}, {self.precision}: "
            f"{1000 * median:.1f} ms, {self.samples_per_second:.2f} samples/s; without marks inside {1000 * plain:.1f} "
            f"ms (of {len(self.plain_seconds)} steps)",
        ]
        if self.gpu_peak is not None:
            result.append(f"the allocator's peak was {self.gpu_peak / 2**20:,.0f} MiB")
        if self.filling:
            result.append(f"{self.filling} of {len(self.seconds)} steps filled the feature cache, as in a first epoch")
        if self.compiled and not self.peaks:
            result.append("peaks by part are not known of compiled blocks on a CPU")
        return [*result, *self.notes]

    def time_rows(self) -> list[list[str]]:
        """Returns the cells of the table of time, the last row being the whole step."""
        rows = []
        for part in self.parts():
            spread = [*_spread([step.get(part, 0.0) for step in self.seconds]), f"{100 * self.share(part):.1f} %"]
            if part == METHOD and self.compiled:
                spread = ["compiled", "", ""]
            rows.append([part, *spread, _gmacs(self.macs.get(part, 0))])
        return [*rows, ["step", *_spread(self.step_seconds), "100.0 %", _gmacs(sum(self.macs.values()))]]

    def memory_rows(self) -> list[list[str]]:
        """Returns the cells of the table of memory, the last row being the whole step."""
        rows = []
        for part in self.parts():
            peak = _mib(self.peaks[part]) if part in self.peaks else ""
            resident = [_mib(self.resident[kind].get(part, 0)) for kind in RESIDENT]
            rows.append([part, _mib(self.kept.get(part, 0)), peak, *resident])
        peak = _mib(max(self.peaks.values())) if self.peaks else ""
        resident = [_mib(sum(self.resident[kind].values())) for kind in RESIDENT]
        return [*rows, ["step", _mib(sum(self.kept.values())), peak, *resident]]

    def tables(self, title: str) -> list[Table]:
        """Returns time and memory for the terminal."""
        return [_table(title, TIME, self.time_rows()), _table("memory in MiB", MEMORY, self.memory_rows())]

    def markdown(self, title: str, advice: str) -> str:
        """Returns it as a page."""
        lines = [f"# {title}", "", *(f"{_capital(sentence)}.\n" for sentence in self.sentences())]
        for columns, rows in ((TIME, self.time_rows()), (MEMORY, self.memory_rows())):
            lines += ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
            lines += ["| " + " | ".join(row) + " |" for row in rows]
            lines.append("")
        return "\n".join([*lines, "Memory is in MiB.", "", advice, ""])

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: seconds, bytes and multiply-accumulates."""
        parts = {}
        for part in self.parts():
            seconds = [step.get(part, 0.0) for step in self.seconds]
            parts[part] = {
                "seconds": seconds,
                "median": statistics.median(seconds),
                "share": self.share(part),
                "kept_bytes": self.kept.get(part, 0),
                "peak_bytes": self.peaks.get(part),
                "macs": self.macs.get(part, 0),
                **{f"{kind}_bytes": self.resident[kind].get(part, 0) for kind in self.resident},
            }
        settings = ("precision", "compiled", "grad_checkpointing", "placement", "method", "feature_cache")
        return {
            "device": self.device,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "accumulate_grad_batches": self.accumulated,
            **{name: getattr(self, name) for name in settings},
            "filling_steps": self.filling,
            "samples_per_second": self.samples_per_second,
            "step_seconds": self.step_seconds,
            "plain_step_seconds": list(self.plain_seconds),
            "wall_seconds": list(self.wall_seconds),
            "gpu_peak_bytes": self.gpu_peak,
            "parts": parts,
            "notes": self.notes,
        }


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)
    *parts, whole = rows
    for row in parts:
        table.add_row(*row)
    table.add_section()
    table.add_row(*whole)
    return table


def _spread(seconds: Sequence[float]) -> list[str]:
    """Returns median and quartiles in milliseconds."""
    low, median, high = statistics.quantiles([1000 * value for value in seconds], n=4, method="inclusive")
    return [f"{median:.1f}", f"{low:.1f} to {high:.1f}"]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}" if size else ""


def _gmacs(count: int) -> str:
    return f"{count / 1e9:,.2f}" if count else ""


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
