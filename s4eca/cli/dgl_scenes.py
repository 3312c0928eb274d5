"""What the commands of the training-free method go through: images with what is asked about them, on a device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.semantic.datamodule import SemanticDataModule, SemanticDataset
from s4eca.dgl_rsis.parts import View
from s4eca.errors import S4ecaError
from s4eca.lit.dgl_rsis import look


@dataclass(frozen=True)
class Scene:
    """An image and what is asked about it.

    Attributes:
        read: decodes it; for a view that the truth does not belong to, the truth of its first expression.
        expressions: about it; none in data with label maps.
    """

    read: Callable[[], View]
    expressions: list[str]


def list_scenes(data: ReferringDataModule | SemanticDataModule, split: str, by_sample: bool) -> list[Scene]:
    """Returns the images of a split with their expressions, in order.

    Args:
        data: of either kind.
        split: `train`, `val` or `test`.
        by_sample: every sample is a scene of its own, for a proposer that looks at the truth.
    """
    if isinstance(data, SemanticDataModule):
        items = SemanticDataset(data.images(split))
        return [
            Scene(lambda place=place, item=item: look(items[place].image, item.id), [])  # type: ignore[misc]
            for place, item in enumerate(items.items)
        ]
    data.prepare_data()
    dataset = data.dataset(split, train=False)
    places: dict[Any, list[int]] = {}
    for place, reference in enumerate(dataset.references):
        places.setdefault(place if by_sample else reference.image, []).append(place)

    def read(place: int) -> View:
        sample = dataset[place]
        return look(sample.image, dataset.references[place].image.stem, sample.mask)

    return [
        Scene(lambda place=group[0]: read(place), [dataset.references[place].expression for place in group])  # type: ignore[misc]
        for group in places.values()
    ]


def parse_shard(text: str) -> tuple[int, int]:
    """Returns i and n of `i/n`.

    Raises:
        S4ecaError: it is not that, or i is not below n.
    """
    first, _, every = str(text).partition("/")
    if not (first.isdecimal() and every.isdecimal() and int(first) < int(every)):
        raise S4ecaError(f"shard={text} is no part of a whole; write i/n with i from 0 to n - 1, as shard=0/4.")
    return int(first), int(every)


def device_of(accelerator: str) -> torch.device:
    """Returns the device of `auto`, `cpu` or `cuda`.

    Raises:
        S4ecaError: another word, or a GPU that is not there.
    """
    if accelerator not in ("auto", "cpu", "cuda"):
        raise S4ecaError(f"accelerator={accelerator} is none of auto, cpu, cuda.")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise S4ecaError("accelerator=cuda, and PyTorch finds no GPU; use accelerator=cpu.")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
