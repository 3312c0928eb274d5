"""RMSIN's occlusion: black squares over some of the training images (arXiv:2312.12470, `dataset_refer_bert.py`)."""

import numpy as np
from torch import Tensor

_SIDE, _SCALE = 32, 800  # pixels of a square, in an image of this side
_FEWEST, _MOST = 20, 60


def is_occluded(share: float, seed: int, index: int) -> bool:
    """Returns whether a training sample is one of those that are occluded, in every epoch of the run.

    RMSIN draws exactly `int(0.2 · N)` references when the dataset is built. Here each is drawn for itself, so that the
    choice needs no list: with N samples the share has a standard deviation of sqrt(share · (1 - share) / N), 0.4 points
    on RRSIS-D.
    """
    return bool(np.random.default_rng([seed, index, 0, 3]).random() < share)


def occlude(image: Tensor, seed: int, epoch: int, index: int) -> Tensor:
    """Returns a copy of an image (3, S, S) uint8 with 20 to 60 black squares.

    As in RMSIN the squares lie elsewhere each time the image is read, wholly inside it, and may overlap. RMSIN draws
    them before the image is resized; here their side of 32 pixels at 800 is scaled to the model's input (19 at 480) and
    rounded, so that their edges stay sharp. The mask is not touched: what is covered still has to be found.
    """
    rng = np.random.default_rng([seed, epoch, index, 2])
    size = image.shape[-1]
    side = max(1, round(_SIDE * size / _SCALE))
    image = image.clone()
    count = rng.integers(_FEWEST, _MOST, endpoint=True)
    for top, left in rng.integers(0, size - side, size=(count, 2), endpoint=True):
        image[:, top : top + side, left : left + side] = 0
    return image
