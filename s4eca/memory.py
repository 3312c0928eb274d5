"""What to do when memory is not enough: which switches are left, and what each of them leaves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from s4eca.build import Config
from s4eca.errors import S4ecaError, is_out_of_memory
from s4eca.frozen_dtype import for_precision
from s4eca.switches import EVALUATION_MEMORY, TRAINING_MEMORY, Offer, offered


class MemoryShortError(S4ecaError):
    """Memory was not enough; the message says what would help."""


@contextmanager
def out_of_memory_explained(config: Config, training: bool, onward: Callable[[], str] | None = None) -> Iterator[None]:
    """Turns an allocation that failed, on a GPU or a CPU, into a sentence about what would help.

    Args:
        config: resolved config of the run.
        training: whether it trains; otherwise it evaluates.
        onward: how a run goes on, asked for when it has failed.

    Raises:
        MemoryShortError: in place of the error.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError among them
        if not is_out_of_memory(error):
            raise
        reason = ". ".join(str(error).split(". ")[:2]).split("\n")[0].strip().rstrip(".")
        raise MemoryShortError(explain(config, training, reason, onward() if onward is not None else "")) from error


def explain(config: Config, training: bool, reason: str, onward: str = "") -> str:
    """Returns the sentence: what failed, the switches not used yet with what each leaves, and how the run goes on."""
    switches = training_switches(config) if training else evaluation_switches(config)
    where = "training" if training else "the evaluation"
    kept = "what is kept for the backward pass" if training else "what a batch needs"
    if not switches:
        return (
            f"memory is not enough for {where} ({reason}), and no switch is left: take a larger GPU or smaller towers."
        )
    helps = "; ".join(f"{switch.setting}{switch.note} leaves {switch.leaves}" for switch in switches)
    text = f"memory is not enough for {where} ({reason}); of {kept}: {helps}"
    if training:
        same = [switch.setting for switch in switches if switch.same_run]
        if onward:
            text += f"; {onward}"
        if "resume=" in onward and same:
            text += f" with {' or '.join(same)}, the others need a new run"
    return text + "."


def training_switches(config: Config) -> list[Offer]:
    """Returns what a training has not used yet and can have, the most effective first that changes no results."""
    return offered(config, TRAINING_MEMORY)


def evaluation_switches(config: Config) -> list[Offer]:
    """Returns the same for an evaluation; nothing is kept for a backward pass there."""
    return offered(for_precision(config), EVALUATION_MEMORY)
