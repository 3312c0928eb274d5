"""The contract of a tower: a frozen foundation model that is walked block by block.

    state = tower.begin(inputs)
    for i in range(len(tower.steps)):
        state = tower.step(i, state, tap)
    features = tower.end(stage_states)

A tap is called at the named sites of every step and returns what the walk goes on with. With `no_tap` a tower's walk
equals its library's own forward bit for bit.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from s4eca.weights import BaseWeights

Kind = Literal["text", "vision"]
Site = Literal["in", "attn", "mlp", "out", "stage_out"]
SITES: tuple[Site, ...] = ("in", "attn", "mlp", "out", "stage_out")


class Tap(Protocol):
    """What a tuning method does at a site.

    `attn` and `mlp` see the branch before it joins the residual stream (`x`) and the branch's input (`branch_in`), so
    that parallel adapters fit; at the other sites `branch_in` is None.
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
    """

    tower: Kind
    index: int
    stage: int
    width: int
    ends_stage: bool
    sites: tuple[Site, ...] = SITES


@dataclass(frozen=True)
class State:
    """What travels between steps: tensors and integers only, so that recomputation is exact.

    Attributes:
        hidden: (B, L, D) words, (B, H, W, C) grid, or (B, T, C) tokens of a plain transformer.
        mask: the attention mask in the form that the tower's blocks take, None where they need none.
        prefix: number of leading tokens that are not words or pixels.
        grid: (rows, columns) of the image tokens, None for words.
    """

    hidden: Tensor
    mask: Tensor | None = None
    prefix: int = 0
    grid: tuple[int, int] | None = None


class Tower(nn.Module):
    """Base of all towers: frozen, in eval mode, described by `steps`.

    Attributes:
        kind: `text` or `vision`.
        family: the architecture's name, which tuning methods may refuse.
        steps: one entry per block, in order.
        widths: channels of each stage's output.
        base: where the weights came from and their hash as they were loaded, before any later cast.
    """

    kind: Kind
    family: str
    steps: list[Step]
    widths: list[int]
    base: BaseWeights

    def freeze(self) -> None:
        """Switches gradients off and eval mode on; every tower does this when it is built."""
        self.requires_grad_(False)
        self.eval()

    def block(self, index: int) -> nn.Module:
        """Returns the module behind `steps[index]`, for methods that replace layers."""
        raise NotImplementedError

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
        """Returns the pyramid: for each stage a grid (B, H_i, W_i, C_i)."""
        raise NotImplementedError
