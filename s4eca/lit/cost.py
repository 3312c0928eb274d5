"""What a training run costs, in `cost.json` of its run folder: parameters, memory, seconds per step."""

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from s4eca.cost import Saved, SavedWatch
from s4eca.data.references import Batch
from s4eca.files import write_text
from s4eca.lit.log_clock import LogClock
from s4eca.lit.reporting import DataWait
from s4eca.parameters import count_parameters

WARM_UP, TIMED = 3, 200


class Cost(Callback):
    """Measures while a run trains and writes `cost.json` at every validation and at the end.

    The bytes that autograd keeps are counted during the first batch of this process, whose forward pass they do not
    change. Seconds are those of a training batch, from where it is on the device until after the optimiser (with
    accumulated gradients: most batches have no optimiser step), of up to 200 batches after the first three; loading
    and validation are not in them, nor steps that fill a feature cache. On a GPU they come from events in its stream,
    so that no step waits for the host. The peak is the GPU's since training began in this process, validations
    included, and null on a CPU, where resident size says nothing about a method. `data_wait` is the median, over
    logging intervals without a validation, of the share of time that training waited for data (see `DataWait`). A
    resumed run writes what its own process has measured.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._saved: Saved | None = None
        self._watch: SavedWatch | None = None
        self._batch_size = 0
        self._batches = 0
        self._marks: list[Any] = []
        self._clock, self._wait = LogClock(), DataWait()
        self._waits: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew; an earlier run of the same process leaves no peak behind."""
        self._forget()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the waiting."""
        self._clock.start(trainer)
        self._wait.start(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Watches the first batch, starts the clock for the others."""
        if self._batches == 0:
            self._batch_size = len(batch)
            tensors = [value for value in vars(batch).values() if isinstance(value, Tensor)]
            self._watch = SavedWatch(pl_module.segmenter, tensors)  # type: ignore[arg-type]
            self._watch.start()
        elif self._is_timed():
            self._marks.append((_mark(pl_module.device), None))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """The forward pass is over."""
        self._stop_watching()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Stops the clock."""
        self._stop_watching()  # where a training step gave no loss
        if self._is_timed():
            start, _ = self._marks.pop()
            features: Any = pl_module.features
            if features is None or not features.has_encoded:  # filling the cache happens once per image
                self._marks.append((start, _mark(pl_module.device)))
        self._batches += 1
        if self._clock.strikes(trainer) and (wait := self._wait.share(trainer)) is not None:
            self._waits.append(wait)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        self._stop_watching()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what is known so far."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module)
        self._wait.start(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes."""
        self._write(trainer, pl_module)

    def _is_timed(self) -> bool:
        return self._batches >= WARM_UP and len([end for _, end in self._marks if end is not None]) < TIMED

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._saved = self._watch.stop()
            self._watch = None

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or self._saved is None:
            return
        segmenter: Any = pl_module.segmenter
        counts = count_parameters(segmenter)
        towers = counts["text tower"].total + counts["vision tower"].total
        method = counts["method"].learned
        device = pl_module.device
        gpu = device.type == "cuda"
        content = {
            "parameters": {
                "towers": towers,
                "method": method,
                "head": sum(counts[place].learned for place in ("norms", "fusion", "decoder")),
            },
            "percent": 100 * method / towers,
            "saved_bytes": asdict(self._saved),
            "peak_bytes": torch.cuda.max_memory_allocated(device) if gpu else None,
            "step_seconds": _spread(_seconds(self._marks)),
            "data_wait": statistics.median(self._waits) if self._waits else None,
            "batch_size": self._batch_size,
            "device": torch.cuda.get_device_name(device) if gpu else device.type,
            "precision": str(trainer.precision),
            "processes": trainer.world_size,
            "placement": segmenter.scope.placement,
            "feature_cache": pl_module.features is not None,
            "grad_checkpointing": segmenter.runner.grad_checkpointing,
        }
        write_text(Path(trainer.default_root_dir) / "cost.json", json.dumps(content, indent=2) + "\n")


def _mark(device: torch.device) -> Any:
    """Returns this moment: of the GPU's stream, or of the clock."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(marks: list[Any]) -> list[float]:
    done = [(start, end) for start, end in marks if end is not None]
    if done and not isinstance(done[-1][1], float):
        done[-1][1].synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in done]
    return [end - start for start, end in done]


def _spread(seconds: list[float]) -> dict[str, Any]:
    """Returns median and quartiles; nulls where nothing was timed."""
    if len(seconds) < 2:
        only = seconds[0] if seconds else None
        return {"median": only, "q1": only, "q3": only, "steps": len(seconds)}
    q1, median, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3, "steps": len(seconds)}
