"""What a step keeps, allocates and multiplies, by the part that runs."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from s4eca.cost import KeptStorages, LiveStorages, convolution_backward
from s4eca.lit.referring import ReferringModule
from s4eca.profiling.clock import Clock
from s4eca.profiling.parts import part_of_parameter


class KeptByPart(KeptStorages):
    """Inside, counts the memory that autograd keeps for the backward pass, by the part that saved it first.

    Args:
        there: tensors that are not counted, see `KeptStorages`.
        part: returns the part that runs.
    """

    def __init__(self, there: Iterable[Tensor], part: Callable[[], str]) -> None:
        super().__init__(there)
        self._parts: dict[int, str] = {}
        pack = self.pack_hook

        def pack_for_part(tensor: Tensor) -> Tensor:
            key = id(tensor.untyped_storage())
            before = self._kept.get(key)
            packed = pack(tensor)
            if before is None or before() is None:  # a freed storage may have left its id to another one
                self._parts[key] = part()
            return packed

        self.pack_hook = pack_for_part

    def by_part(self) -> dict[str, int]:
        """Returns the bytes that are still kept now."""
        result: dict[str, int] = {}
        for key, reference in self._kept.items():
            storage = reference()
            if storage is not None:
                part = self._parts[key]
                result[part] = result.get(part, 0) + storage.nbytes()
        return result


class MacsByPart:
    """Counts multiply-accumulates as `s4eca.cost.macs` does, from `start` to `stop`.

    Attributes:
        parts: the multiply-accumulates of each part.
    """

    def __init__(self, clock: Clock) -> None:
        self.parts: dict[str, int] = {}
        self._clock, self._seen = clock, 0

    def start(self) -> None:
        """Begins."""
        # attention as plain matrix products counts alike on every machine
        mapping = {torch.ops.aten.convolution_backward: convolution_backward}
        self._counter = FlopCounterMode(display=False, custom_mapping=mapping)
        self._stack = ExitStack()
        self._stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        self._stack.enter_context(self._counter)
        self._clock.listeners.append(self._ended)

    def stop(self) -> None:
        """Ends."""
        self._ended(self._clock.part)
        self._clock.listeners.remove(self._ended)
        self._stack.close()

    def _ended(self, part: str) -> None:
        total = self._counter.get_total_flops() // 2
        if total > self._seen:
            self.parts[part] = self.parts.get(part, 0) + total - self._seen
            self._seen = total


class PeaksByPart:
    """Follows the most memory that was allocated at once while a part ran, above what was there at `start`.

    On a GPU by the caching allocator's statistics, workspaces included; elsewhere by the storages that operators make.

    Attributes:
        parts: bytes for each part.
    """

    def __init__(self, clock: Clock) -> None:
        self.parts: dict[str, int] = {}
        self._clock = clock
        self._live = None if clock.device.type == "cuda" else LiveStorages()
        self._start = 0

    def start(self) -> None:
        """Begins."""
        if self._live is None:
            self._start = torch.cuda.memory_allocated(self._clock.device)
        else:
            self._live.__enter__()
        self._most()
        self._clock.listeners.append(self._ended)

    def stop(self) -> None:
        """Ends."""
        self._ended(self._clock.part)
        self._clock.listeners.remove(self._ended)
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def _ended(self, part: str) -> None:
        self.parts[part] = max(self.parts.get(part, 0), self._most())

    def _most(self) -> int:
        """Returns the peak since the last call."""
        if self._live is not None:
            most, self._live.peak = self._live.peak, self._live.now
            return most
        device = self._clock.device
        most = torch.cuda.max_memory_allocated(device) - self._start
        torch.cuda.reset_peak_memory_stats(device)
        return most


def resident_bytes(module: ReferringModule, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, dict[str, int]]:
    """Returns the bytes that stay from step to step: `parameters`, `gradients` and `optimiser`, each by part."""
    places: dict[Tensor, str] = {}
    result: dict[str, dict[str, int]] = {"parameters": {}, "gradients": {}, "optimiser": {}}

    def add(kind: str, part: str, size: int) -> None:
        result[kind][part] = result[kind].get(part, 0) + size

    for name, parameter in module.segmenter.named_parameters():
        places[parameter] = part_of_parameter(name, parameter.requires_grad)
        add("parameters", places[parameter], parameter.nbytes)
        if parameter.requires_grad:
            add("gradients", places[parameter], parameter.nbytes)
    for optimizer in optimizers:
        for tensor, state in optimizer.state.items():
            if tensor in places:
                size = sum(value.nbytes for value in state.values() if torch.is_tensor(value))
                add("optimiser", places[tensor], size)
    return result
