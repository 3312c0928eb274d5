"""`budget=PERCENT`: the width that gives a method that share of the towers' parameters."""

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from omegaconf import OmegaConf
from torch import nn

from s4eca.build import Config, instantiate
from s4eca.errors import S4ecaError
from s4eca.towers.base import TextTower, Tower, VisionTower
from s4eca.tuning.base import Scope, TuningMethod

TOLERANCE = 0.05
"""How far a solved share may be from the budget, relative to it."""

_WIDEST = 2**14

AnyTower = TypeVar("AnyTower", bound=Tower)


@dataclass(frozen=True)
class Solved:
    """What a budget led to.

    Attributes:
        method: the tuning's name.
        widths: the config keys under `tuning` that were set, with their values.
        learned: parameters that the method learns with them.
        towers: parameters of both towers.
    """

    method: str
    widths: dict[str, int]
    learned: int
    towers: int

    @property
    def percent(self) -> float:
        """The method's share of the towers."""
        return 100 * self.learned / self.towers

    def __str__(self) -> str:
        """Returns the line that a run prints."""
        widths = ", ".join(f"tuning.{key}={value}" for key, value in self.widths.items())
        return (
            f"budget: {widths} gives tuning={self.method} {self.learned:,} parameters, {self.percent:.2f} % of the "
            f"towers' {self.towers / 1e6:.2f} M"
        )


def solve_budget(
    node: Config, text: TextTower, vision: VisionTower, percent: float, scope: Scope
) -> tuple[Config, Solved]:
    """Finds the width whose share is nearest to a budget.

    Nothing is estimated: the method is attached to copies of the towers that hold shapes and no values, for each width
    that the bisection visits.

    Args:
        node: the config's `tuning`, resolved; it is not changed.
        text: text tower, without a method.
        vision: vision tower, without a method.
        percent: the method's learned parameters over both towers' parameters, in percent (the head left out).
        scope: where the method will act.

    Returns:
        The config of `tuning` with its widths set, and what they give.

    Raises:
        S4ecaError: the method has no width, or no width meets the budget within 5 %.
    """
    method: TuningMethod = instantiate(node, "tuning")
    towers = text.size + vision.size
    if type(percent) not in (int, float) or not 0 < percent < 100:
        raise S4ecaError(
            f"budget={percent} must be above 0 and below 100 percent; budget=null leaves the configured widths."
        )
    if method.width is None:
        share = 100 * _learned(node, text, vision, scope) / towers
        raise S4ecaError(
            f"tuning={method.name} has no width that a budget could set: it learns {share:.2f} % of the towers as it "
            "is; set budget=null."
        )
    keys, multiple = method.width.keys, method.width.multiple
    multiples = multiple if isinstance(multiple, tuple) else (multiple,) * len(keys)
    configured = [OmegaConf.select(OmegaConf.create(node), key) for key in keys]

    def widths(units: int) -> dict[str, int]:
        first = units * multiples[0]
        scaled = [
            max(1, round(first * value / configured[0] / multiple)) * multiple
            for value, multiple in zip(configured[1:], multiples[1:], strict=True)
        ]
        return dict(zip(keys, [first, *scaled], strict=True))

    @cache
    def learned(units: int) -> int:
        return _learned(_set(node, widths(units)), text, vision, scope)

    target = percent / 100 * towers
    low = method.width.least
    high = max(low + 1, configured[0] // multiples[0])
    while learned(high) < target and high * multiples[0] < _WIDEST:
        low, high = high, 2 * high
    straight = True
    while high - low > 1:
        # sizes are nearly straight lines of the width: interpolation finds the place, halving bounds the tries
        share = (target - learned(low)) / (learned(high) - learned(low)) if straight else 0.5
        middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        low, high = (middle, high) if learned(middle) < target else (low, middle)
        straight = not straight
    best = min((low, high), key=lambda units: abs(learned(units) - target))
    solved = Solved(method.name, widths(best), learned(best), towers)
    if abs(solved.percent - percent) > TOLERANCE * percent:
        near = "; ".join(
            f"{', '.join(f'tuning.{key}={value}' for key, value in widths(units).items())} is "
            f"{100 * learned(units) / towers:.2f} %"
            for units in (low, high)
        )
        raise S4ecaError(
            f"budget={percent:g} cannot be met within 5 % by tuning={method.name} on these towers ({near}); choose one "
            "of these shares, or larger towers."
        )
    return _set(node, solved.widths), solved


def _learned(node: Config, text: TextTower, vision: VisionTower, scope: Scope) -> int:
    """Counts what a method would learn, without any value being computed."""
    with torch.device("meta"):
        method: TuningMethod = instantiate(node, "tuning")
        hollow_text, hollow_vision = _shapes(text), _shapes(vision)
        method.attach(hollow_text, hollow_vision, scope)
    modules: list[nn.Module] = [method, hollow_text, hollow_vision]
    return sum(parameter.numel() for module in modules for parameter in module.parameters() if parameter.requires_grad)


def _shapes(tower: AnyTower) -> AnyTower:
    """Returns a copy of a tower whose parameters and buffers have shapes only."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        for parameter in tower.parameters()
    }
    memo |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in tower.buffers()}
    return copy.deepcopy(tower, memo)


def _set(node: Config, values: dict[str, int]) -> Config:
    changed = OmegaConf.create(node)
    for key, value in values.items():
        OmegaConf.update(changed, key, value)
    content = OmegaConf.to_container(changed)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
