"""A part of the training images, for learning from fewer annotations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from s4eca.data.references import Reference
from s4eca.errors import S4ecaError


def check_share(value: Any) -> float:
    """Returns a share of the training images; raises `S4ecaError` unless it is above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise S4ecaError(
            f"data.train_share={value} is no share of the training images: set it above 0 and up to 1, as in 0.1."
        )
    return value


def draw_images(references: Sequence[Reference], share: float, seed: int) -> list[Reference]:
    """Returns the references of a share of the images, in their order.

    Whole images are drawn, with all their expressions, so that a smaller share means fewer images to annotate. The
    draw is a function of (images in order, seed), and of one seed a smaller share is a part of a larger one.

    Args:
        references: of the training split.
        share: of their images, rounded to a whole number of them, at least one.
        seed: of the draw.
    """
    images = list(dict.fromkeys(item.image for item in references))
    # a stream of its own: the order of an epoch is drawn from (seed, epoch)
    order = np.random.default_rng([seed, *b"train_share"]).permutation(len(images))
    drawn = {images[place] for place in order[: max(1, round(share * len(images)))]}
    return [item for item in references if item.image in drawn]
