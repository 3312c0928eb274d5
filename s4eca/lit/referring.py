"""Training and evaluating a `ReferringSegmenter`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from s4eca.checkpoint import META, PREFIX, check_learned, check_network, describe
from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.references import Batch
from s4eca.errors import S4ecaError
from s4eca.evaluation.metrics import ReferringMetrics
from s4eca.evaluation.protocols import PROTOCOLS
from s4eca.features import open_features
from s4eca.identity import tokenizer_hash
from s4eca.lit import optimizer as optimising
from s4eca.lit.intervals import check_intervals
from s4eca.lit.log_clock import LogClock
from s4eca.lit.scoring import ScoringModule
from s4eca.lit.skipping import StepGuard, spread
from s4eca.segmenter import ReferringSegmenter
from s4eca.tokenizer import tokenizer_files, tokenizer_from_files

SKIPPED = "s4eca_skipped_steps"


class ReferringModule(ScoringModule):
    """AdamW, linear warm-up and polynomial decay per step; metrics under all protocols.

    A step whose loss or gradients are not finite is skipped (`StepGuard`); `train/skipped_steps` counts them. With a
    fused optimiser nothing in a training step waits for the device, but for the steps that Lightning logs.

    `val/mIoU` and `val/oIoU` are those of the first protocol; every score is also logged as `val/PROTOCOL/NAME`.

    Args:
        segmenter: the network.
        loss: called with logits (B, S, S) and masks (B, S, S) bool.
        lr: peak learning rate, above 0.
        weight_decay: of the weights that decay (see `parameter_groups`).
        warmup_steps: optimiser steps of the linear warm-up.
        poly_power: exponent of `(1 - step / steps)`; 0.9 in LAVT and RMSIN.
        protocols: evaluation protocols.
        config: the run's resolved config as plain values, stored in its checkpoints.
        feature_cache: folder that keeps what the frozen towers give, for a method at their side; None runs them in
            every step. It serves batches whose samples have an `image_key` (see `plan_features`).
        feature_dtype: `bf16` or `fp32`, of what is kept.
        fused_optimizer: AdamW as one kernel, which also skips steps without waiting for the device; not with
            `trainer.precision=16-mixed`, whose scaler cannot clip the gradients of a fused optimiser.
        max_skipped_steps: the run stops when more steps than that were skipped.

    Attributes:
        features: that cache, None where there is none.
        guard: knows the steps that were skipped.
        start: name and sha256 of the learned weights that training started from, None for a start from nothing.

    Raises:
        S4ecaError: a rate, a number of steps or a setting of the cache that makes no sense.
    """

    def __init__(
        self,
        segmenter: ReferringSegmenter,
        loss: nn.Module,
        lr: float = 1e-4,
        weight_decay: float = 1e-2,
        warmup_steps: int = 500,
        poly_power: float = 0.9,
        protocols: Sequence[str] = tuple(PROTOCOLS),
        config: Mapping[str, Any] | None = None,
        feature_cache: str | Path | None = None,
        feature_dtype: str = "bf16",
        fused_optimizer: bool = True,
        max_skipped_steps: int = 20,
    ) -> None:
        super().__init__(protocols)
        optimising.check_rates(lr, weight_decay, warmup_steps, poly_power)
        self.segmenter, self.loss = segmenter, loss
        self.features = open_features(feature_cache, segmenter.runner, feature_dtype)
        self.lr, self.weight_decay = lr, weight_decay
        self.warmup_steps, self.poly_power = warmup_steps, poly_power
        self.fused_optimizer = fused_optimizer
        self.guard = StepGuard(segmenter, max_skipped_steps)
        self._log_clock = LogClock()
        self.config = dict(config or {})
        self.val_metrics = ReferringMetrics(protocols)
        # frozen weights are missing from checkpoints; `on_load_checkpoint` is strict on everything else
        self.strict_loading = False
        self.start: Mapping[str, str] | None = None
        self._meta: dict[str, Any] | None = None

    def forward(self, batch: Batch) -> Tensor:
        """Returns logits (B, S, S)."""
        encoded = self.features.encode(batch) if self.features is not None else None
        return self.segmenter(batch.image, batch.input_ids, batch.attention_mask, encoded, batch.shared)

    def setup(self, stage: str) -> None:
        """Checks the trainer's intervals, and forgets what an earlier training has skipped, before anything is loaded.

        Raises:
            S4ecaError: see `check_intervals`.
        """
        if stage == "fit":
            check_intervals(self.trainer, getattr(self.trainer, "datamodule", None))
            self.guard.load([])

    def on_fit_start(self) -> None:
        """Lightning keeps the modes that it finds, and towers are built in eval mode."""
        self.train()

    def on_train_start(self) -> None:
        """The network is on its device now."""
        self.guard.start()
        self._log_clock.start(self.trainer)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        self.guard.open(batch.ids)
        loss = self.loss(self(batch), batch.mask)
        self.guard.close(loss)
        # not in Lightning's progress bar: it would fetch the number from the device in every step
        self.log("train/loss", loss, batch_size=len(batch))
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Computes gradients, all of them NaN where the loss is not finite."""
        super().backward(spread(loss), *args, **kwargs)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips by the total norm of the gradients, and leaves the step out where that is not finite."""
        held = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
        norm = optimising.total_norm([gradient for gradient in held if gradient is not None])
        optimising.clip(optimizer, norm, gradient_clip_val, gradient_clip_algorithm)
        self.guard.decide(optimizer, norm, self.trainer)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Counts the steps that were skipped, at the steps that Lightning logs."""
        logs = self._log_clock.strikes(self.trainer)
        if logs or self.guard.is_due:
            self.guard.check(self.trainer)
        if logs:
            # a tensor that stays on the host
            self.log("train/skipped_steps", torch.tensor(float(len(self.guard.skipped))), batch_size=1)

    def on_train_end(self) -> None:
        """Names the steps that were skipped."""
        self.guard.check(self.trainer)
        self.guard.write(self.trainer)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Counts a batch into the validation metrics and returns its logits, for the pictures."""
        logits = self(batch)
        self.val_metrics.update(logits, batch)
        self.log("val/loss", self.loss(logits, batch.mask), batch_size=len(batch), sync_dist=True)
        return logits

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Counts a batch into the test metrics and returns its logits."""
        logits = self(batch)
        self.test_metrics.update(logits, batch)
        return logits

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the validation split."""
        self.log_scores("val", self.val_metrics)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Returns AdamW over what is learned, and its schedule per optimiser step.

        Raises:
            S4ecaError: the number of steps is not known, or a fused optimiser with 16-mixed.
        """
        if self.trainer.max_epochs in (None, -1) and self.trainer.max_steps == -1:
            raise S4ecaError("the schedule needs an end; set trainer.max_epochs or trainer.max_steps.")
        if self.fused_optimizer and getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise S4ecaError(
                f"trainer.precision={self.trainer.precision} scales gradients, which cannot be clipped with a fused "
                "optimiser; set model.fused_optimizer=false, or trainer.precision=bf16-mixed."
            )
        optimizer = optimising.build_adamw(self.segmenter, self.lr, self.weight_decay, self.fused_optimizer)
        schedule = optimising.warm_up_then_poly(
            optimizer, self.warmup_steps, self.poly_power, lambda: self.trainer.estimated_stepping_batches
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves frozen weights out and adds what a checkpoint says about itself."""
        learned = {PREFIX + name for name in self.segmenter.learned_state()}
        for key in ("state_dict", "raw_state_dict"):
            if key in checkpoint:
                kept = {name: value for name, value in checkpoint[key].items() if name in learned}
                # whatever memory the decoder's weights have in this run
                checkpoint[key] = {name: value.contiguous() for name, value in kept.items()}
        checkpoint[META] = self.describe(self.trainer.datamodule)  # type: ignore[attr-defined]
        checkpoint[SKIPPED] = self.guard.state()

    def describe(self, data: ReferringDataModule) -> dict[str, Any]:
        """Returns what checkpoints of a training on these data say about themselves; found out once.

        Raises:
            S4ecaError: the data have no tokenizer.
        """
        if self._meta is None:
            identity = {"name": data.name, **data.fingerprint(("train", "val"))}
            self._meta = describe(self.segmenter, self.config, _tokenizer(data), identity, self.start)
        return self._meta

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks a checkpoint before anything of it is used.

        Raises:
            S4ecaError: it does not fit this network, its base weights, or, when training goes on, its data or its
                tokenizer.
        """
        where = "the checkpoint"
        if META not in checkpoint:
            raise S4ecaError(f"{where} is not one of s4eca; give one that a run has written.")
        check_network(self.segmenter, checkpoint[META], where)
        state = {name.removeprefix(PREFIX): value for name, value in checkpoint["state_dict"].items()}
        check_learned(self.segmenter, state, where)
        self.guard.load(checkpoint.get(SKIPPED, []), self._trainer is None or self._trainer.is_global_zero)
        optimising.adopt_states(checkpoint, self.fused_optimizer, self.lr, self.weight_decay)
        self.start, self._meta = checkpoint[META].get("init_from"), None
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None)
        if trainer is not None and trainer.training:
            optimising.check_states(checkpoint, self.segmenter, where)
        if trainer is not None and trainer.training and data is not None:
            # read by the same libraries: others may write the same tokenizer otherwise
            both = tokenizer_from_files(checkpoint[META]["tokenizer"]), _tokenizer(data)
            if len({tokenizer_hash(tokenizer_files(tokenizer)) for tokenizer in both}) > 1:
                raise S4ecaError(
                    f"{where} was trained with another tokenizer than text.tokenizer gives now; resume with the same "
                    "one, or start anew with init_from=CKPT."
                )
            stored, here = checkpoint[META]["data"], data.fingerprint(("train", "val"))
            for split in ("train", "val"):
                if stored[split] != here[split]:
                    raise S4ecaError(
                        f"the {split} split has changed since {where} was written ({stored[split]['count']} samples "
                        f"then, {here[split]['count']} now, or other contents); resume with the same data, or start "
                        "anew with init_from=CKPT."
                    )


def _tokenizer(data: Any) -> PreTrainedTokenizerBase:
    tokenizer = getattr(data, "tokenizer", None)
    if tokenizer is None:
        raise S4ecaError("checkpoints store the tokenizer; train with a data module that has one.")
    return tokenizer
