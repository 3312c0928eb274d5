"""What a run says about itself: parameters at the start, throughput and memory while it goes."""

import resource
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from s4eca.data.references import Batch
from s4eca.lit.log_clock import LogClock
from s4eca.parameters import method_share, parameter_table


class ParameterReport(Callback):
    """Prints the parameter table when training starts, and logs the method's share of the towers."""

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table with the effective batch: batch x accumulation x processes."""
        batch = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        effective = batch * trainer.accumulate_grad_batches * trainer.world_size
        Console().print(parameter_table(pl_module.segmenter, effective))  # type: ignore[arg-type]
        share = method_share(pl_module.segmenter)  # type: ignore[arg-type]
        for logger in trainer.loggers:
            logger.log_metrics({"parameters/method_share": share}, step=trainer.global_step)


class DataWait:
    """The share of the time that training waits for data, since it was asked last.

    Waiting is the time that the process which trains spends between two steps getting the next batch: in the loader,
    and handing it to the device. It is the host's; a GPU that has steps queued works on meanwhile, so that it waits at
    most as long. The other time is everything else: steps, callbacks and logging.
    """

    def __init__(self) -> None:
        self._waited, self._since = 0.0, 0.0

    def start(self, trainer: Trainer) -> None:
        """Starts the clock."""
        self._waited, self._since = _waited(trainer) or 0.0, time.perf_counter()

    def share(self, trainer: Trainer) -> float | None:
        """Returns the share since the start, 0 to 1, and starts again; None where the data module keeps no time."""
        before, since = self._waited, self._since
        known = _waited(trainer) is not None
        self.start(trainer)
        return (self._waited - before) / max(self._since - since, 1e-9) if known else None


class Throughput(Callback):
    """Logs samples per second, waiting for data (see `DataWait`) and memory, over the steps since the last log.

    Memory is the GPU's peak since the start, in GiB, or the process's peak resident size on a CPU. Validation is in
    none of it, and prints a line.
    """

    def __init__(self) -> None:
        self._samples, self._since = 0, 0.0
        self._wait, self._clock = DataWait(), LogClock()

    def _start(self, trainer: Trainer) -> None:
        self._samples, self._since = 0, time.perf_counter()
        self._wait.start(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clocks, in a run that resumes inside an epoch too."""
        self._clock.start(trainer)
        self._start(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Logs at the trainer's logging interval, as tensors on the host: logging a number would put it on the GPU."""
        self._samples += len(batch) * trainer.world_size
        if self._clock.strikes(trainer):
            seconds = time.perf_counter() - self._since
            wait = self._wait.share(trainer)
            values = {"samples/s": self._samples / max(seconds, 1e-9), "memory GiB": _peak_memory(pl_module.device)}
            if wait is not None:
                values["wait %"] = 100 * wait
            for name, value in values.items():
                pl_module.log(name, torch.tensor(value), batch_size=1)
            self._start(trainer)

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints where the run stands, for logs that show no progress bar, and starts the clock again."""
        if not trainer.sanity_checking:
            scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
            line = [f"epoch {trainer.current_epoch}", f"step {trainer.global_step}"]
            line += [f"{name} {scores[name]:.4f}" for name in ("train/loss", "val/mIoU", "val/oIoU") if name in scores]
            Console().print("  ".join(line), highlight=False)
        self._start(trainer)


def _waited(trainer: Trainer) -> float | None:
    return getattr(trainer.datamodule, "waited", None)  # type: ignore[attr-defined]


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
