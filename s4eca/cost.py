"""What a network costs: parameters, files, multiply-accumulates, and the memory of a training step.

Everything here is counted and nothing is timed: the numbers are the same on a busy machine.
"""

import json
import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from s4eca.parameters import count_parameters, method_share
from s4eca.runner import Encoded
from s4eca.segmenter import ReferringSegmenter, group_of

# the names of safetensors' format for what a network may hold
SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class PerPart:
    """Bytes of what is learned: the method's, and those of norms, fusion and decoder."""

    method: int
    head: int


@dataclass(frozen=True)
class Saved:
    """Bytes that autograd keeps for the backward pass.

    Attributes:
        towers_and_method: what the walk through the towers keeps; under a fusion with feedback, which acts during the
            walk, the fusion's share is in it.
        step: all of the forward pass and the loss.
    """

    towers_and_method: int
    step: int


@dataclass(frozen=True)
class Cost:
    """What one network costs on one batch.

    Attributes:
        towers: parameters of both towers as loaded.
        method: learned parameters of the method, tower weights that it trains included.
        head: learned parameters of norms, fusion and decoder.
        percent: 100 * method / towers.
        file: see `checkpoint_bytes`.
        state: see `state_bytes`.
        forward_macs: multiply-accumulates of forward pass and loss.
        step_macs: those of forward and backward pass.
        saved: see `saved_bytes`.
        peak: see `peak_bytes`; parameters, optimiser state and batch included.
    """

    towers: int
    method: int
    head: int
    percent: float
    file: PerPart
    state: PerPart
    forward_macs: int
    step_macs: int
    saved: Saved
    peak: int

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, nested as the attributes are."""
        return asdict(self)


@dataclass
class TrainingStep:
    """A whole training step on one batch that never changes: forward, loss, backward, optimiser, gradients dropped.

    Attributes:
        segmenter: the network, in the mode that is to be measured.
        loss: called with logits (B, S, S) and masks (B, S, S) bool.
        optimizer: over what is learned.
        image: (B, 3, S, S) uint8.
        input_ids: (B, L).
        attention_mask: (B, L).
        masks: (B, S, S) bool.
        encoded: what the frozen towers gave for this batch; None walks them.
    """

    segmenter: ReferringSegmenter
    loss: nn.Module
    optimizer: Optimizer
    image: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    masks: Tensor
    encoded: Encoded | None = None

    def forward(self) -> Tensor:
        """Returns the loss."""
        return self.loss(self.segmenter(self.image, self.input_ids, self.attention_mask, self.encoded), self.masks)

    def __call__(self) -> None:
        """Takes the step."""
        self.forward().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def batch(self) -> list[Tensor]:
        """Returns inputs and masks."""
        return [self.image, self.input_ids, self.attention_mask, self.masks]

    def resident(self) -> list[Tensor]:
        """Returns everything that stays from step to step: parameters, buffers, optimiser state, and what is given."""
        encoded = [] if self.encoded is None else [*self.encoded.words, *self.encoded.stages]
        return [
            *self.segmenter.parameters(),
            *self.segmenter.buffers(),
            *(value for state in self.optimizer.state.values() for value in state.values() if torch.is_tensor(value)),
            *self.batch(),
            *encoded,
        ]


def measure(step: TrainingStep) -> Cost:
    """Counts everything about a training step; it is taken three times, so that weights change."""
    step()  # AdamW makes its state
    counts = count_parameters(step.segmenter)
    return Cost(
        towers=counts["text tower"].total + counts["vision tower"].total,
        method=counts["method"].learned,
        head=sum(counts[place].learned for place in ("norms", "fusion", "decoder")),
        percent=100 * method_share(step.segmenter),
        file=checkpoint_bytes(step.segmenter),
        state=state_bytes(step.segmenter),
        forward_macs=macs(step.forward),
        step_macs=macs(step),
        saved=saved_bytes(step.segmenter, step.forward, step.batch()),
        peak=peak_bytes(step, step.resident(), step.image.device),
    )


def macs(function: Callable[[], object]) -> int:
    """Returns the multiply-accumulates of a call: matrix products and convolutions, by their shapes.

    Attention runs as plain matrix products meanwhile, so that it counts alike on every machine; its softmax, norms,
    activations and the optimiser count nothing. Work done twice under activation checkpointing counts twice.
    """
    mapping = {torch.ops.aten.convolution_backward: convolution_backward}
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    with sdpa_kernel(SDPBackend.MATH), counter:
        function()
    return counter.get_total_flops() // 2


def convolution_backward(grad: list[int], x: list[int], weight: list[int], *settings: Any, **_: Any) -> int:
    """FLOPs of a convolution's backward pass from shapes.

    The gradients of input and weight each take as many products as the forward pass; torch's own formula counts the
    weight's `groups` times too often.
    """
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, needed = settings
    places = math.prod((x if transposed else grad)[2:])
    return 2 * grad[0] * places * math.prod(weight) * sum(needed[:2])


class KeptStorages(saved_tensors_hooks):
    """Inside, counts the memory behind the tensors that autograd saves, each storage once however many views it has.

    Under activation checkpointing it sees what the checkpointed function was given, and none of what is recomputed:
    torch saves the tensors among its arguments through these hooks, and its own hooks hide what happens within. A
    tensor inside another object among the arguments is not seen.

    Args:
        there: tensors that are not counted, because they are there anyway: parameters, buffers, the batch.
    """

    def __init__(self, there: Iterable[Tensor]) -> None:
        # storages as Python objects live as long as their memory, so their ids are not given twice while they count
        known = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in there)}
        self._kept: dict[int, weakref.ref[torch.UntypedStorage]] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if id(storage) not in known:
                self._kept[id(storage)] = weakref.ref(storage)
            # an output saved as it is would hold the graph that holds it
            return tensor.detach()

        super().__init__(pack, lambda tensor: tensor)

    def bytes(self) -> int:
        """Returns the bytes that are still kept now."""
        storages = (reference() for reference in self._kept.values())
        return sum(storage.nbytes() for storage in storages if storage is not None)


class SavedWatch:
    """Counts what a forward pass of a network keeps for its backward pass, from `start` to `stop`.

    Args:
        segmenter: the network.
        batch: its inputs and the masks.
    """

    def __init__(self, segmenter: ReferringSegmenter, batch: Iterable[Tensor]) -> None:
        self._hooks = KeptStorages([*segmenter.parameters(), *segmenter.buffers(), *batch])
        # the first module after the walk
        self._after = segmenter.norms[0] if segmenter.fusion.feedback else segmenter.fusion
        self._walk = 0

    def start(self) -> None:
        """Begins, right before the forward pass."""
        self._handle = self._after.register_forward_pre_hook(self._walked)
        self._hooks.__enter__()

    def stop(self) -> Saved:
        """Ends, right before the backward pass, while the loss is held."""
        self._hooks.__exit__(None, None, None)
        self._handle.remove()
        return Saved(self._walk, self._hooks.bytes())

    def _walked(self, module: nn.Module, arguments: Any) -> None:
        self._walk = self._hooks.bytes()


def saved_bytes(segmenter: ReferringSegmenter, forward: Callable[[], Tensor], batch: Iterable[Tensor]) -> Saved:
    """Returns the bytes that autograd keeps for the backward pass, parameters, buffers and batch aside.

    A storage counts as a whole and once, also where only a view of it is kept. Attention keeps what the kernel of this
    machine keeps.

    Args:
        segmenter: the network.
        forward: runs it on the batch and returns the loss.
        batch: inputs and masks.
    """
    watch = SavedWatch(segmenter, batch)
    watch.start()
    try:
        loss = forward()
    finally:
        saved = watch.stop()
    del loss  # held until here: the graph goes with it
    return saved


class LiveStorages(TorchDispatchMode):
    """Inside, follows the memory of tensors that operators make, from when they are made to when they are freed.

    What a kernel allocates and frees for itself is not seen, nor a tensor made from Python numbers or numpy arrays.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in tree_leaves((args, kwargs)):
            self._meet(given, made=False)
        out = func(*args, **(kwargs or {}))
        for result in tree_leaves(out):
            self._meet(result, made=True)
        self.peak = max(self.peak, self.now)
        return out

    def _meet(self, value: object, made: bool) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes() if made else 0

        def freed(_: object) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, freed)
        self.now += size


