"""What flows out of the readers and into the model: References, Samples and Batches."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from s4eca.data.augmentation.turns import Turn
from s4eca.sharing import Shared


class MaskSource(Protocol):
    """Where a mask comes from; nothing is decoded before `decode` is called."""

    def decode(self) -> np.ndarray:
        """Returns the mask as a bool array (H, W); raises `S4ecaError` where it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """One expression and the region it names, as a dataset's files describe it.

    Attributes:
        id: unique within the dataset.
        image: path of the image file.
        expression: as written in the dataset, surrounding white space removed.
        split: `train`, `val` or `test`.
        category: the target's class name, None where the dataset has none.
        mask: decoded when asked, never held for a whole split.
        no_target: the expression names nothing in the image on purpose (gRefCOCO, NWPU-Refer), so the mask is empty.
            An empty mask without it is a defect of the annotation.
        kind: of the expression, such as `place` or `relation`, None where the dataset says none.
    """

    id: str
    image: Path
    expression: str
    split: str
    category: str | None
    mask: MaskSource
    no_target: bool = False
    kind: str | None = None


@dataclass
class Sample:
    """One reference, decoded.

    Attributes:
        index: position in the dataset; the integer id of the metrics' rows.
        image: (3, H, W) uint8, RGB, at model input size.
        mask: (H, W) bool, at model input size.
        original_size: (height, width) of the image file.
        original_mask: bool at `original_size`; None while training.
        no_target: see `Reference`.
        kind: see `Reference`.
        image_key: names the upright image's pixels at model input size; None where nobody asked, or where more than its
            direction was augmented.
        turn: what `image` and `mask` were turned by.
        file: of the image; samples with the same one may have the same pixels.
    """

    index: int
    id: str
    expression: str
    category: str | None
    image: Tensor
    mask: Tensor
    original_size: tuple[int, int]
    original_mask: Tensor | None = None
    no_target: bool = False
    kind: str | None = None
    image_key: str | None = None
    turn: Turn = Turn.IDENTITY
    file: Path | None = None


@dataclass
class Batch:
    """Samples stacked for the model.

    Attributes:
        index: (B,) int64, positions in the dataset.
        image: (B, 3, H, W) uint8; the vision tower normalises.
        input_ids: (B, L) int64, padded to the fixed length `max_tokens`.
        attention_mask: (B, L) int64, 1 for words.
        mask: (B, H, W) bool.
        original_sizes: B pairs of (height, width).
        original_masks: B bool tensors at original size, empty while training.
        no_target: B flags, see `Reference`.
        kinds: B kinds of expressions, see `Reference`.
        image_keys: B keys, see `Sample`.
        turns: B turns, see `Sample`; empty where nothing was turned on purpose.
        word_ids: `input_ids` without padding, as plain numbers: reading them waits for no device.
        shared: which samples have the expression or the image in common; None where all are different.
    """

    index: Tensor
    image: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    mask: Tensor
    ids: list[str]
    expressions: list[str]
    categories: list[str | None]
    original_sizes: list[tuple[int, int]]
    no_target: list[bool]
    original_masks: list[Tensor] = field(default_factory=list)
    kinds: list[str | None] = field(default_factory=list)
    image_keys: list[str | None] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    word_ids: list[list[int]] = field(default_factory=list)
    shared: Shared | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Batch":
        """Returns the batch with its tensors on `device`; Lightning's transfer calls this.

        The copy is not waited for, which saves time where the batch is in page-locked memory and is safe in any case.
        """
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Returns the batch in page-locked memory; PyTorch's loaders call this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Any) -> "Batch":
        values: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                value = function(value)
            elif item.name == "original_masks":
                value = [function(mask) for mask in value]
            elif isinstance(value, Shared):
                value = value.map(function)
            values[item.name] = value
        return Batch(**values)
