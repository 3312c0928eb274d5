"""Mona: bottleneck adapters that look around on the grid with depthwise convolutions of three sizes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.checks import check_dropout, check_whole
from s4eca.towers.base import Site, Step, TextTower, VisionTower, from_grid, to_grid
from s4eca.tuning.base import INSIDE, Capabilities, Carry, Context, Scope, TuningMethod, Width

KERNELS = (3, 5, 7)


class Mona(TuningMethod):
    """Multi-cognitive visual adapters (Yin et al., CVPR 2025, and the code in Leiyi-Hu/mona) in the vision tower.

    Two per block, on the residual stream after the attention and after the MLP; where a block has no attention
    (ConvNeXt) there is the second alone. The text tower stays as it is. As in the authors' code nothing starts at zero,
    so that the tower's output changes with the first adapter. Departures: `zero_init` is added, and in a plain
    transformer, which the paper does not treat, class token and registers pass unchanged.

    Args:
        width: of the bottleneck.
        dropout: before the up projection, active in training.
        zero_init: the up projection starts at zero, so that training starts from the frozen tower.

    Raises:
        S4ecaError: a width below 1.
    """

    name = "mona"
    width = Width(("width",))

    def __init__(self, width: int = 64, dropout: float = 0.1, zero_init: bool = False) -> None:
        super().__init__()
        check_whole("tuning.width", width)
        check_dropout("tuning.dropout", dropout)
        self.bottleneck, self.dropout, self.zero_init = width, dropout, zero_init
        self.capabilities = Capabilities(language=False, identity=zero_init)

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Builds the adapters for the vision tower."""
        super().attach(text, vision, scope)
        self.adapters = nn.ModuleDict(
            {
                str(step.index): nn.ModuleDict(
                    {
                        site: MonaAdapter(step.width, self.bottleneck, self.dropout, self.zero_init)
                        for site in ("mid", "out")
                        if site in step.sites
                    }
                )
                for step in scope.steps(vision)
            }
        )

    def tap(
        self,
        step: Step,
        site: Site,
        x: Tensor,
        branch_in: Tensor | None,
        context: Context,
        carry: Carry,
    ) -> tuple[Tensor, Carry]:
        """Acts on the pixels after attention and MLP."""
        blocks: Any = self.adapters
        key = str(step.index)
        if step.tower == "vision" and key in blocks and site in blocks[key]:
            front, grid = to_grid(x, step)
            x = from_grid(front, blocks[key][site](grid))
        return x, carry


class MonaAdapter(nn.Module):
    """Scaled norm, down, depthwise convolutions averaged, a pointwise one, up; all with residuals.

    Args:
        channels: width C of the tower at this place.
        width: R of the bottleneck.
        dropout: before the up projection.
        zero_init: the up projection starts at zero.
    """

    def __init__(self, channels: int, width: int, dropout: float, zero_init: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.normed_scale = nn.Parameter(torch.full((channels,), 1e-6))  # gamma and gammax in the authors' code
        self.plain_scale = nn.Parameter(torch.ones(channels))
        self.down = nn.Linear(channels, width)
        self.depthwise = nn.ModuleList(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width) for kernel in KERNELS
        )
        self.pointwise = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(width, channels)
        if zero_init:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (B, H, W, C) refined."""
        inner = self.down(self.norm(x) * self.normed_scale + x * self.plain_scale).permute(0, 3, 1, 2)
        small, middle, large = (conv(inner) for conv in self.depthwise)
        inner = inner + (small + middle + large) / len(KERNELS)
        inner = inner + self.pointwise(inner)
        return x + self.up(self.dropout(F.gelu(inner.permute(0, 2, 3, 1))))
