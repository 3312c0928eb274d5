"""The callback that takes a training apart, step by step, while Lightning's own loop runs it."""

import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from s4eca.data.references import Batch
from s4eca.errors import S4ecaError
from s4eca.lit.referring import ReferringModule
from s4eca.profiling.actions import LoopProfiler
from s4eca.profiling.clock import Clock
from s4eca.profiling.counting import KeptByPart, MacsByPart, PeaksByPart, resident_bytes
from s4eca.profiling.marking import Marks, where_the_method_is
from s4eca.profiling.report import Report

# one step each, before anything is timed; the first of all makes the optimiser's state and compiles
KEPT, MACS, PEAKS = 1, 2, 3
TRACED = 2


class Profiling(Callback):
    """Measures where the steps of a training go, and ends it.

    Nothing is imitated: the trainer's loop runs the module with whatever it was built with. One step each is spent on
    what is kept for the backward pass, on multiply-accumulates and on memory peaks; then come `warm_up` steps, `plain`
    steps without marks, which say what the marks cost, `steps` steps with marks, and `TRACED` steps for a trace. A
    step reaches from asking for its batch to asking for the next one.

    Args:
        steps: how many are measured.
        trace: file for the trace, a `.json.gz`; None writes none.
        warm_up: steps that are taken before any is timed.
        plain: steps that are timed as a whole.

    Attributes:
        report: what was found, once the training has ended.
    """

    def __init__(self, steps: int, trace: Path | None = None, warm_up: int = 3, plain: int = 5) -> None:
        if type(steps) is not int or steps < 2:
            raise S4ecaError(f"steps={steps} cannot be measured; give a whole number from 2 up.")
        self.report: Report | None = None
        self.trace = trace
        self._first_plain = PEAKS + 1 + warm_up
        self._first_measured = self._first_plain + plain
        self._first_traced = self._first_measured + steps
        self._index = -1
        self._moments: list[tuple[Any, float]] = []
        self._filling = 0
        self._batch_size = 0
        self._watch: Any = None
        self._profiler: profile | None = None
        self._marks: Marks | None = None

    @property
    def batches(self) -> int:
        """Returns how many batches the training has to last for."""
        return self._first_traced + TRACED

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what cannot be measured.

        Raises:
            S4ecaError: several processes, or a device whose clock is not known.
        """
        if trainer.world_size > 1:
            raise S4ecaError("one process is profiled at a time; set trainer.devices=1 and trainer.num_nodes=1.")
        device = trainer.strategy.root_device.type
        if device not in ("cpu", "cuda"):
            raise S4ecaError(f"steps on {device} cannot be timed by part; set trainer.accelerator=gpu or cpu.")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the clock into the loop and the marks into the network."""
        assert isinstance(pl_module, ReferringModule)
        self._clock = Clock(pl_module.device)
        self._marks = Marks(pl_module, self._clock)
        self._marks.put()
        self._before, trainer.profiler = trainer.profiler, LoopProfiler(self._clock, self._next_batch)  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Begins to watch, in the steps that are for that."""
        assert isinstance(pl_module, ReferringModule)
        assert self._marks is not None
        self._batch_size = len(batch)
        if self._index == KEPT:
            tensors = [value for value in vars(batch).values() if isinstance(value, Tensor)]
            there = [*pl_module.parameters(), *pl_module.buffers(), *tensors]
            self._watch = KeptByPart(there, lambda: self._clock.part)
            self._watch.__enter__()
        elif self._index == MACS:
            self._eager = self._marks.eager()
            self._eager.__enter__()
            self._watch = MacsByPart(self._clock)
            self._watch.start()
        elif self._index == PEAKS and not (self._marks.compiled and self._clock.device.type == "cpu"):
            self._watch = PeaksByPart(self._clock)
            self._watch.start()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """All is kept that will be."""
        if isinstance(self._watch, KeptByPart):
            self._watch.__exit__(None, None, None)
            self._kept, self._watch = self._watch.by_part(), None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Ends watching, and the training after its last step."""
        if isinstance(self._watch, MacsByPart):
            self._watch.stop()
            self._macs, self._watch = self._watch.parts, None
            self._eager.__exit__(None, None, None)
        elif isinstance(self._watch, PeaksByPart):
            self._watch.stop()
            self._peaks, self._watch = self._watch.parts, None
        features: Any = pl_module.features
        if self._first_measured <= self._index < self._first_traced and features is not None:
            self._filling += features.has_encoded
        if self._index + 1 >= self.batches:
            self._end_trace()
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes everything out again and makes the report.

        Raises:
            S4ecaError: the training ended before all steps were taken.
        """
        self._take_out(trainer)
        if self._index + 1 < self.batches:
            raise S4ecaError(
                f"the training ended after {self._index + 1} of {self.batches} batches; lower steps, or raise "
                "trainer.max_steps and trainer.max_epochs."
            )
        assert isinstance(pl_module, ReferringModule)
        self._clock.settle()
        between = self._clock.between
        events = [event for event, _ in self._moments]
        plain = self._first_measured - self._first_plain
        walls = [wall for _, wall in self._moments][plain:]
        cuda = self._clock.device.type == "cuda"
        note = where_the_method_is(pl_module)
        runner = pl_module.segmenter.runner
        self.report = Report(
            seconds=self._clock.seconds(),
            plain_seconds=[between(*pair) for pair in pairwise(events[: plain + 1])],
            wall_seconds=[end - start for start, end in pairwise(walls)],
            batch_size=self._batch_size,
            kept=self._kept,
            macs=self._macs,
            peaks=self._peaks,
            resident=resident_bytes(pl_module, trainer.optimizers),
            device=torch.cuda.get_device_name(self._clock.device) if cuda else "cpu",
            threads=torch.get_num_threads(),
            gpu_peak=torch.cuda.max_memory_allocated(self._clock.device) if cuda else None,
            precision=str(trainer.precision),
            accumulated=trainer.accumulate_grad_batches,
            compiled=runner.compiled,
            grad_checkpointing=runner.grad_checkpointing,
            placement=runner.scope.placement,
            method=pl_module.segmenter.method.name,
            feature_cache=pl_module.features is not None,
            filling=self._filling,
            notes=[note] if note else [],
        )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves nothing behind."""
        self._take_out(trainer)

    def _next_batch(self) -> None:
        """A step begins."""
        self._index += 1
        if self._index == 0:
            self._kept, self._macs, self._peaks = {}, {}, {}
        if self._first_plain <= self._index <= self._first_traced:
            self._moments.append((self._clock.now(), time.perf_counter()))
        if self._index == self._first_measured:
            self._clock.recording = True
            if self._clock.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self._clock.device)
        if self._index == self._first_traced:
            self._clock.end_step()
            self._clock.recording = False
            self._begin_trace()
        else:
            self._clock.begin_step()

    def _begin_trace(self) -> None:
        if self.trace is None:
            return
        cuda = [ProfilerActivity.CUDA] if self._clock.device.type == "cuda" else []
        if not cuda:  # a torch that was built for GPUs would complain that there is none
            os.environ.setdefault("KINETO_LOG_LEVEL", "9")
        self._profiler = profile(activities=[ProfilerActivity.CPU, *cuda])
        self._profiler.start()
        self._clock.tracing = True

    def _end_trace(self) -> None:
        self._clock.tracing = False
        if self._profiler is not None:
            self._clock.settle()
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(self.trace))
            self._profiler = None

    def _take_out(self, trainer: Trainer) -> None:
        if self._marks is None:
            return
        if isinstance(self._watch, KeptByPart):
            self._watch.__exit__(None, None, None)
        elif self._watch is not None:
            self._watch.stop()
        if isinstance(self._watch, MacsByPart):
            self._eager.__exit__(None, None, None)
        self._watch = None
        self._end_trace()
        self._marks.take_off()
        self._marks = None
        trainer.profiler = self._before  # type: ignore[attr-defined]
