"""Open-vocabulary segmentation: a label of every pixel from the classes of the masks that cover it."""

import numpy as np

from s4eca.dgl_rsis.parts import Proposals
from s4eca.errors import S4ecaError

_BLOCK = 1 << 14  # pixels at a time, a multiple of 8: 7 MB of float32 for 100 masks


def label_map(
    probabilities: np.ndarray,
    proposals: Proposals,
    n_background: int,
    *,
    weights: np.ndarray | None = None,
    threshold: float = 0.4,
    background_label: int = 0,
) -> np.ndarray:
    """Returns a label of each pixel (H, W) uint8: c + 1 for class c, so that iSAID's classes have its own ids.

    The score of class c at pixel x is `Σ_k q_k p_kc M_k(x) / (Σ_k q_k M_k(x) + 1e-6)`, and the highest wins, the first
    of equal ones. A pixel is background where no mask covers it, where the highest score is below the threshold (0.4 as
    in SegEarth-OV), or where a background prompt wins. The paper's own rule is not known; this is our reconstruction.

    Args:
        probabilities: p (K, C) of each proposal, the background prompts' columns last.
        proposals: K of them.
        n_background: how many columns are background prompts.
        weights: q (K,), ≥ 0; None takes the proposer's scores.
        threshold: least score of a class, from 0 to 1.
        background_label: of the background, no class's label.

    Raises:
        S4ecaError: a threshold or a background label out of range, a negative weight, or more than 254 classes.
    """
    n_classes = probabilities.shape[1] - n_background
    quality = np.asarray(proposals.scores if weights is None else weights, np.float32)
    _check(probabilities, quality, proposals, n_classes, threshold, background_label)
    height, width = proposals.size
    labels = np.full(height * width, background_label, np.uint8)
    if not len(proposals):
        return labels.reshape(height, width)
    # a row for each class and, the last, one for what they are divided by: a single product gives all
    factors = np.column_stack([probabilities, np.ones(len(proposals))]) * quality[:, None]
    factors = np.ascontiguousarray(factors.T, np.float32)
    label_of = np.full(probabilities.shape[1], background_label, np.uint8)
    label_of[:n_classes] = np.arange(1, n_classes + 1)
    for start in range(0, height * width, _BLOCK):
        stop = min(start + _BLOCK, height * width)
        covers = np.unpackbits(proposals.bits[:, start // 8 : -(-stop // 8)], axis=1, count=stop - start)
        sums = factors @ covers.astype(np.float32)
        best = sums[:-1].argmax(axis=0)
        sure = (sums[:-1].max(axis=0) >= threshold * (sums[-1] + 1e-6)) & (sums[-1] > 0)
        labels[start:stop] = np.where(sure, label_of[best], background_label)
    return labels.reshape(height, width)


def _check(
    probabilities: np.ndarray,
    quality: np.ndarray,
    proposals: Proposals,
    n_classes: int,
    threshold: float,
    background_label: int,
) -> None:
    if len(quality) != len(proposals) or len(probabilities) != len(proposals):
        raise ValueError(f"{len(probabilities)} probabilities, {len(quality)} weights, {len(proposals)} proposals")
    if not 0 <= threshold <= 1:
        raise S4ecaError(f"threshold={threshold} cannot be; give a number from 0 to 1.")
    if n_classes > 254:  # 255 means "ignore" in label maps
        raise S4ecaError(f"{n_classes} classes do not fit a label map of bytes; give the text bank 254 or fewer.")
    if not 0 <= background_label <= 255 or 1 <= background_label <= n_classes:
        raise S4ecaError(
            f"background_label={background_label} is a class's label or no byte; give 0, or {n_classes + 1} to 255."
        )
    if not (quality >= 0).all():
        raise S4ecaError("A proposal's weight is negative; label maps need proposers whose scores are 0 or more.")
