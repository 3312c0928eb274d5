"""What a run says about itself: parameters at the start, throughput and memory while it goes."""

import resource
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from s4eca.data.references import Batch
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


class Throughput(Callback):
    """Logs samples per second over the steps since the last log, and memory; prints a line per validation.

    Memory is the GPU's peak since the start, in GiB, or the process's peak resident size on a CPU.
    """

    def __init__(self) -> None:
        self._samples, self._since = 0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, in a run that resumes inside an epoch too."""
        self._samples, self._since = 0, time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._samples, self._since = 0, time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Logs at the trainer's logging interval, so that the device is not asked more often."""
        self._samples += len(batch) * trainer.world_size
        every = max(int(trainer.log_every_n_steps), 1)  # type: ignore[attr-defined]
        if (batch_idx + 1) % every == 0:
            seconds = time.perf_counter() - self._since
            pl_module.log("samples/s", self._samples / max(seconds, 1e-9), prog_bar=True, batch_size=1)
            pl_module.log("memory GiB", _peak_memory(pl_module.device), prog_bar=True, batch_size=1)
            self._samples, self._since = 0, time.perf_counter()

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints where the run stands, for logs that show no progress bar, and starts the clock again."""
        if not trainer.sanity_checking:
            scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
            line = [f"epoch {trainer.current_epoch}", f"step {trainer.global_step}"]
            line += [f"{name} {scores[name]:.4f}" for name in ("train/loss", "val/mIoU", "val/oIoU") if name in scores]
            Console().print("  ".join(line), highlight=False)
        self._samples, self._since = 0, time.perf_counter()


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
