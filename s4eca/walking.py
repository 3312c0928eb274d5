"""A walk on its way, and how equal rows of a batch go through the towers once.

Until words and pixels meet, the towers know nothing of each other: the text tower is walked on the different
expressions of a batch, the first vision steps on its different images. Then every sample gets a row of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from timm.layers import DropPath
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from s4eca.errors import S4ecaError
from s4eca.modes import in_mode
from s4eca.sharing import Rows, Shared
from s4eca.towers.base import Kind, State, Tower, VisionTower
from s4eca.tuning.base import Carry, Context, TuningMethod


@dataclass
class Walking:
    """Where the walk stands.

    Attributes:
        states: of each tower, the state after its last step.
        context: what the method may read.
        shared: equal rows that are walked once; None as soon as every sample has its own.
        whole: the context of all samples, which holds from then on.
        ends: the states after each stage that is through.
        carry: what the method has handed on; until words and pixels meet, of each tower alone.
    """

    states: dict[Kind, State]
    context: Context
    shared: Shared | None
    whole: Context
    ends: dict[Kind, list[State]] = field(default_factory=lambda: {"text": [], "vision": []})
    carry: dict[Kind, Carry] = field(default_factory=lambda: {"text": {}, "vision": {}})

    def advance(self, kind: Kind, state: State, carry: Carry) -> None:
        """Notes what a step has given."""
        self.states[kind] = state
        self.carry[kind] = carry
        if self.shared is None:
            self.carry = {"text": carry, "vision": carry}

    def meet(self) -> None:
        """Gives every sample a row of its own, from here on."""
        if self.shared is None:
            return
        for kind, rows in _by_tower(self.shared):
            if rows is not None:
                # a tower that has ended stands at its last stage's end
                spread = {id(state): _spread(state, rows) for state in (*self.ends[kind], self.states[kind])}
                self.ends[kind] = [spread[id(state)] for state in self.ends[kind]]
                self.states[kind] = spread[id(self.states[kind])]
                self.carry[kind] = {name: rows.spread(value) for name, value in self.carry[kind].items()}
        both = {**self.carry["text"], **self.carry["vision"]}
        self.carry = {"text": both, "vision": both}
        self.context, self.shared = self.whole, None


def check_shareable(segmenter: nn.Module, method: TuningMethod, steps: int) -> None:
    """Refuses randomness where equal rows would share it in training.

    Args:
        segmenter: its `text` and `vision`, with the method attached.
        method: the method.
        steps: how many vision steps come before words and pixels meet.

    Raises:
        S4ecaError: something is dropped out in a part that equal rows go through once.
    """
    with in_mode(segmenter, training=True):
        shared = {id(module) for part in _before(segmenter, method, steps) for module in part.modules()}
        for name, module in segmenter.named_modules():
            share = _dropped(module)
            if id(module) in shared and module.training and share > 0:
                raise S4ecaError(
                    f"model.segmenter.encode_once=true walks equal expressions and images once, and in training {name} "
                    f"would drop the same {share:g} of each; switch that off, or set model.segmenter.encode_once=null "
                    "to share in evaluation alone."
                )


def _before(segmenter: nn.Module, method: TuningMethod, steps: int) -> Iterator[nn.Module]:
    """Yields the parts that act on equal rows."""
    text, vision = segmenter.text, segmenter.vision
    assert isinstance(text, Tower)
    assert isinstance(vision, VisionTower)
    yield text
    later = {id(part) for step in vision.steps[steps:] for part in vision.block(step.index).modules()}
    # one by one: a block stands inside modules that come before it
    yield from (part for part in vision.modules() if id(part) not in later and not any(part.children()))
    yield from method.before_language()


def _dropped(module: nn.Module) -> float:
    """Returns the share that a module drops in train mode."""
    if isinstance(module, _DropoutNd):
        return module.p
    if isinstance(module, DropPath):
        return float(module.drop_prob or 0)
    share = getattr(module, "dropout", 0)  # of nn.MultiheadAttention and CLIP's attention
    # a method's own is a setting that its parts were built with
    return share if isinstance(share, float) and not isinstance(module, TuningMethod) else 0.0


def _by_tower(shared: Shared) -> tuple[tuple[Kind, Rows | None], tuple[Kind, Rows | None]]:
    return ("text", shared.words), ("vision", shared.images)


def _spread(state: State, rows: Rows) -> State:
    return State(rows.spread(state.hidden), None if state.mask is None else rows.spread(state.mask))
