"""What flows out of a semantic reader: images with a label map, as files and decoded."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

IGNORED = 255
"""The label of pixels that no score counts."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image and its label map, as files; nothing is decoded.

    Attributes:
        id: name of the image file without its suffix; unique within a split.
        image: path of the image.
        split: `train`, `val` or `test`.
        labels: path of the label map; None where the split has none.
        coloured: the label map holds the classes' colours, not their ids.
    """

    id: str
    image: Path
    split: str
    labels: Path | None
    coloured: bool


@dataclass
class SemanticSample:
    """One image, decoded, at its own size.

    Attributes:
        index: position in the split as it is evaluated.
        id: as in `LabelledImage`.
        image: (3, H, W) uint8, RGB.
        labels: (H, W) uint8, class ids and `IGNORED`; None where the split has none.
    """

    index: int
    id: str
    image: Tensor
    labels: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[1], self.image.shape[2]