def peak_bytes(step: Callable[[], object], resident: Iterable[Tensor], device: torch.device) -> int:
    """Returns the most memory that tensors take at once during a step.

    It is what is resident plus the most that the step adds: on a GPU by the caching allocator's statistics, kernels'
    workspaces included; elsewhere by following the storages that operators make, without what kernels allocate for
    themselves.

    Args:
        step: takes one step and leaves nothing behind that was not there before.
        resident: tensors that stay.
        device: where it runs.
    """
    storages = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in resident)}
    there = sum(storage.nbytes() for storage in storages.values())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return there + torch.cuda.max_memory_allocated(device) - before
    with LiveStorages() as live:
        step()
    return there + live.peak


def state_bytes(segmenter: ReferringSegmenter) -> PerPart:
    """Returns the bytes of gradients and AdamW's two moments: 12 for each learned float32 parameter.

    AdamW's step counters, 4 bytes a tensor, are left out.
    """
    learned = {name: value for name, value in segmenter.named_parameters() if value.requires_grad}
    return _per_part(learned, lambda tensors: 3 * sum(tensor.nbytes for tensor in tensors.values()))


def checkpoint_bytes(segmenter: ReferringSegmenter) -> PerPart:
    """Returns the exact sizes of `method.safetensors` and `head.safetensors` in a shared folder.

    The third file, `s4eca.json`, holds config and tokenizer and is not counted.
    """
    return _per_part(segmenter.learned_state(), _safetensors_bytes)


def _per_part(tensors: Mapping[str, Tensor], size: Callable[[dict[str, Tensor]], int]) -> PerPart:
    parts: dict[str, dict[str, Tensor]] = {"method": {}, "head": {}}
    for name, value in tensors.items():
        parts["method" if group_of(name) == "method" else "head"][name] = value
    return PerPart(**{part: size(held) for part, held in parts.items()})


def _safetensors_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of the file: eight bytes, a compact JSON header filled up to a multiple of eight, and the data."""
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + math.ceil(len(text) / 8) * 8 + offset
