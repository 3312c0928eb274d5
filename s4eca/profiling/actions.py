"""What Lightning's loop does, by part: loading, transfer, backward and the optimiser."""

from collections.abc import Callable

from lightning.pytorch.profilers import Profiler

from s4eca.profiling.clock import Clock
from s4eca.profiling.parts import BACKWARD, CALLBACKS, LOADER, OPTIMIZER, REST, TRANSFER

_ENDINGS = {
    ".train_dataloader_next": LOADER,
    ".batch_to_device": TRANSFER,
    ".training_step": REST,  # the network's parts are marked inside
    ".backward": BACKWARD,
    # around everything else of a step, because the optimiser is given it to call
    ".optimizer_step": OPTIMIZER,
    ".configure_gradient_clipping": OPTIMIZER,
    ".optimizer_zero_grad": OPTIMIZER,
}


def part_of_action(name: str) -> str | None:
    """Returns the part that one of Lightning's actions belongs to, None where it changes nothing."""
    if name.startswith("[Callback]"):
        return CALLBACKS
    # the strategy hands these on to the module; charged once, at the outer one
    return next((part for ending, part in _ENDINGS.items() if name.endswith(ending)), None)


class LoopProfiler(Profiler):
    """Lightning's profiler interface on our clock.

    Args:
        clock: is told what runs.
        before_batch: called right before the next batch is asked for, which is where a step begins.
    """

    def __init__(self, clock: Clock, before_batch: Callable[[], None]) -> None:
        super().__init__()
        self._clock, self._before_batch = clock, before_batch
        self._open: list[tuple[str, bool]] = []

    def start(self, action_name: str) -> None:
        """Begins an action."""
        part = part_of_action(action_name)
        if part == LOADER:
            self._before_batch()
        self._open.append((action_name, part is not None))
        if part is not None:
            self._clock.enter(part)

    def stop(self, action_name: str) -> None:
        """Ends the action that began last; one that had begun before this profiler was there is none of its own."""
        if self._open and self._open[-1][0] == action_name:
            _, entered = self._open.pop()
            if entered:
                self._clock.leave()
