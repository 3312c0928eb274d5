"""The contract of a tuning method: what is learned while the towers stay frozen.

A method is attached once to both towers, before DDP and compile. During the walk the runner calls its `tap` at every
site of every step. What the method wants to remember from one call to the next, from one tower to the other too,
travels in `carry`, explicitly, so that activation checkpointing recomputes exactly what was computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from s4eca.errors import S4ecaError
from s4eca.towers.base import Kind, Site, Step, TextTower, Tower, VisionTower

Placement = Literal["inside", "side"]

Carry = dict[str, Tensor]


@dataclass(frozen=True)
class Walk:
    """One step of one tower."""

    tower: Kind
    index: int


Schedule = list[Walk]


@dataclass(frozen=True)
class Context:
    """What a method may read anywhere in the walk.

    Attributes:
        word_mask: (B, L) bool, True for words and False for padding.
    """

    word_mask: Tensor


@dataclass(frozen=True)
class Scope:
    """Where a method may act.

    Attributes:
        placement: `inside` the towers, or at their `side`: then it reads the finished, detached states of both towers
            through `TuningMethod.side`, and nothing is back-propagated through them.
        start_stage: first vision stage, counted from 1, where it may change or learn anything; the stages below run
            without gradients. The text tower is not concerned.
    """

    placement: Placement = "inside"
    start_stage: int = 1

    def steps(self, vision: VisionTower) -> list[Step]:
        """Returns the vision tower's steps where a method may act."""
        return [step for step in vision.steps if step.stage + 1 >= self.start_stage]

    def modules(self, vision: VisionTower) -> list[nn.Module]:
        """Returns what a method may train of the vision tower: all of it, or the blocks from `start_stage` on."""
        return [vision] if self.start_stage == 1 else [vision.block(step.index) for step in self.steps(vision)]


INSIDE = Scope()


@dataclass(frozen=True)
class Capabilities:
    """What a method supports; combinations outside it are refused by name.

    Attributes:
        language: the expression reaches the image features through the method itself; without it a fusion is needed.
        identity: the towers' outputs are unchanged at initialisation.
        checkpointing: blocks may be recomputed in the backward pass.
        side: it has a side form.
        families: tower families that it fits, None for all.
        last_words: it learns something that only the final words show, so a fusion must read them.
    """

    language: bool
    identity: bool = True
    checkpointing: bool = True
    side: bool = False
    families: frozenset[str] | None = None
    last_words: bool = False


@dataclass(frozen=True)
class Width:
    """The setting of a method that decides how many parameters it has, for `budget=PERCENT`.

    Attributes:
        keys: the config keys under `tuning` that are set together, dots for nesting; the first is solved for, the
            others keep their configured ratio to it.
        multiple: what the keys stay multiples of; a tuple names one number per key.
        least: the first key is at least this many multiples.
    """

    keys: tuple[str, ...]
    multiple: int | tuple[int, ...] = 1
    least: int = 1


class TuningMethod(nn.Module):
    """Base of all tuning methods; as it stands it leaves both towers alone.

    Attributes:
        name: as in the config group `tuning`.
        capabilities: what the method supports.
        width: what a parameter budget solves for; None where the method's size is what it is.
    """

    name: str
    capabilities: Capabilities
    width: Width | None = None

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Builds what the method needs for these towers and decides what is trainable.

        Raises:
            S4ecaError: a tower's family is not supported, the method has no side form, or the scope does not fit.
        """
        if scope.placement == "side" and not self.capabilities.side:
            raise S4ecaError(
                f"tuning={self.name} has no side form, only s4eca and frozen have; set "
                "model.segmenter.placement=inside."
            )
        stages = len(vision.widths)
        if type(scope.start_stage) is not int or not 1 <= scope.start_stage <= stages:
            raise S4ecaError(
                f"model.segmenter.start_stage={scope.start_stage}, and the vision tower has {stages} stages; give a "
                f"whole number from 1 to {stages}."
            )
        families = self.capabilities.families
        for tower in (text, vision):
            if families is not None and tower.family not in families:
                raise S4ecaError(
                    f"tuning={self.name} does not fit {tower.family} towers, only {', '.join(sorted(families))}; "
                    f"choose another {tower.kind} tower or another tuning."
                )

    def schedule(self, text: TextTower, vision: VisionTower) -> Schedule:
        """Returns the order of the walk: by default all of the text tower, then the vision tower.

        A method may walk them in turn; each tower's steps stay in order, and every step is walked once.
        """
        towers: tuple[Tower, ...] = (text, vision)
        return [Walk(tower.kind, step.index) for tower in towers for step in tower.steps]

    def begin(self, words: Tensor, context: Context) -> Carry:
        """Returns what the carry holds before the first step, given the embedded words (B, L, D)."""
        return {}

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

    def language_enters(self, vision: VisionTower) -> int:
        """Returns the first vision step that the words may change, the number of steps where they change none.

        Equal images go through the steps before it once (`model.segmenter.encode_once`), so the method's tap reads
        there neither the context nor what the text tower's steps have put into the carry. Asked when it is attached.
        """
        return 0 if self.capabilities.language else len(vision.steps)

    def before_language(self) -> list[nn.Module]:
        """Returns the method's own parts that may act in the text tower or before `language_enters`.

        What equal rows go through once must not be random: a part with dropout among them is refused there.
        """
        return [self]

    def side_layers(self, text: TextTower) -> list[int]:
        """Returns the text steps whose outputs the side form reads, ascending; the last step's is always read."""
        return []

    def side(self, words: Sequence[Tensor], stages: Sequence[Tensor], context: Context) -> list[Tensor]:
        """The side form: refines what the frozen towers gave.

        Args:
            words: (B, L, D) after each of `side_layers`, and after the last text step, detached.
            stages: the hidden state after each vision stage (a grid, or tokens), detached.
            context: as in a walk.

        Returns:
            One tensor like each of `stages`.
        """
        raise S4ecaError(f"tuning={self.name} says it has a side form and does not implement it.")

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
