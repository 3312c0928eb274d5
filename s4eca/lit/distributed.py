"""Training by several processes that each hold the whole network: what they exchange, and what each has anyway.

Frozen tower weights are read by every process from the same file, so they are compared by hash and never sent; with
adapters that leaves about a hundredth of the network. Lightning's `strategy=ddp` sends all of it once, and all buffers
before every forward pass, validation included, where processes may have different numbers of batches.
"""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from lightning import LightningModule, Trainer
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from s4eca.errors import S4ecaError
from s4eca.overrides import override
from s4eca.segmenter import ReferringSegmenter

TOWERS = ("segmenter.text.", "segmenter.vision.")

PATIENCE = 60
"""Seconds for the first process to save and to end, once another one has ended other than well."""


class Observer(_ChildProcessObserver):
    """Kills the process that started the others where one of them has failed and this one hangs.

    Lightning's own does that at once. But the others end first where all were told to stop, while the first one saves,
    and where one has met an error, of which the first hears by itself as soon as it waits for that one.
    """

    def _terminate_all(self) -> None:
        time.sleep(PATIENCE)
        super()._terminate_all()


class Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine by the command line that started this one.

    Lightning's own restarts `sys.argv`, which no longer names a file in `s4eca train`.
    """

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Starts the processes where nobody else has, and calls `function` in this one.

        Raises:
            S4ecaError: torchrun or SLURM has started another number of processes than the trainer was told of.
        """
        try:
            self.cluster_environment.validate_settings(self.num_processes, self.num_nodes)
        except ValueError as error:
            started = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS")
            raise S4ecaError(
                f"trainer.devices={self.num_processes} and trainer.num_nodes={self.num_nodes} do not fit the {started} "
                "processes that were started; set them to the processes per machine and the number of machines."
            ) from error
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            Observer(os.getpid(), self.procs).start()
        _set_num_threads_if_needed(self.num_processes)
        return function(*args, **kwargs)

    def _call_children_scripts(self) -> None:
        self._check_can_spawn_children()
        cluster = self.cluster_environment
        os.environ |= {
            "MASTER_ADDR": cluster.main_address,
            "MASTER_PORT": str(cluster.main_port),
            "NODE_RANK": str(cluster.node_rank()),
            "LOCAL_RANK": str(cluster.local_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        command = [sys.executable, *sys.orig_argv[1:]]
        if HydraConfig.initialized():  # the same run folder, though the clock has gone on
            command.append(override("hydra.run.dir", HydraConfig.get().run.dir))
        self.procs = [
            subprocess.Popen(command, env={**os.environ, "LOCAL_RANK": str(rank)})
            for rank in range(1, self.num_processes)
        ]


class DDP(DDPStrategy):
    """Every process has the network and its share of each batch; gradients are averaged.

    - Frozen tower weights, and the towers' buffers, are neither sent nor compared tensor by tensor: the processes
      compare the hashes that the towers were loaded with.
    - Running statistics of batch norms are averaged over the processes after every training step, so that all have the
      same. A batch is still normalised by the statistics of its own process, unless `trainer.sync_batchnorm=true`.
    - The first process draws the random numbers that a single one would draw. Those of the others are a function of
      (seed, process, number of the batch), so that no two drop the same units, and a resumed run, whose checkpoint
      holds the states of the first alone, draws what an unbroken one would have drawn.
    - Gradients are views of the buckets that are sent. The graph is not declared static: nothing would be gained, as
      all that is learned takes part in every step, and accumulated gradients would be forbidden.

    Args:
        process_group_backend: of torch.distributed; None takes nccl on GPUs and gloo on CPUs.
        timeout_minutes: how long a process waits for the others before it gives up.
    """

    def __init__(self, process_group_backend: str | None = None, timeout_minutes: float = 30) -> None:
        super().__init__(
            process_group_backend=process_group_backend,
            timeout=timedelta(minutes=timeout_minutes),
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
        )
        self._statistics: list[Tensor] = []

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup(self, trainer: Trainer) -> None:
        """Compares the frozen weights before anything is sent.

        Raises:
            S4ecaError: a process has read other ones.
        """
        module: Any = self.lightning_module
        if isinstance(getattr(module, "segmenter", None), ReferringSegmenter):
            check_bases(module.segmenter)
            # where torch's DDP, and Lightning for an evaluation, look for what is not to be sent
            module._ddp_params_and_buffers_to_ignore = frozen_names(module)
        # depthwise kernels: the strides that differ belong to an axis of one channel
        warnings.filterwarnings("ignore", message=r"(?s).*Grad strides do not match bucket view strides")
        super().setup(trainer)
        self._statistics = running_statistics(module)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Gives each process but the first its own random numbers for this batch."""
        module: Any = self.lightning_module
        if self.global_rank > 0:
            place = (int(os.environ.get("PL_GLOBAL_SEED", 0)), self.global_rank, _number(module.trainer))
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def post_backward(self, closure_loss: Tensor) -> None:
        """Averages the running statistics that a forward pass has changed; its backward pass still reads them."""
        super().post_backward(closure_loss)
        if self._statistics and dist.get_world_size() > 1:
            flat = torch.cat(self._statistics)
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
            for own, common in zip(self._statistics, flat.split([len(own) for own in self._statistics]), strict=True):
                own.copy_(common)


def check_bases(segmenter: ReferringSegmenter) -> None:
    """Compares the hashes of the frozen weights over all processes; every process must call it.

    Raises:
        S4ecaError: in every process, where one of them has other weights than the first.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    towers = (segmenter.text, segmenter.vision)
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, [tower.base.sha256 for tower in towers])
    for rank, hashes in enumerate(every):
        for tower, first, here in zip(towers, every[0], hashes, strict=True):
            if here != first:
                raise S4ecaError(
                    f"process {rank} has read other {tower.kind} weights for {tower.base.name} (sha256 {here[:12]}) "
                    f"than process 0 ({first[:12]}); give all machines the same file by {tower.kind}.weights=PATH."
                )


def frozen_names(module: LightningModule) -> list[str]:
    """Returns the names of the frozen tower weights and of the towers' buffers: what every process has read itself."""
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    names = [*frozen, *(name for name, _ in module.named_buffers())]
    return [name for name in names if name.startswith(TOWERS)]


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Returns the running means and variances that training changes, of batch norms that do not exchange their own."""
    return [
        statistic
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm) and not name.startswith(TOWERS)
        for statistic in (part.running_mean, part.running_var)
        if statistic is not None
    ]


def _number(trainer: Trainer) -> int:
    """Returns how many batches this process has been given since the run began, resumed parts included."""
    return trainer.fit_loop.epoch_loop.total_batch_idx
