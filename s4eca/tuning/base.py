"""The contract of a tuning method: what is learned while the towers stay frozen.

A method is attached once to both towers, before DDP and compile. During the walk the runner calls its `tap` at every
site of every step, and its `join` where the schedule names one. What the method wants to remember from one call to the
next travels in `carry`, explicitly, so that activation checkpointing recomputes exactly what was computed.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from s4eca.errors import S4ecaError
from s4eca.towers.base import Kind, Site, State, Step, TextTower, Tower, VisionTower

Carry = dict[str, Tensor]


@dataclass(frozen=True)
class Walk:
    """One step of one tower."""

    tower: Kind
    index: int


@dataclass(frozen=True)
class Join:
    """A point of the schedule where the method meets the states of both towers."""

    name: str


Schedule = list[Walk | Join]


@dataclass(frozen=True)
class Context:
    """What a method may read anywhere in the walk.

    Attributes:
        word_mask: (B, L) bool, True for words and False for padding.
    """

    word_mask: Tensor


@dataclass(frozen=True)
class Capabilities:
    """What a method supports; combinations outside it are refused by name.

    Attributes:
        language: the expression reaches the image features through the method itself; without it a fusion is needed.
        identity: the towers' outputs are unchanged at initialisation.
        checkpointing: blocks may be recomputed in the backward pass.
        families: tower families that it fits, None for all.
    """

    language: bool
    identity: bool = True
    checkpointing: bool = True
    families: frozenset[str] | None = None


class TuningMethod(nn.Module):
    """Base of all tuning methods; as it stands it leaves both towers alone.

    Attributes:
        name: as in the config group `tuning`.
        capabilities: what the method supports.
    """

    name: str
    capabilities: Capabilities

    def attach(self, text: TextTower, vision: VisionTower) -> None:
        """Builds what the method needs for these towers and decides what is trainable.

        Raises:
            S4ecaError: a tower's family is not supported.
        """
        families = self.capabilities.families
        for tower in (text, vision):
            if families is not None and tower.family not in families:
                raise S4ecaError(
                    f"tuning={self.name} does not fit {tower.family} towers, only {', '.join(sorted(families))}; "
                    f"choose another {tower.kind} tower or another tuning."
                )

    def schedule(self, text: TextTower, vision: VisionTower) -> Schedule:
        """Returns the order of the walk: by default all of the text tower, then the vision tower."""
        towers: tuple[Tower, ...] = (text, vision)
        return [Walk(tower.kind, step.index) for tower in towers for step in tower.steps]

    def tap(
        self,
        step: Step,
        site: Site,
        x: Tensor,
        branch_in: Tensor | None,
        context: Context,
        carry: Carry,
    ) -> tuple[Tensor, Carry]:
        """Returns what the walk goes on with at a site, and a new carry; it never changes `carry` in place."""
        return x, carry

    def join(
        self,
        name: str,
        text: State,
        vision: State,
        context: Context,
        carry: Carry,
    ) -> tuple[State, State, Carry]:
        """Returns both states and the carry after a join that `schedule` named."""
        raise S4ecaError(f"tuning={self.name} schedules the join {name!r} and does not implement it.")

    def set_mode(self, text: TextTower, vision: VisionTower, training: bool) -> None:
        """Sets the towers' train/eval mode; frozen parts stay in eval mode whatever `training` says."""
        text.eval()
        vision.eval()


def evenly_spread(share: float, depth: int) -> list[int]:
    """Returns which blocks of a stage carry an adapter: `share` of `depth`, evenly spread, the last one included.

    A positive share gives at least one block.

    Raises:
        S4ecaError: `share` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise S4ecaError(f"a density is a share of a stage's blocks between 0 and 1, and {share} is not.")
    count = max(1, round(share * depth)) if share > 0 else 0
    return [-(-(place * depth) // count) - 1 for place in range(1, count + 1)]
