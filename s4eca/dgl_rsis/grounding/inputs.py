"""What grounding models have in common: prompted rows of sub-tokens, square images, and maps of several sides."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from s4eca.dgl_rsis.parts import Maps, Span
from s4eca.errors import S4ecaError


@dataclass(frozen=True, eq=False)
class Rows:
    """Prompted texts as a model reads them.

    Attributes:
        ids: (B, L) int64, padded on the right.
        mask: (B, L) int64, 0 where padded.
        offsets: of each row, the characters of each sub-token in the prompted text.
    """

    ids: Tensor
    mask: Tensor
    offsets: list[list[Span]]


def check_template(template: str) -> int:
    """Returns at which character of a prompted text the text itself begins.

    Raises:
        S4ecaError: the template has not exactly one `{}`.
    """
    if not isinstance(template, str) or template.count("{}") != 1:
        raise S4ecaError(f"grounding.template={template!r} must hold {{}} once, where the expression goes; add it.")
    return template.index("{}")


def check_sides(sides: Sequence[int] | None, image_size: int, patch_size: int) -> tuple[int, ...]:
    """Returns the sides that images are read at, the model's own where none are given.

    Raises:
        S4ecaError: no side, one twice, or one that is no multiple of the patch.
    """
    chosen = (image_size,) if sides is None else tuple(sides)
    if not chosen or len(set(chosen)) < len(chosen):
        raise S4ecaError(f"grounding.input_sides={list(chosen)} must name at least one side, and each once.")
    for side in chosen:
        if side <= 0 or side % patch_size:
            raise S4ecaError(
                f"grounding.input_sides has {side}, which is no multiple of the model's patch of {patch_size} pixels;"
                f" give for example {max(1, round(side / patch_size)) * patch_size}."
            )
    return chosen


def tokenise(tokenizer: PreTrainedTokenizerBase, template: str, texts: Sequence[str], max_tokens: int) -> Rows:
    """Returns texts as padded rows; what is longer than `max_tokens` is cut, with one warning that says how many."""
    batch = tokenizer(
        [template.replace("{}", text) for text in texts],
        padding="longest",
        padding_side="right",
        truncation=True,
        max_length=max_tokens,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    cut = [text for text, row in zip(texts, batch.encodings or (), strict=True) if row.overflowing]
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(texts)} texts are longer than the {max_tokens} sub-tokens that the grounding"
            f" model reads and are cut, the first being {cut[0]!r}.",
            stacklevel=2,
        )
    offsets = [[(start, end) for start, end in row] for row in batch["offset_mapping"].tolist()]
    return Rows(batch["input_ids"], batch["attention_mask"], offsets)


def prepare(image: np.ndarray, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Returns an image (H, W, 3) uint8 as (1, 3, side, side) float32: bicubic, aspect ratio ignored, normalised.

    Nothing is cropped away, so that the grid of patches covers the whole image.
    """
    resized = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(resized.transpose(2, 0, 1).astype(np.float32) / 255)
    return ((pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[None]


def merge_sides(found: Sequence[Maps]) -> Maps:
    """Averages the maps that one expression has at several input sides, on the largest of their grids.

    Attention over four times as many patches gives each about a quarter; a map is therefore divided by how many cells
    of the largest grid one of its own covers, before it is upsampled (bilinear). Our choice, so that no side outweighs
    another. The score is the mean over the sides.
    """
    if len(found) == 1:
        return found[0]
    grid = max((maps.whole.shape for maps in found), key=lambda shape: shape[0] * shape[1])

    def mean(name: str) -> np.ndarray:
        total = torch.zeros(1, 1, *grid)
        for maps in found:
            values = torch.from_numpy(np.ascontiguousarray(getattr(maps, name)))[None, None]
            share = values.numel() / (grid[0] * grid[1])
            total += share * F.interpolate(values, size=grid, mode="bilinear", align_corners=False)
        return (total / len(found))[0, 0].numpy()

    score = sum(maps.score for maps in found) / len(found)
    return Maps(mean("local"), mean("context"), mean("whole"), mean("average"), score)
