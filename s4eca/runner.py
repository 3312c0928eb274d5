"""The one place that walks the towers: schedule, taps, activation checkpointing, compile.

Nothing here switches gradients off for the frozen beginning of a tower: autograd records nothing before the first
tensor that needs a gradient, so everything below a method's first adapter costs no memory by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s4eca.errors import S4ecaError
from s4eca.towers.base import Site, State, TextTower, Tower, VisionTower
from s4eca.tuning.base import Carry, Context, Join, TuningMethod, Walk

# changes a finished stage's grid before the next stage reads it: (stage, grid (B, H, W, C), words (B, L, D)) -> grid
AtStage = Callable[[int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Walked:
    """What the towers give.

    Attributes:
        words: (B, L, D).
        pyramid: grids (B, H_i, W_i, C_i), fine to coarse.
    """

    words: Tensor
    pyramid: list[Tensor]


class Runner:
    """Walks two towers under one tuning method.

    Args:
        text: the text tower.
        vision: the vision tower.
        method: attached to both already.
        grad_checkpointing: `block` recomputes every block, its taps included, in the backward pass instead of keeping
            its activations.
        compile: `block` compiles every block with its taps by `torch.compile`; a string other than `none` and `block`
            is the name of a compile backend.

    Raises:
        S4ecaError: an unknown setting, or one that the method does not support.
    """

    def __init__(
        self,
        text: TextTower,
        vision: VisionTower,
        method: TuningMethod,
        grad_checkpointing: Literal["none", "block"] = "none",
        compile: str = "none",
    ) -> None:
        if grad_checkpointing not in ("none", "block"):
            raise S4ecaError(f"model.segmenter.grad_checkpointing={grad_checkpointing} is neither none nor block.")
        if grad_checkpointing == "block" and not method.capabilities.checkpointing:
            raise S4ecaError(f"tuning={method.name} cannot be recomputed; set model.segmenter.grad_checkpointing=none.")
        self.text, self.vision, self.method = text, vision, method
        self.grad_checkpointing = grad_checkpointing
        self.schedule = method.schedule(text, vision)
        self._take = self._step
        if compile != "none":
            self._take = torch.compile(self._step, dynamic=False, backend="inductor" if compile == "block" else compile)
        self.compiled = compile != "none"

    def __call__(
        self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, at_stage: AtStage | None = None
    ) -> Walked:
        """Walks both towers.

        Args:
            image: (B, 3, S, S) uint8.
            input_ids: (B, L).
            attention_mask: (B, L), 1 for words.
            at_stage: feeds something back into the vision tower after each stage; needs the words, so a schedule that
                walks the vision tower before the text tower has ended cannot have it.

        Raises:
            S4ecaError: `at_stage` under such a schedule.
        """
        context = Context(word_mask=attention_mask.bool())
        states = {"text": self.text.begin(input_ids, attention_mask), "vision": self.vision.begin(image)}
        ends: dict[str, list[State]] = {"text": [], "vision": []}
        carry: Carry = {}
        for event in self.schedule:
            if isinstance(event, Join):
                states["text"], states["vision"], carry = self.method.join(
                    event.name, states["text"], states["vision"], context, carry
                )
                continue
            tower = self.text if event.tower == "text" else self.vision
            state, carry = self._run(tower, event, states[event.tower], context, carry)
            step = tower.steps[event.index]
            if step.ends_stage and event.tower == "vision" and at_stage is not None:
                if not ends["text"]:
                    raise S4ecaError(
                        f"tuning={self.method.name} walks both towers at once, so a fusion cannot feed the words back "
                        "into the vision tower; set fusion.feedback=false."
                    )
                words = self.text.end(ends["text"][-1])
                state = State(at_stage(step.stage, state.hidden, words), state.mask, state.prefix, state.grid)
            if step.ends_stage:
                ends[event.tower].append(state)
            states[event.tower] = state
        return Walked(self.text.end(ends["text"][-1]), self.vision.end(ends["vision"]))

    def _run(self, tower: Tower, event: Walk, state: State, context: Context, carry: Carry) -> tuple[State, Carry]:
        if self.compiled:
            # each step is its own graph of one function; the default limit is eight before it falls back to eager
            with torch._dynamo.config.patch(recompile_limit=4 * len(self.schedule)):
                return self._maybe_checkpoint(tower, event.index, state, context, carry)
        return self._maybe_checkpoint(tower, event.index, state, context, carry)

    def _maybe_checkpoint(
        self, tower: Tower, index: int, state: State, context: Context, carry: Carry
    ) -> tuple[State, Carry]:
        if self.grad_checkpointing == "block" and torch.is_grad_enabled():
            return checkpoint(self._take, tower, index, state, context, carry, use_reentrant=False)
        return self._take(tower, index, state, context, carry)

    def _step(self, tower: Tower, index: int, state: State, context: Context, carry: Carry) -> tuple[State, Carry]:
        """One block with its taps, as a function of its arguments alone."""
        step = tower.steps[index]

        def tap(site: Site, x: Tensor, branch_in: Tensor | None = None) -> Tensor:
            nonlocal carry
            x, carry = self.method.tap(step, site, x, branch_in, context, carry)
            return x

        return tower.step(index, state, tap), carry
