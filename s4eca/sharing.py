"""What samples of a batch have in common: equal expressions and equal images, and the rows that stand for them.

`Collate` finds them in the loader's worker and puts small index tensors into the batch, so that nobody has to ask the
device later. What the runner does with them is in `s4eca/walking.py`.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Which rows of a batch are equal.

    Attributes:
        first: (U,) int64, for each different row the place where it stands first, ascending.
        group: (B,) int64, for each row of the batch which of the U it equals.
    """

    first: Tensor
    group: Tensor

    def join(self, rows: Tensor) -> Tensor:
        """Returns the different ones (U, ...) of (B, ...)."""
        return rows.index_select(0, self.first)

    def spread(self, joined: Tensor) -> Tensor:
        """Returns rows (B, ...) again from (U, ...)."""
        return joined.index_select(0, self.group)


@dataclass(frozen=True)
class Shared:
    """Equal rows of a batch; None where all are different.

    Attributes:
        words: samples whose expressions are the same tokens.
        images: samples whose images are the same pixels.
    """

    words: Rows | None = None
    images: Rows | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Shared":
        """Returns the same with a function applied to every tensor, such as a copy to a device."""
        return Shared(
            *(rows and Rows(function(rows.first), function(rows.group)) for rows in (self.words, self.images))
        )


def find_shared(words: Sequence[Hashable], files: Sequence[Hashable | None], images: Sequence[Tensor]) -> Shared | None:
    """Returns what B samples have in common, None where it is nothing.

    Args:
        words: what an expression is known by.
        files: where an image comes from; None for one that is compared with no other.
        images: pixels, which are compared where the file is the same: an augmentation may have changed them.
    """
    equal_words = _rows([words.index(key) for key in words])
    places: list[int] = []
    for place, (file, image) in enumerate(zip(files, images, strict=True)):
        twins = (other for other in range(place) if files[other] == file and torch.equal(images[other], image))
        places.append(place if file is None else next(twins, place))
    equal_images = _rows(places)
    return Shared(equal_words, equal_images) if equal_words or equal_images else None


def _rows(places: list[int]) -> Rows | None:
    """Returns rows from the place of each row's first equal, None where each is its own."""
    first = sorted(set(places))
    if len(first) == len(places):
        return None
    return Rows(torch.tensor(first), torch.tensor([first.index(place) for place in places]))
