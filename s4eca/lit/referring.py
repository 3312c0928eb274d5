"""Training and evaluating a `ReferringSegmenter`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerBase

from s4eca.checkpoint import META, PREFIX, check_learned, check_network, describe
from s4eca.data.references import Batch
from s4eca.errors import S4ecaError
from s4eca.evaluation.metrics import ReferringMetrics
from s4eca.evaluation.protocols import PROTOCOLS
from s4eca.features import open_features
from s4eca.lit.scoring import ScoringModule
from s4eca.segmenter import ReferringSegmenter


class ReferringModule(ScoringModule):
    """AdamW, linear warm-up and polynomial decay per step; metrics under all protocols.

    `val/mIoU` and `val/oIoU` are those of the first protocol; every score is also logged as `val/PROTOCOL/NAME`.

    Args:
        segmenter: the network.
        loss: called with logits (B, S, S) and masks (B, S, S) bool.
        lr: peak learning rate.
        weight_decay: not applied to norms, biases, queries, prompts and position bias tables.
        warmup_steps: optimiser steps of the linear warm-up.
        poly_power: exponent of `(1 - step / steps)`; 0.9 in LAVT and RMSIN.
        protocols: evaluation protocols.
        config: the run's resolved config as plain values, stored in its checkpoints.
        feature_cache: folder that keeps what the frozen towers give, for a method at their side; None runs them in
            every step. It serves batches whose samples have an `image_key` (see `plan_features`).
        feature_dtype: `bf16` or `fp32`, of what is kept.

    Attributes:
        features: that cache, None where there is none.
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
    ) -> None:
        super().__init__(protocols)
        self.segmenter, self.loss = segmenter, loss
        self.features = open_features(feature_cache, segmenter.runner, feature_dtype)
        self.lr, self.weight_decay = lr, weight_decay
        self.warmup_steps, self.poly_power = warmup_steps, poly_power
        self.config = dict(config or {})
        self.val_metrics = ReferringMetrics(protocols)
        # frozen weights are missing from checkpoints; `on_load_checkpoint` is strict on everything else
        self.strict_loading = False
        self._meta: dict[str, Any] | None = None

    def forward(self, batch: Batch) -> Tensor:
        """Returns logits (B, S, S)."""
        encoded = self.features.encode(batch) if self.features is not None else None
        return self.segmenter(batch.image, batch.input_ids, batch.attention_mask, encoded)

    def on_fit_start(self) -> None:
        """Lightning keeps the modes that it finds, and towers are built in eval mode."""
        self.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        loss = self.loss(self(batch), batch.mask)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

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
            S4ecaError: the number of steps is not known.
        """
        if self.trainer.max_epochs in (None, -1) and self.trainer.max_steps == -1:
            raise S4ecaError("the schedule needs an end; set trainer.max_epochs or trainer.max_steps.")
        optimizer = AdamW(parameter_groups(self.segmenter, self.weight_decay), lr=self.lr)

        def factor(step: int) -> float:
            ramp = min((step + 1) / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
            if step == 0:
                # asked now, the number of steps would make Lightning open the loader before a resumed state is in it
                return ramp
            return ramp * max(1 - step / self.trainer.estimated_stepping_batches, 0.0) ** self.poly_power

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves frozen weights out and adds what a checkpoint says about itself."""
        learned = {PREFIX + name for name in self.segmenter.learned_state()}
        for key in ("state_dict", "raw_state_dict"):
            if key in checkpoint:
                checkpoint[key] = {name: value for name, value in checkpoint[key].items() if name in learned}
        if self._meta is None:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            identity = {"name": data.name, **data.fingerprint(("train", "val"))}
            self._meta = describe(self.segmenter, self.config, _tokenizer(data), identity)
        checkpoint[META] = self._meta

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks a checkpoint before anything of it is used.

        Raises:
            S4ecaError: it does not fit this network, its base weights, or, when training goes on, its data.
        """
        where = "the checkpoint"
        if META not in checkpoint:
            raise S4ecaError(f"{where} is not one of s4eca; give one that a run has written.")
        check_network(self.segmenter, checkpoint[META], where)
        state = {name.removeprefix(PREFIX): value for name, value in checkpoint["state_dict"].items()}
        check_learned(self.segmenter, state, where)
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None)
        if trainer is not None and trainer.training and data is not None:
            stored, here = checkpoint[META]["data"], data.fingerprint(("train", "val"))
            for split in ("train", "val"):
                if stored[split] != here[split]:
                    raise S4ecaError(
                        f"the {split} split has changed since {where} was written ({stored[split]['count']} samples "
                        f"then, {here[split]['count']} now, or other contents); resume with the same data, or start "
                        "anew with init_from=CKPT."
                    )


UNDECAYED = ("queries", "prompts", "relative_position_bias_table", "logit_scale")


def parameter_groups(segmenter: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Splits what is learned into weights that decay and those that do not (norms, biases, queries, prompts, …)."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in segmenter.named_parameters():
        if parameter.requires_grad:
            kept = parameter.ndim <= 1 or name.endswith(UNDECAYED)
            groups[not kept].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def _tokenizer(data: Any) -> PreTrainedTokenizerBase:
    tokenizer = getattr(data, "tokenizer", None)
    if tokenizer is None:
        raise S4ecaError("checkpoints store the tokenizer; train with a data module that has one.")
    return tokenizer
