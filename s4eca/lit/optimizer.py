"""How what is learned is optimised: parameter groups, AdamW, the schedule, the norm of the gradients."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from s4eca.errors import S4ecaError
from s4eca.segmenter import ReferringSegmenter

UNDECAYED = ("queries", "prompts")
"""Endings of the names of the methods' own tokens."""


def parameter_groups(segmenter: ReferringSegmenter, weight_decay: float) -> list[dict[str, Any]]:
    """Splits what is learned into weights that decay and those that do not.

    Norms and biases do not, nor the methods' queries and prompts, nor what timm's models exclude (`no_weight_decay()`:
    tokens, position embeddings and bias tables). In text encoders no more is left out than by transformers' Trainer,
    whose rule is biases and norms; embeddings decay.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    excluded = {id(parameter) for tower in (segmenter.text, segmenter.vision) for parameter in tower.undecayed()}
    for name, parameter in segmenter.named_parameters():
        if parameter.requires_grad:
            kept = parameter.ndim <= 1 or name.endswith(UNDECAYED) or id(parameter) in excluded
            groups[not kept].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def check_rates(lr: float, weight_decay: float, warmup_steps: int, poly_power: float) -> None:
    """Raises `S4ecaError` for settings of the optimiser that would train nothing, or the wrong way."""
    for name, value in (("lr", lr), ("weight_decay", weight_decay), ("poly_power", poly_power)):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value < 0 or (name == "lr" and value == 0):
            least = "above 0" if name == "lr" else "of 0 or more"
            raise S4ecaError(f"model.{name}={value} is no learning setting: give a number {least}.")
    if type(warmup_steps) is not int or warmup_steps < 0:
        raise S4ecaError(f"model.warmup_steps={warmup_steps} is no number of steps: give 0 or more.")


def build_adamw(segmenter: ReferringSegmenter, lr: float, weight_decay: float, fused: bool) -> AdamW:
    """Returns AdamW over what is learned, with torch's defaults for the rest.

    Args:
        segmenter: the network, on the device where it is trained.
        lr: peak learning rate.
        weight_decay: of the weights that decay.
        fused: one kernel for all parameters of a group, which can leave out a step by itself (`found_inf`), instead
            of a dozen; the same formula in another order of rounding.
    """
    return AdamW(parameter_groups(segmenter, weight_decay), lr=lr, fused=fused)


def warm_up_then_poly(
    optimizer: AdamW, warmup_steps: int, poly_power: float, total_steps: Callable[[], float]
) -> LambdaLR:
    """Returns the schedule per optimiser step: a linear warm-up times `(1 - step / steps) ** poly_power`.

    Args:
        optimizer: whose rates are set.
        warmup_steps: of the linear warm-up; 0 for none.
        poly_power: exponent of the decay.
        total_steps: asked from the second step on.
    """

    def factor(step: int) -> float:
        ramp = min((step + 1) / warmup_steps, 1.0) if warmup_steps else 1.0
        if step == 0:
            # asked now, the number of steps would make Lightning open the loader before a resumed state is in it
            return ramp
        return ramp * max(1 - step / total_steps(), 0.0) ** poly_power

    return LambdaLR(optimizer, factor)


def check_states(checkpoint: dict[str, Any], segmenter: ReferringSegmenter, where: str) -> None:
    """Refuses optimiser states of a version that let other weights decay.

    Raises:
        S4ecaError: its groups are of other sizes.
    """
    here = [len(group["params"]) for group in parameter_groups(segmenter, 0.0)]
    for state in checkpoint.get("optimizer_states", []):
        stored = [len(group["params"]) for group in state["param_groups"]]
        if stored != here:
            raise S4ecaError(
                f"in {where} {stored[0]} tensors decay and here {here[0]}: it was written by another version; start "
                "anew from its weights with init_from=CKPT."
            )


def adopt_states(checkpoint: dict[str, Any], fused: bool, lr: float, weight_decay: float) -> None:
    """Gives the stored states of optimiser and schedule this run's settings, in place.

    Both load theirs from the checkpoint, so that a run that is resumed with another rate, decay or kernel would go on
    with the old one.
    """
    for state in checkpoint.get("optimizer_states", []):
        for group, decay in zip(state["param_groups"], (weight_decay, 0.0), strict=True):
            group["fused"], group["foreach"], group["weight_decay"] = fused, None, decay
            if group["initial_lr"] != lr:
                group["lr"] *= lr / group["initial_lr"]
                group["initial_lr"] = lr
    for schedule in checkpoint.get("lr_schedulers", []):
        schedule["base_lrs"] = [lr] * len(schedule["base_lrs"])


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Returns the 2-norm of all gradients together, () on their device; waits for nothing.

    Every process of a run gets the same number: gradients are reduced before, and parts of them are summed over the
    processes that hold them.
    """
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def clip(optimizer: AdamW, norm: Tensor, value: float | None, algorithm: str | None) -> None:
    """Clips gradients by their total norm, or each number by its value; Lightning refuses to with a fused optimiser.

    Args:
        optimizer: whose gradients are clipped, in place.
        norm: what `total_norm` gave.
        value: largest norm, or largest absolute value of a number; None or 0 clips nothing.
        algorithm: `value`, otherwise by norm.
    """
    if not value:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if algorithm == "value":
        torch.nn.utils.clip_grad_value_(parameters, value)
    else:
        torch.nn.utils.clip_grads_with_norm_(parameters, value, norm)
