"""References become Samples, Samples become Batches."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from s4eca.data.references import Batch, Reference, Sample
from s4eca.data.resize import resize_image, resize_mask
from s4eca.data.transforms import Augmentation
from s4eca.errors import S4ecaError

Tokenizer = Callable[..., Any]

# What `convert("RGB")` maps without loss of range; 16-bit and float images would be clipped.
_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


class ReferenceDataset(Dataset[Sample]):
    """Decodes references one at a time.

    Args:
        references: what a reader returned.
        image_size: side of image and mask in pixels, at the model's input.
        resize: `pil` or `torch`, see `resize_image`.
        augmentation: changes image, mask and expression together; None while evaluating.
        seed: of the augmentation, together with epoch and index.
        keep_original: also return the mask at the image file's size, as evaluation needs it.
    """

    def __init__(
        self,
        references: Sequence[Reference],
        image_size: int,
        resize: str = "pil",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        keep_original: bool = False,
    ) -> None:
        self.references = references
        self.image_size = image_size
        self.resize = resize
        self.augmentation = augmentation
        self.seed = seed
        self.keep_original = keep_original
        self._warned = False

    def __len__(self) -> int:
        return len(self.references)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Returns a sample by index (epoch 0) or by the sampler's key (epoch, index).

        Raises:
            S4ecaError: the image or the mask cannot be decoded; nothing is ever put in its place.
        """
        epoch, index = (0, key) if isinstance(key, int) else key
        reference = self.references[index]
        array = read_image(reference.image, reference.id)
        mask = self._fit(reference.mask.decode(), array, reference)
        image = resize_image(array, self.image_size, self.resize)
        small = torch.from_numpy(resize_mask(mask, (self.image_size, self.image_size)))
        expression = reference.expression
        if self.augmentation is not None:
            image, small, expression = self.augmentation(image, small, expression, self.seed, epoch, index)
        return Sample(
            index=index,
            id=reference.id,
            expression=expression,
            category=reference.category,
            image=image,
            mask=small,
            original_size=(array.shape[0], array.shape[1]),
            original_mask=torch.from_numpy(mask) if self.keep_original else None,
            no_target=reference.no_target,
        )

    def _fit(self, mask: np.ndarray, array: np.ndarray, reference: Reference) -> np.ndarray:
        """Brings a mask to its image's size; in RRSIS-D they differ for 09976 and 15324 (RMSIN issue 12)."""
        size = (array.shape[0], array.shape[1])
        if mask.shape == size:
            return np.ascontiguousarray(mask)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"The mask of reference {reference.id} is {mask.shape[0]}x{mask.shape[1]} pixels and its image"
                f" {reference.image} {size[0]}x{size[1]} (height x width): this mask, and any other like it, is resized"
                " to its image.",
                stacklevel=2,
            )
        return resize_mask(mask, size)


def read_image(path: Path, id: str = "") -> np.ndarray:
    """Reads an image as (H, W, 3) uint8 RGB; EXIF orientation is ignored, as the masks were drawn without it.

    Raises:
        S4ecaError: the file is missing, damaged, or has more than 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _EIGHT_BIT_MODES:
                raise S4ecaError(
                    f"The image of reference {id} in {path} has mode {image.mode}: convert it to 8 bits per channel."
                )
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise S4ecaError(
            f"The image of reference {id} in {path} cannot be decoded ({error}): replace the file with a whole copy."
        ) from error


class Collate:
    """Stacks samples and tokenises their expressions to a fixed length, so that compiled models see one shape.

    Args:
        tokenizer: a transformers fast tokenizer, or anything that is called like one.
        max_tokens: length of every row, special tokens included; longer expressions lose their end (not `[SEP]`).
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        if getattr(tokenizer, "pad_token", "") is None:
            raise S4ecaError("The tokenizer has no padding token: set tokenizer.pad_token before it is used.")
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Returns the samples as one batch, in their order."""
        expressions = [sample.expression for sample in samples]
        tokens = self.tokenizer(
            expressions, padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        return Batch(
            index=torch.tensor([sample.index for sample in samples]),
            image=torch.stack([sample.image for sample in samples]),
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            mask=torch.stack([sample.mask for sample in samples]),
            ids=[sample.id for sample in samples],
            expressions=expressions,
            categories=[sample.category for sample in samples],
            original_sizes=[sample.original_size for sample in samples],
            no_target=[sample.no_target for sample in samples],
            original_masks=[sample.original_mask for sample in samples if sample.original_mask is not None],
        )


def token_lengths(references: Sequence[Reference], tokenizer: Tokenizer) -> list[int]:
    """Returns the number of tokens of each expression, special tokens included."""
    expressions = list(dict.fromkeys(reference.expression for reference in references))
    ids = tokenizer(expressions)["input_ids"] if expressions else []
    lengths = {expression: len(row) for expression, row in zip(expressions, ids, strict=True)}
    return [lengths[reference.expression] for reference in references]


def count_truncated(references: Sequence[Reference], tokenizer: Tokenizer, max_tokens: int) -> int:
    """Returns how many expressions would lose words at `max_tokens`."""
    return sum(length > max_tokens for length in token_lengths(references, tokenizer))
