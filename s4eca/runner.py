"""The one place that walks the towers: schedule, taps, no-gradient prefix, equal rows, checkpointing, compile."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s4eca.errors import S4ecaError
from s4eca.sharing import Rows, Shared
from s4eca.towers.base import Kind, Site, State, TextTower, Tower, VisionTower, from_grid, no_tap, to_grid
from s4eca.tuning.base import INSIDE, Carry, Context, Scope, TuningMethod, Walk
from s4eca.walking import Walking

# changes a finished stage's grid before the next stage reads it: (stage, grid (B, H, W, C), words (B, L, D)) -> grid
AtStage = Callable[[int, Tensor, Tensor], Tensor]

CHECKPOINTING = ("none", "block", "stage")


@dataclass(frozen=True)
class Walked:
    """What the towers give.

    Attributes:
        words: (B, L, D).
        pyramid: grids (B, H_i, W_i, C_i), fine to coarse.
    """

    words: Tensor
    pyramid: list[Tensor]


@dataclass(frozen=True)
class Encoded:
    """What the frozen towers alone give, for a method at their side; it carries no gradients.

    Attributes:
        words: (B, L, D) after each of the method's `side_layers`, and after the last text step.
        stages: the hidden state after each vision stage: (B, H_i, W_i, C_i), or (B, T, C) tokens.
    """

    words: list[Tensor]
    stages: list[Tensor]


class Runner:
    """Walks two towers under one tuning method.

    Args:
        text: the text tower.
        vision: the vision tower.
        method: attached to both already, in the same scope.
        scope: where the method acts; vision stages below its first run without gradients.
        grad_checkpointing: what is recomputed in the backward pass instead of being kept: `none`, every `block` with
            its taps, or every `stage` (the text tower is one, or as many parts as its walk is cut into).
        compile: `block` compiles every block with its taps by `torch.compile`; a string other than `none` and `block`
            is the name of a compile backend.

    Raises:
        S4ecaError: an unknown setting, or one that the method or its placement does not support.
    """

    def __init__(
        self,
        text: TextTower,
        vision: VisionTower,
        method: TuningMethod,
        scope: Scope = INSIDE,
        grad_checkpointing: Literal["none", "block", "stage"] = "none",
        compile: str = "none",
    ) -> None:
        if grad_checkpointing not in CHECKPOINTING:
            raise S4ecaError(
                f"model.segmenter.grad_checkpointing={grad_checkpointing} is none of {', '.join(CHECKPOINTING)}."
            )
        if grad_checkpointing != "none" and not method.capabilities.checkpointing:
            raise S4ecaError(f"tuning={method.name} cannot be recomputed; set model.segmenter.grad_checkpointing=none.")
        if grad_checkpointing != "none" and scope.placement == "side":
            raise S4ecaError(
                "with model.segmenter.placement=side the towers keep nothing for a backward pass; set "
                "model.segmenter.grad_checkpointing=none."
            )
        if compile not in ("none", "block") and compile not in torch._dynamo.list_backends(exclude_tags=()):
            raise S4ecaError(
                f"model.segmenter.compile={compile} is neither none nor block, nor a compile backend of torch."
            )
        if compile != "none" and scope.placement == "side":
            raise S4ecaError(
                "model.segmenter.placement=side walks the towers without a graph to compile; set "
                "model.segmenter.compile=none."
            )
        self.text, self.vision, self.method, self.scope = text, vision, method, scope
        self.grad_checkpointing = grad_checkpointing
        self.schedule = method.schedule(text, vision)
        # where words and pixels meet: from here on equal rows of a batch may differ
        enters = 0 if scope.placement == "side" else method.language_enters(vision)
        self.meeting = next((walk for walk in self.schedule if walk.tower == "vision" and walk.index >= enters), None)
        self.groups = self._groups()
        self._take = self._step
        if compile != "none":
            self._take = torch.compile(self._step, dynamic=False, backend="inductor" if compile == "block" else compile)
        self.compiled = compile != "none"

    def __call__(
        self,
        image: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        at_stage: AtStage | None = None,
        encoded: Encoded | None = None,
        shared: Shared | None = None,
    ) -> Walked:
        """Walks both towers.

        Args:
            image: (B, 3, S, S) uint8.
            input_ids: (B, L).
            attention_mask: (B, L), 1 for words.
            at_stage: feeds something back into the vision tower after each stage; it gets the final words, so all of
                the text tower comes first (`words_first`).
            encoded: what `encode` gave for the same inputs, for a method at the side; None walks the towers.
            shared: equal rows of the inputs, which are walked once until words and pixels meet; None walks all.
        """
        if self.scope.placement == "side":
            return self._beside(encoded or self.encode(image, input_ids, attention_mask, shared), attention_mask)
        walking = self._begin(image, input_ids, attention_mask, shared)
        for walks in self.groups:
            if self.meeting in walks:
                walking.meet()
            tower = self.text if walks[0].tower == "text" else self.vision
            state, carry = walking.states[tower.kind], walking.carry[tower.kind]
            walking.advance(tower.kind, *self._run(tower, walks, state, walking.context, carry))
            step = tower.steps[walks[-1].index]
            if step.ends_stage and tower.kind == "vision" and at_stage is not None:
                walking.meet()
                state = walking.states["vision"]
                words = self.text.end(walking.ends["text"][-1])
                front, grid = to_grid(state.hidden, step)
                walking.states["vision"] = State(from_grid(front, at_stage(step.stage, grid, words)), state.mask)
            if step.ends_stage:
                walking.ends[tower.kind].append(walking.states[tower.kind])
        walking.meet()
        return Walked(self.text.end(walking.ends["text"][-1]), self.vision.end(walking.ends["vision"]))

    def _begin(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, shared: Shared | None) -> Walking:
        """Embeds the inputs, of equal ones the first."""
        whole = Context(word_mask=attention_mask.bool())
        if shared is not None and self.meeting == Walk("vision", 0):
            shared = Shared(words=shared.words)  # embedding an image twice costs no more than copying the grid
        words, images = (shared.words, shared.images) if shared is not None else (None, None)
        input_ids, attention_mask, image = _join(words, input_ids), _join(words, attention_mask), _join(images, image)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.scope.start_stage == 1):
            first = self.vision.begin(image)
        states: dict[Kind, State] = {"text": self.text.begin(input_ids, attention_mask), "vision": first}
        walking = Walking(states, Context(attention_mask.bool()) if shared is not None else whole, shared, whole)
        walking.advance("text", states["text"], self.method.begin(states["text"].hidden, walking.context))
        return walking

    @property
    def words_first(self) -> bool:
        """Whether the text tower has ended before the vision tower begins."""
        return all(walk.tower == "text" for walk in self.schedule[: len(self.text.steps)])

    @torch.no_grad()
    def encode(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, shared: Shared | None = None) -> Encoded:
        """Walks the towers alone and returns what a method at their side reads; arguments as in a call."""
        words, images = (shared.words, shared.images) if shared is not None else (None, None)
        hidden = self.encode_words(_join(words, input_ids), _join(words, attention_mask))
        stages = self.encode_image(_join(images, image))
        return Encoded([_spread(words, state) for state in hidden], [_spread(images, state) for state in stages])

    @torch.no_grad()
    def encode_words(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Returns `Encoded.words`."""
        read = {*self.method.side_layers(self.text), len(self.text.steps) - 1}
        words, state = [], self.text.begin(input_ids, attention_mask)
        for step in self.text.steps:
            state = self.text.step(step.index, state, no_tap)
            if step.index in read:
                words.append(state.hidden)
        return words

    @torch.no_grad()
    def encode_image(self, image: Tensor) -> list[Tensor]:
        """Returns `Encoded.stages`."""
        stages, state = [], self.vision.begin(image)
        for step in self.vision.steps:
            state = self.vision.step(step.index, state, no_tap)
            if step.ends_stage:
                stages.append(state.hidden)
        return stages

    def _beside(self, encoded: Encoded, attention_mask: Tensor) -> Walked:
        context = Context(word_mask=attention_mask.bool())
        stages = self.method.side(encoded.words, encoded.stages, context)
        with torch.no_grad():
            words = self.text.end(State(encoded.words[-1]))
        return Walked(words, self.vision.end([State(stage) for stage in stages]))

    def _groups(self) -> list[list[Walk]]:
        """The schedule in groups that are recomputed together: a stage, or single steps."""
        groups: list[list[Walk]] = []
        for walk in self.schedule:
            if self.grad_checkpointing == "stage" and groups and self._same_stage(groups[-1][-1], walk):
                groups[-1].append(walk)
            else:
                groups.append([walk])
        return groups

    def _same_stage(self, one: Walk, other: Walk) -> bool:
        if one.tower != other.tower:
            return False
        steps = self.text.steps if one.tower == "text" else self.vision.steps
        return steps[one.index].stage == steps[other.index].stage

    def _run(
        self, tower: Tower, walks: list[Walk], state: State, context: Context, carry: Carry
    ) -> tuple[State, Carry]:
        """Takes the steps of one group, and keeps or recomputes what its backward pass needs."""
        learns = tower.kind == "text" or tower.steps[walks[0].index].stage + 1 >= self.scope.start_stage
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            if self.grad_checkpointing == "none" or not torch.is_grad_enabled():
                return self._steps(tower, walks, state, context, carry)
            names = list(carry)

            def again(hidden: Tensor, mask: Tensor | None, *carried: Tensor) -> tuple[State, Carry]:
                held = dict(zip(names, carried, strict=True))
                return self._steps(tower, walks, State(hidden, mask), context, held)

            # tensor by tensor: what stands inside another object is hidden from autograd's hooks for saved tensors
            return checkpoint(again, state.hidden, state.mask, *carry.values(), use_reentrant=False)

    def _steps(
        self, tower: Tower, walks: list[Walk], state: State, context: Context, carry: Carry
    ) -> tuple[State, Carry]:
        for walk in walks:
            if self.compiled:
                # each step is its own graph of one function; the default limit is eight before it falls back to eager
                with torch._dynamo.config.patch(recompile_limit=4 * len(self.schedule)):
                    state, carry = self._take(tower, walk.index, state, context, carry)
            else:
                state, carry = self._take(tower, walk.index, state, context, carry)
        return state, carry

    def _step(self, tower: Tower, index: int, state: State, context: Context, carry: Carry) -> tuple[State, Carry]:
        """One block with its taps, as a function of its arguments alone."""
        step = tower.steps[index]

        def tap(site: Site, x: Tensor, branch_in: Tensor | None = None) -> Tensor:
            nonlocal carry
            x, carry = self.method.tap(step, site, x, branch_in, context, carry)
            return x

        return tower.step(index, state, tap), carry


def _join(rows: Rows | None, inputs: Tensor) -> Tensor:
    return inputs if rows is None else rows.join(inputs)


def _spread(rows: Rows | None, joined: Tensor) -> Tensor:
    return joined if rows is None else rows.spread(joined)
