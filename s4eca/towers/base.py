"""The contract of a tower: a frozen foundation model that is walked block by block.

    state = tower.begin(inputs)
    for i in range(len(tower.steps)):
        state = tower.step(i, state, tap)
    features = tower.end(stage_states)

A tap is called at the named sites of every step and returns what the walk goes on with. With `no_tap` a tower's walk
equals its library's own forward bit for bit.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from s4eca.weights import BaseWeights

Kind = Literal["text", "vision"]
Site = Literal["in", "attn", "mid", "mlp", "out", "stage_out"]
SITES: tuple[Site, ...] = ("in", "attn", "mid", "mlp", "out", "stage_out")


class Tap(Protocol):
    """What a tuning method does at a site.

    `attn` and `mlp` see the branch as it is about to join the residual stream (`x`, layer scale included) and the
    branch's input (`branch_in`), so that parallel adapters fit; at the other sites `branch_in` is None. `mid` is the
    residual stream between the attention and the MLP. In a tower with `takes_tokens`, a tap may put further tokens at
    index `step.prefix` at `in`, which every other token attends to, and takes them away again at `out`.
    """

    def __call__(self, site: Site, x: Tensor, branch_in: Tensor | None = None) -> Tensor:
        """Returns what the walk goes on with."""
        ...


def no_tap(site: Site, x: Tensor, branch_in: Tensor | None = None) -> Tensor:  # noqa: ARG001
    """Leaves the tower as it is."""
    return x


@dataclass(frozen=True)
class Step:
    """One block of a tower.

    Attributes:
        tower: which tower it belongs to.
        index: position among all steps of the tower.
        stage: stage it belongs to.
        width: channels of the residual stream.
        ends_stage: True for the last block of its stage; only there `stage_out` is visited.
        sites: the sites where a method may act.
        grid: (rows, columns) of the image tokens at this step, None for words.
        prefix: number of leading tokens that are no pixels (class token, registers).
    """

    tower: Kind
    index: int
    stage: int
    width: int
    ends_stage: bool
    sites: tuple[Site, ...] = SITES
    grid: tuple[int, int] | None = None
    prefix: int = 0


@dataclass(frozen=True)
class State:
    """What travels between steps: tensors only, so that recomputation is exact.

    Attributes:
        hidden: (B, L, D) words, (B, H, W, C) grid, or (B, T, C) tokens of a plain transformer.
        mask: the attention mask in the form that the tower's blocks take, None where they need none.
    """

    hidden: Tensor
    mask: Tensor | None = None


def to_grid(x: Tensor, step: Step) -> tuple[Tensor | None, Tensor]:
    """Splits what a vision step hands to a tap into leading tokens and pixels.

    Args:
        x: (B, H, W, C), or (B, P + HW, C) tokens of a plain transformer.
        step: the step it comes from.

    Returns:
        The P leading tokens (B, P, C), None where the tower has a grid, and the pixels (B, H, W, C).
    """
    if x.ndim == 4:
        return None, x
    assert step.grid is not None
    return x[:, : step.prefix], x[:, step.prefix :].unflatten(1, step.grid)


def from_grid(front: Tensor | None, grid: Tensor) -> Tensor:
    """Undoes `to_grid`."""
    return grid if front is None else torch.cat([front, grid.flatten(1, 2)], dim=1)


def attend_to_added(mask: Tensor | None, length: int) -> Tensor | None:
    """Widens an attention mask for tokens that a tap put in front: everything attends to them, they to what is real.

    Args:
        mask: (B, 1, L, L) bool (True may be seen) or float (0 may be seen), or None where nothing is masked.
        length: of the longer sequence.
    """
    if mask is None or mask.shape[-1] == length:
        return mask
    added = length - mask.shape[-1]
    # the added tokens see what the last word sees: all words that are no padding, under a causal mask too
    mask = torch.cat([mask[..., -1:, :].expand(*mask.shape[:-2], added, -1), mask], dim=-2)
    seen = torch.ones if mask.dtype == torch.bool else torch.zeros
    return torch.cat([seen((*mask.shape[:-1], added), dtype=mask.dtype, device=mask.device), mask], dim=-1)


class Tower(nn.Module):
    """Base of all towers: frozen, in eval mode, described by `steps`.

    Attributes:
        kind: `text` or `vision`.
        family: the architecture's name, which tuning methods may refuse.
        model: the library's own module.
        steps: one entry per block, in order.
        widths: channels of each stage's output.
        base: where the weights came from and their hash as they were loaded, before any later cast.
        size: number of parameters as they were loaded, before a method adds any.
        takes_tokens: every token attends to every other one, so that a method may add tokens (see `Tap`).
        attention_layers: names of the linear layers in a block's attention, relative to `block(i)`.
        mlp_layers: the same for its MLP.
    """

    kind: Kind
    family: str
    model: Any  # the libraries' models have no common type
    steps: list[Step]
    widths: list[int]
    base: BaseWeights
    size: int
    takes_tokens: bool = False
    attention_layers: tuple[str, ...] = ()
    mlp_layers: tuple[str, ...] = ()

    def freeze(self) -> None:
        """Counts the parameters, switches gradients off and eval mode on; every tower does this when it is built."""
        self.size = sum(parameter.numel() for parameter in self.parameters())
        self.requires_grad_(False)
        self.eval()

    def block(self, index: int) -> nn.Module:
        """Returns the module behind `steps[index]`, for methods that replace layers."""
        raise NotImplementedError

    def undecayed(self) -> list[nn.Parameter]:
        """Returns those that the library's own training leaves without weight decay, vectors (biases, norms) aside."""
        return []

    def step(self, index: int, state: State, tap: Tap) -> State:
        """Runs block `index` and visits its sites."""
        raise NotImplementedError

    def stage_depths(self) -> list[int]:
        """Returns the number of blocks of each stage."""
        depths = [0] * len(self.widths)
        for step in self.steps:
            depths[step.stage] += 1
        return depths


class TextTower(Tower):
    """A tower of words: `begin(input_ids, attention_mask)`, `end` gives (B, L, D)."""

    kind: Kind = "text"

    def begin(self, input_ids: Tensor, attention_mask: Tensor) -> State:
        """Embeds (B, L) token ids; `attention_mask` (B, L) is 1 for words."""
        raise NotImplementedError

    def end(self, state: State) -> Tensor:
        """Returns the words (B, L, D) of the final state."""
        raise NotImplementedError


class VisionTower(Tower):
    """A tower of pixels: `begin(image)`, `end` gives a pyramid of NHWC grids, fine to coarse.

    Attributes:
        image_size: side of the square input in pixels.
    """

    kind: Kind = "vision"
    image_size: int

    def begin(self, image: Tensor) -> State:
        """Normalises (B, 3, H, W) uint8 pixels with the tower's own statistics and embeds them."""
        raise NotImplementedError

    def end(self, stage_states: list[State]) -> list[Tensor]:
        """Returns the pyramid: for each stage a grid (B, H_i, W_i, C_i); nothing in here is learned."""
        raise NotImplementedError
