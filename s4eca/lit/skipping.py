"""Optimiser steps with a loss or gradients that are not finite: skipped on the device, counted, and named."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torch.optim import AdamW

from s4eca.errors import S4ecaError
from s4eca.files import write_text
from s4eca.segmenter import ReferringSegmenter

NAME = "skipped_steps.json"
LOOK = 500
"""Steps after which a run looks at the decisions at the latest, however seldom it logs."""


def spread(loss: Tensor) -> Tensor:
    """Returns a loss whose gradients are NaN where the loss is not finite; elsewhere it and they are what they were.

    An infinite loss may have finite gradients. With this the gradients alone tell, after they were summed over the
    batches of a step and over processes, so that all processes decide alike.
    """
    return loss * (1 + 0 * loss.detach())


class StepGuard:
    """Leaves out optimiser steps whose gradients have no finite norm.

    Such a step changes nothing: parameters, both moments, step counts and the running statistics of norms are, bit for
    bit, what they were before its first batch. The schedule of the learning rate goes on. All batches of a step with
    accumulated gradients count together.

    With a fused optimiser the decision stays on the device (`found_inf`, the way that torch's GradScaler takes) and the
    host learns of it when it looks. A plain one has no such way, so that the host waits for the decision in every
    step. With 16-mixed the GradScaler leaves the step out, and only what is no search for a scale is counted: a loss
    that is not finite, or gradients that overflow though the scale is below 1.

    Args:
        segmenter: the network.
        limit: how many steps a run may skip.

    Attributes:
        skipped: steps known to be skipped, each with `step` (optimiser steps made before it, as in `metrics.csv`),
            `epoch` and `ids` of its samples; of this process's samples until `write`.

    Raises:
        S4ecaError: a limit that is no whole number, or below 0.
    """

    def __init__(self, segmenter: ReferringSegmenter, limit: int = 20) -> None:
        if type(limit) is not int or limit < 0:
            raise S4ecaError(f"model.max_skipped_steps={limit} is no number of steps: give 0 or more.")
        self.segmenter, self.limit = segmenter, limit
        self.skipped: list[dict[str, Any]] = []
        self._pending: list[tuple[dict[str, Any], Tensor]] = []
        self._ids: list[str] = []
        self._losses: list[Tensor] = []
        self._buffers: list[Tensor] | None = None
        self._before: list[Tensor] = []

    def start(self) -> None:
        """Forgets what an earlier training of this process has left; call it where the network is on its device."""
        learned = self.segmenter.learned_state()
        self._buffers = [buffer for name, buffer in self.segmenter.named_buffers() if name in learned]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._ids, self._losses, self._pending = [], [], []

    def open(self, ids: list[str]) -> None:
        """Notes a batch before its forward pass, and with a step's first what that may change."""
        if not self._ids and self._buffers:
            torch._foreach_copy_(self._before, self._buffers)
        self._ids += ids

    def close(self, loss: Tensor) -> None:
        """Notes the loss of a batch."""
        self._losses.append(loss.detach())

    def undo(self) -> None:
        """Puts back what the batches of a step that will not be completed have changed."""
        if self._ids and self._buffers:
            torch._foreach_copy_(self._buffers, self._before)
        self._ids, self._losses = [], []

    def decide(self, optimizer: AdamW, norm: Tensor, trainer: Trainer) -> None:
        """Leaves out the step that the optimiser is about to make where the norm () of its gradients is not finite."""
        skip = ~torch.isfinite(norm)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        counts = skip
        if scaler is not None:
            lost = (~torch.isfinite(torch.stack(self._losses))).any().float()
            lost = trainer.strategy.reduce(lost, reduce_op="sum") > 0
            counts = skip & (lost | (scaler.get_scale() < 1))
        elif optimizer.defaults["fused"]:
            optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        elif skip:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # which an optimiser passes over
        for buffer, before in zip(self._buffers or [], self._before, strict=True):
            buffer.copy_(torch.where(skip, before, buffer))
        record = {"step": trainer.global_step, "epoch": trainer.current_epoch, "ids": self._ids}
        self._pending.append((record, counts))
        self._ids, self._losses = [], []

    @property
    def is_due(self) -> bool:
        """Whether so many steps have passed that the limit should be checked."""
        return len(self._pending) >= LOOK

    def look(self) -> int:
        """Returns how many steps were skipped so far; asks the device for the decisions since the last look, once."""
        if self._pending:
            flags = torch.stack([flag for _, flag in self._pending]).tolist()
            self.skipped += [record for (record, _), flag in zip(self._pending, flags, strict=True) if flag]
            self._pending = []
        return len(self.skipped)

    def write(self, trainer: Trainer) -> None:
        """Writes `skipped_steps.json` into the run folder where any step was skipped; all processes must call it."""
        if not self.look():
            return
        steps = self.skipped
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, steps)
            together = zip(*parts, strict=True)
            steps = [{**same[0], "ids": [id for record in same for id in record["ids"]]} for same in together]
        if trainer.is_global_zero:
            content = {"skipped_steps": len(steps), "max_skipped_steps": self.limit, "steps": steps}
            write_text(Path(trainer.default_root_dir) / NAME, json.dumps(content, indent=2) + "\n")

    def check(self, trainer: Trainer) -> None:
        """Writes the file and raises `S4ecaError` where more steps were skipped than the limit allows."""
        count = self.look()
        if count > self.limit:
            self.write(trainer)
            raise S4ecaError(
                f"{count} optimiser steps had a loss or gradients that are not finite, more than "
                f"model.max_skipped_steps={self.limit}; look at the samples in "
                f"{Path(trainer.default_root_dir) / NAME}, or go on with a lower model.lr and a higher "
                "model.max_skipped_steps."
            )

    def state(self) -> list[dict[str, Any]]:
        """Returns what a checkpoint keeps, as plain values."""
        self.look()
        return list(self.skipped)

    def load(self, state: list[dict[str, Any]], is_first: bool = True) -> None:
        """Goes on counting where a checkpoint was written; its ids are the first process's to tell."""
        self.skipped = [record if is_first else {**record, "ids": []} for record in state]
