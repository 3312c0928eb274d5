"""Losses on one logit per pixel.

The segmenter's logit is the difference `l1 - l0` of a two-channel head, so softmax over the two channels is
`sigmoid(-logit), sigmoid(logit)` and every published two-channel loss has an exact form on that one logit.

`sample` reductions average over samples, so that a loss does not depend on how a batch is split over processes;
`batch` reductions are the published ones, which do. All of them are computed in float32, under autocast too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.errors import S4ecaError


class CrossEntropy(nn.Module):
    """Class-weighted cross-entropy (LAVT, `train.py`: weights 0.9 for background and 1.1 for the target).

    Args:
        weight: (background, target), both positive.
        reduction: `batch` is torch's own, Σ w·nll / Σ w over all pixels of the batch; `sample` is the same within
            each sample, then the mean over samples.

    Raises:
        S4ecaError: an unknown reduction, or weights that are not two positive numbers.
    """

    def __init__(self, weight: Sequence[float] = (0.9, 1.1), reduction: str = "sample") -> None:
        super().__init__()
        if len(weight) != 2 or min(weight) <= 0:
            raise S4ecaError(f"Loss weight {list(weight)}: give two positive numbers, background and target.")
        self.background, self.target = weight
        self.reduction = _known(reduction, "sample", "batch")

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the scalar loss of logits (B, H, W) against bool masks (B, H, W)."""
        logits = _float(logits, masks)
        negative_log_likelihood = F.softplus(torch.where(masks, -logits, logits))
        weights = torch.where(masks, self.target, self.background)
        if self.reduction == "batch":
            return (weights * negative_log_likelihood).sum() / weights.sum()
        per_sample = (weights * negative_log_likelihood).sum((1, 2)) / weights.sum((1, 2))
        return per_sample.mean()


class Dice(nn.Module):
    """Two-class softmax Dice (RMSIN, `loss/loss.py`): 1 - (2·Σ p·t + smooth) / (Σ p + Σ t + smooth).

    Args:
        reduction: `sample` is the mean over samples and both classes; `batch_sum` is RMSIN's sum over them, which
            grows with the batch.
        smooth: added above and below, so that an empty mask gives a finite score.

    Raises:
        S4ecaError: an unknown reduction.
    """

    def __init__(self, reduction: str = "sample", smooth: float = 1e-6) -> None:
        super().__init__()
        self.reduction = _known(reduction, "sample", "batch_sum")
        self.smooth = smooth

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the scalar loss of logits (B, H, W) against bool masks (B, H, W)."""
        logits = _float(logits, masks)
        background = _dice(torch.sigmoid(-logits), ~masks, self.smooth)
        target = _dice(torch.sigmoid(logits), masks, self.smooth)
        losses = torch.stack([background, target])
        return losses.sum() if self.reduction == "batch_sum" else losses.mean()


class CEDice(nn.Module):
    """Weighted cross-entropy plus two-class Dice (RMSIN, `train.py`: 0.9 and 0.1).

    Args:
        ce_weight: factor of the cross-entropy.
        dice_weight: factor of the Dice loss.
        weight: class weights of the cross-entropy, (background, target).
        reduction: `sample` averages both per sample; `batch` is RMSIN's recipe, cross-entropy normalised over the
            batch and Dice summed over it.

    Raises:
        S4ecaError: an unknown reduction, or weights that are not two positive numbers.
    """

    def __init__(
        self,
        ce_weight: float = 0.9,
        dice_weight: float = 0.1,
        weight: Sequence[float] = (0.9, 1.1),
        reduction: str = "sample",
    ) -> None:
        super().__init__()
        self.cross_entropy = CrossEntropy(weight, reduction)
        self.dice = Dice("batch_sum" if reduction == "batch" else "sample")
        self.ce_weight = ce_weight
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the scalar loss of logits (B, H, W) against bool masks (B, H, W)."""
        return self.ce_weight * self.cross_entropy(logits, masks) + self.dice_weight * self.dice(logits, masks)


class BCEDice(nn.Module):
    """Plain binary cross-entropy plus Dice of the target class alone, both averaged per sample.

    Args:
        bce_weight: factor of the cross-entropy.
        dice_weight: factor of the Dice loss.
        smooth: added above and below in the Dice score, so that an empty mask gives a finite score.
    """

    def __init__(self, bce_weight: float = 1.0, dice_weight: float = 1.0, smooth: float = 1e-6) -> None:
        super().__init__()
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.smooth = smooth

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the scalar loss of logits (B, H, W) against bool masks (B, H, W)."""
        logits = _float(logits, masks)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, masks.float())
        dice = _dice(torch.sigmoid(logits), masks, self.smooth).mean()
        return self.bce_weight * cross_entropy + self.dice_weight * dice


def _dice(probability: Tensor, truth: Tensor, smooth: float) -> Tensor:
    """Returns the Dice loss (B,) of one class from its probability and truth, both (B, H, W)."""
    overlap = (probability * truth).sum((1, 2))
    total = probability.sum((1, 2)) + truth.sum((1, 2))
    return 1 - (2 * overlap + smooth) / (total + smooth)


def _float(logits: Tensor, masks: Tensor) -> Tensor:
    # broadcasting (B,1,H,W) against (B,H,W) would train on every sample's mask at once without a word
    if logits.shape != masks.shape:
        raise S4ecaError(
            f"Loss got logits {tuple(logits.shape)} and masks {tuple(masks.shape)}: both must be (B, H, W)."
        )
    return logits.float()


def _known(reduction: str, *choices: str) -> str:
    if reduction not in choices:
        raise S4ecaError(f"Loss reduction '{reduction}' is unknown: use {' or '.join(choices)}.")
    return reduction
