"""What to do when memory is not enough: which switches are left, and what each of them leaves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from s4eca.build import Config
from s4eca.errors import S4ecaError

BLOCK, STAGE_3, SIDE = 0.14, 0.61, 0.21
"""Shares of the bytes that a training step of S4ECA keeps for the backward pass, on Swin-B and BERT-base at 480 px with
the `fpn` decoder: `benchmarks/results/methods_base.json`."""

FPN = 0.91
"""Share with the `fpn` decoder of what is kept with LAVT's, otherwise as above; the decoders' own parts are 90 and 208
MB an image."""

HALF = "about 50 %, by the width of bf16"


class MemoryShortError(S4ecaError):
    """Memory was not enough; the message says what would help."""


@dataclass(frozen=True)
class Switch:
    """A way to need less memory.

    Attributes:
        setting: as it stands on the command line.
        leaves: what is kept with it, in words.
        same_run: whether a run can go on with it.
    """

    setting: str
    leaves: str
    same_run: bool = False


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: CUDA's, or the CPU allocator's."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in ("DefaultCPUAllocator", "allocate memory"))
    )


def explain(config: Config, training: bool, reason: str, onward: str = "") -> str:
    """Returns the sentence: what failed, the switches not used yet with what each leaves, and how the run goes on."""
    switches = training_switches(config) if training else evaluation_switches(config)
    where = "training" if training else "the evaluation"
    kept = "what is kept for the backward pass" if training else "what a batch needs"
    if not switches:
        return (
            f"memory is not enough for {where} ({reason}), and no switch is left: take a larger GPU or smaller towers."
        )
    helps = "; ".join(f"{switch.setting} leaves {switch.leaves}" for switch in switches)
    text = f"memory is not enough for {where} ({reason}); of {kept}: {helps}"
    if training:
        same = [switch.setting for switch in switches if switch.same_run]
        if onward:
            text += f"; {onward}"
        if "resume=" in onward and same:
            text += f" with {' or '.join(same)}, the others need a new run"
    return text + "."


def training_switches(config: Config) -> list[Switch]:
    """Returns what a training has not used yet, the most effective first that changes nothing in the results."""
    segmenter, data, trainer = config["model"]["segmenter"], config["data"], config["trainer"]
    target = str(config["tuning"].get("_target_"))
    inside = segmenter["placement"] == "inside"
    switches = []
    if segmenter["grad_checkpointing"] == "none" and inside:
        switches.append(Switch("model.segmenter.grad_checkpointing=block", _share(BLOCK), same_run=True))
    batch = _smaller(data["batch_size"])
    if batch is not None:
        parts = data["batch_size"] // batch
        accumulate = trainer["accumulate_grad_batches"] * parts
        setting = f"data.batch_size={batch} trainer.accumulate_grad_batches={accumulate}"
        switches.append(Switch(f"{setting} (the same effective batch)", _count(parts)))
    if str(trainer["precision"]).startswith("32"):
        switches.append(Switch("trainer.precision=bf16-mixed", HALF, same_run=True))
    if str(config["decoder"].get("_target_")).endswith(".LAVTDecoder"):
        switches.append(Switch("decoder=fpn", _share(FPN)))
    if inside and segmenter["start_stage"] < 3:
        switches.append(Switch("model.segmenter.start_stage=3", _share(STAGE_3)))
    if inside and target.endswith(".S4ECA"):  # the one trained method that has this form
        eager = "" if segmenter.get("compile", "none") == "none" else " model.segmenter.compile=none"
        switches.append(Switch(f"model.segmenter.placement=side{eager}", _share(SIDE)))
    return switches


def evaluation_switches(config: Config) -> list[Switch]:
    """Returns what an evaluation has not used yet; nothing is kept for a backward pass there."""
    data = config["data"]
    size = data.get("eval_batch_size") or data["batch_size"]
    batch = _smaller(size)
    switches = [Switch(f"data.eval_batch_size={batch}", _count(size // batch))] if batch is not None else []
    if str(config["trainer"]["precision"]).startswith("32"):
        switches.append(Switch("trainer.precision=bf16-mixed", HALF))
    return switches


def _smaller(batch: int) -> int | None:
    """Returns the largest part of a batch into which it divides; None for a single sample."""
    return max((size for size in range(1, batch) if batch % size == 0), default=None)


def _share(share: float) -> str:
    return f"{share:.0%} (measured with S4ECA)".replace("%", " %", 1)


def _count(parts: int) -> str:
    return f"{1 / parts:.0%}".replace("%", " %")
