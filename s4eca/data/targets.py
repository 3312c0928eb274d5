"""A look at a few samples of a split, so that what all of them lack shows before compute is spent on it."""

from collections.abc import Sequence

import numpy as np

from s4eca.data.geometry import same_shape
from s4eca.data.images import open_image
from s4eca.data.masks import FileMask, RleMask, StoredMask
from s4eca.data.references import MaskSource, Reference
from s4eca.errors import S4ecaError

LOOKED_AT = 64
"""Targets of a split that are looked at, evenly spread, so that a large dataset costs no more than a small one."""
IMAGES_LOOKED_AT = 4


def mostly_empty(empty: int, looked_at: int) -> bool:
    """Returns whether so few targets have a pixel, under one in ten or none, that their masks must have been misread.

    >>> mostly_empty(1, 9), mostly_empty(58, 64), mostly_empty(1, 1), mostly_empty(0, 0)
    (False, True, True, False)
    """
    return empty > 0 and looked_at - empty <= looked_at // 10


def check_targets(references: Sequence[Reference], what: str) -> None:
    """Raises where (nearly) all targets of a split are empty that are not meant to be.

    Args:
        references: of the split.
        what: the split in words, to begin the message with.

    Raises:
        S4ecaError: they are, with the numbers and the first mask; or a mask that is looked at cannot be decoded.
    """
    meant = [item for item in references if not item.no_target]
    chosen = _spread(meant, LOOKED_AT)
    filled, empty = 0, []
    for item in chosen:
        if _covers(item.mask):
            filled += 1
            if not mostly_empty(len(chosen) - filled, len(chosen)):
                return
        else:
            empty.append(item)
    if empty:
        first = empty[0]
        raise S4ecaError(
            f"{what} has almost nothing to find: {len(empty)} of {len(chosen)} targets that were looked at are empty"
            f" (the first: reference {first.id}, {where(first.mask)}). Mend the masks, or mark as no_target what is"
            " meant to name nothing."
        )


def check_images(references: Sequence[Reference], depth: int) -> None:
    """Reads a few images, evenly spread; raises `S4ecaError` where one is of no kind that is read or not its mask's."""
    for item in _spread(references, IMAGES_LOOKED_AT):
        image = open_image(item.image, item.id, depth)
        decode_target(item, (image.height, image.width))


def decode_target(reference: Reference, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask (H, W) bool of a reference, whose image is of `size` = (height, width).

    Raises:
        S4ecaError: it cannot be decoded, or is of another shape, such as turned, and cannot be resized to its image.
    """
    mask = reference.mask.decode()
    height, width = mask.shape
    if not same_shape((height, width), size) and mask.any():
        raise S4ecaError(
            f"The mask of reference {reference.id} ({where(reference.mask)}) is {height}x{width} and its image"
            f" {reference.image} {size[0]}x{size[1]} (height x width): put the mask of this image in its place."
        )
    return mask


def where(mask: MaskSource) -> str:
    """Returns where a mask is stored, with the values in it where that is an image file."""
    if isinstance(mask, FileMask):
        return mask.seen()
    if isinstance(mask, StoredMask):
        return f"in {mask.file.path}"
    return f"in {mask.path}" if isinstance(mask, RleMask) and mask.path else "in its annotation"


def _spread(references: Sequence[Reference], count: int) -> list[Reference]:
    return [references[place] for place in np.linspace(0, len(references) - 1, min(count, len(references)), dtype=int)]


def _covers(mask: MaskSource) -> bool:
    return mask.covers() if isinstance(mask, (RleMask, StoredMask)) else bool(mask.decode().any())
