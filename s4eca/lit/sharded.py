"""Training by several processes that each hold a part of every tower block (FSDP, torch's `fully_shard`)."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.overrides.distributed import _sync_module_states
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from s4eca.errors import S4ecaError
from s4eca.lit.distributed import DDP
from s4eca.segmenter import ReferringSegmenter
from s4eca.towers.base import Tower

# The parts of a block that towers call as modules, with tensors in and a tensor out: what torch's hooks need. A block
# as a whole is never called, since taps act inside it. What is not named here is gathered once per pass.
PARTS = (
    *("attn", "mlp", "conv_dw"),  # timm
    *("attention.self", "attention.output.dense", "intermediate", "output.dense"),  # BERT, RoBERTa
    *("attention", "ffn", "self_attn"),  # DistilBERT, CLIP
)


class FSDP(DDP):
    """Every process holds a part of all weights, of what is learned and of the optimiser's state.

    A tower block's attention and MLP are one group, gathered right before it runs and freed right after, in both
    passes; the rest of the network is another. Evaluations alone (`eval.py`) hold the whole network in every process.
    Checkpoints are those of a single process: what is learned is gathered when it is saved, frozen weights never.

    Everything else is as in `DDP`: hashes of the frozen weights, running statistics, random numbers.

    Raises:
        S4ecaError: with a setting that does not go together with weights in parts.
    """

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """A checkpoint is read when the weights are in parts, so that all of it can be taken apart alike."""
        return True

    def setup(self, trainer: Trainer) -> None:
        """Checks the settings and takes the network apart where it is trained."""
        check_sharded(self.lightning_module, trainer.precision)
        super().setup(trainer)

    def configure_ddp(self) -> None:
        """Takes the network apart, where `DDP` would wrap it."""
        module: Any = self.lightning_module
        # towers and segmenter change nothing in place that a part has returned
        warnings.filterwarnings("ignore", message=r"(?s)FSDP2-wrapped module .* returned a view tensor")
        _sync_module_states(module)  # what is learned, as the first process has drawn it
        shard(module.segmenter, init_device_mesh(self.root_device.type, (self.world_size,)))

    def on_validation_start(self) -> None:
        """Asks how many batches the others have: samples are dealt without padding, so it may be one more or less."""
        module: Any = self.lightning_module
        self._batches = sum(module.trainer.num_val_batches)
        self._most = int(self.reduce(torch.tensor(self._batches, device=self.root_device), reduce_op="max"))

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a step; after its last one a process lends the others its parts of the weights for theirs."""
        module: Any = self.lightning_module
        output = super().validation_step(*args, **kwargs)
        batch, done = args[0], args[1] + 1
        if done == self._batches:
            with self.precision_plugin.val_step_context():
                for _ in range(done, self._most):
                    module(batch)
        return output

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Gathers what the checkpoint is to hold, whoever has put it in; every process must call this."""
        super().save_checkpoint(gathered(checkpoint), filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint and takes its weights apart like the network's."""
        checkpoint = super().load_checkpoint(checkpoint_path, weights_only)
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        for part in ("state_dict", "raw_state_dict"):
            for name, value in checkpoint.get(part, {}).items():
                checkpoint[part][name] = apart(value, own.get(name))
        return checkpoint

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes the optimisers' states apart like the parameters that they belong to."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            numbers = [number for group in state["param_groups"] for number in group["params"]]
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            own = dict(zip(numbers, parameters, strict=True))
            for number, values in state["state"].items():
                state["state"][number] = {name: apart(value, own[number]) for name, value in values.items()}
            optimizer.load_state_dict(state)

    def teardown(self) -> None:
        """Ends; the parts stay where they are, since the processes could not gather them elsewhere."""
        model, self._lightning_module = self._lightning_module, None
        super().teardown()
        self._lightning_module = model


def check_sharded(module: Any, precision: Any) -> None:
    """Refuses what does not go together with weights in parts.

    Args:
        module: to train.
        precision: the trainer's.

    Raises:
        S4ecaError: a precision that scales losses, cached features, or compiled blocks.
    """
    if str(precision) not in ("32-true", "bf16-mixed"):
        raise S4ecaError(
            f"trainer=fsdp does not scale losses, as trainer.precision={precision} would need; set "
            "trainer.precision=bf16-mixed or 32-true."
        )
    if module.features is not None:
        raise S4ecaError("trainer=fsdp and model.feature_cache do not go together; set trainer=ddp.")
    if module.segmenter.runner.compiled:
        raise S4ecaError("trainer=fsdp cannot compile blocks; set model.segmenter.compile=none, or trainer=ddp.")


def shard(segmenter: ReferringSegmenter, mesh: DeviceMesh) -> None:
    """Takes a network apart, in place: block by block in both towers, and the rest."""
    for parameter in segmenter.parameters():  # those of a channels-last decoder are not, and torch wants it
        parameter.data = parameter.data.contiguous()
    for tower in (segmenter.text, segmenter.vision):
        for index in range(len(tower.steps)):
            parts = [part for part in parts_of(tower, index) if any(True for _ in part.parameters())]
            if parts:
                fully_shard(parts, mesh=mesh)
    # freed after the forward pass too: between passes everybody, such as EMA, meets the same kind of tensors
    fully_shard(segmenter, mesh=mesh, reshard_after_forward=True)


def parts_of(tower: Tower, index: int) -> list[nn.Module]:
    """Returns the parts of a block that are called as modules."""
    named = dict(tower.block(index).named_modules())
    inside = [name for name in PARTS if name in named]
    # BERT's `attention` is not called itself, its parts are
    return [named[name] for name in inside if not any(other.startswith(f"{name}.") for other in inside)]


def gathered(value: Any) -> Any:
    """Returns plain values with every tensor in parts as a whole one, on the CPU; every process must call it."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, dict):
        return type(value)((name, gathered(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(gathered(item) for item in value)
    return value


def apart(value: Any, like: Any) -> Any:
    """Returns this process's part of a whole tensor, where the tensor that it belongs to is in parts."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    with torch.no_grad():
        whole = value.to(like.device)
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
