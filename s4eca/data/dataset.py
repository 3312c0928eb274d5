"""References become Samples, Samples become Batches."""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch.utils.data import Dataset, default_collate

from s4eca.cache import DiskCache, Plan, digest
from s4eca.data.augmentation.transforms import Augmentation
from s4eca.data.augmentation.turns import Turn
from s4eca.data.images import open_image
from s4eca.data.masks import FileMask, mask_fingerprint
from s4eca.data.references import Batch, Reference, Sample
from s4eca.data.resize import fit_mask, resize_image, resize_mask
from s4eca.data.targets import decode_target
from s4eca.errors import S4ecaError
from s4eca.sharing import find_shared

Tokenizer = Callable[..., Any]

_CONTENT_VERSION = 1  # raise it when decoding or resizing of images gives other values
_MASK_VERSION = 2  # the same of masks


@dataclass(frozen=True)
class Resized:
    """What is the same for a reference in every epoch, and so worth keeping.

    Attributes:
        image: (3, S, S) uint8.
        mask: (S, S) bool.
        size: (height, width) of the image file.
        mask_size: (height, width) of the mask as it is stored.
    """

    image: np.ndarray
    mask: np.ndarray
    size: tuple[int, int]
    mask_size: tuple[int, int]

    def pack(self) -> dict[str, np.ndarray]:
        """Returns arrays for a cache; the mask takes a bit per pixel."""
        return {
            "image": self.image,
            "mask": np.packbits(self.mask),
            "sizes": np.array([self.size, self.mask_size]),
        }

    @classmethod
    def unpack(cls, arrays: Mapping[str, np.ndarray]) -> "Resized":
        """Undoes `pack`."""
        image = arrays["image"]
        side = image.shape[1]
        mask = np.unpackbits(arrays["mask"], count=side * side).reshape(side, side).view(bool)
        (height, width), (mask_height, mask_width) = arrays["sizes"].tolist()
        return cls(image, mask, (height, width), (mask_height, mask_width))


class ReferenceDataset(Dataset[Sample]):
    """Decodes references one at a time, or takes them resized from a cache.

    Augmentation comes after the cache, and a cached sample equals the decoded one bit for bit. The cache's key holds a
    hash of the image file's content (and of the mask's, where it is a file), the annotation of the mask, what is done
    to both, and the versions of the libraries that do it; where the files lie is no part of it.

    Args:
        references: what a reader returned.
        image_size: side of image and mask in pixels, at the model's input.
        resize: `pil` or `torch`, see `resize_image`.
        augmentation: changes image, mask and expression together; None while evaluating.
        seed: of the augmentation, together with epoch and index.
        keep_original: also return the mask at the image file's size, as evaluation needs it; it is never cached, since
            decoding it is cheap.
        cache: of resized samples; None decodes every time.
        keyed: samples get their `image_key`, for which every image file is read once more.
        depth: bits in use of images that have more than 8 per sample, see `open_image`.
    """

    def __init__(
        self,
        references: Sequence[Reference],
        image_size: int,
        resize: str = "pil",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        keep_original: bool = False,
        cache: DiskCache | None = None,
        keyed: bool = False,
        depth: int = 8,
    ) -> None:
        self.references = references
        self.image_size = image_size
        self.resize = resize
        self.augmentation = augmentation
        self.seed = seed
        self.keep_original = keep_original
        self.cache = cache
        self.keyed = keyed
        self.depth = depth
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
        entry = None if self.cache is None else self.cache_key(reference)
        if self.cache is None or entry is None:
            resized, original = self._decode(reference)
        else:
            cached = self.cache.get(entry)
            if cached is None:
                resized, original = self._decode(reference)
                self.cache.put(entry, resized.pack())
            else:
                resized = Resized.unpack(cached)
                original = None
                if self.keep_original:
                    original = np.ascontiguousarray(fit_mask(decode_target(reference, resized.size), resized.size))
        if resized.mask_size != resized.size:
            self._warn(reference, resized)
        image, mask = torch.from_numpy(resized.image), torch.from_numpy(resized.mask)
        expression, turn = reference.expression, Turn.IDENTITY
        if self.augmentation is not None:
            image, mask, expression, turn = self.augmentation(image, mask, expression, self.seed, epoch, index)
        return Sample(
            index=index,
            id=reference.id,
            expression=expression,
            category=reference.category,
            image=image,
            mask=mask,
            original_size=resized.size,
            original_mask=torch.from_numpy(original) if original is not None else None,
            no_target=reference.no_target,
            kind=reference.kind,
            image_key=self.image_key(reference) if self.keyed and self._keeps_features else None,
            turn=turn,
            file=reference.image,
        )

    @property
    def _keeps_features(self) -> bool:
        return self.augmentation is None or self.augmentation.turn_features

    def image_key(self, reference: Reference) -> str | None:
        """Returns what names the image of a sample as it is before augmentation; None where the file is missing."""
        try:
            file = content_hash(reference.image)
        except OSError:
            return None
        return digest(
            content=_CONTENT_VERSION,
            libraries=[PIL.__version__, torch.__version__],
            file=file,
            image_size=self.image_size,
            resize=self.resize,
            **({"depth": self.depth} if self.depth != 8 else {}),
        )

    def cache_key(self, reference: Reference) -> str | None:
        """Returns what a resized sample is kept under; None where a file is missing, which decoding will report."""
        mask = reference.mask
        try:
            files = [content_hash(reference.image)]
            if isinstance(mask, FileMask):
                files.append(content_hash(mask.path))
            annotation = mask_fingerprint(mask)
        except OSError:
            return None
        return digest(
            content=[_CONTENT_VERSION, _MASK_VERSION],
            libraries=[PIL.__version__, torch.__version__],
            files=files,
            mask=annotation,
            image_size=self.image_size,
            resize=self.resize,
            depth=self.depth,
        )

    def plan_cache(self, cache: DiskCache) -> Plan:
        """Returns what filling a cache with this dataset takes; raises `S4ecaError` where there is no room for it."""
        keys = [key for key in map(self.cache_key, self.references) if key is not None]
        side = self.image_size
        example = Resized(np.zeros((3, side, side), np.uint8), np.zeros((side, side), bool), (side, side), (side, side))
        return cache.plan(keys, example.pack())

    def _decode(self, reference: Reference) -> tuple[Resized, np.ndarray | None]:
        """Returns a reference resized and, if it is kept, the mask at the image's size."""
        picture = open_image(reference.image, reference.id, self.depth)
        size = (picture.height, picture.width)
        mask = decode_target(reference, size)
        mask_size = (mask.shape[0], mask.shape[1])
        # by way of the image's size, which matters where the two differ
        fitted = fit_mask(mask, size)
        small = resize_mask(fitted, (self.image_size, self.image_size))
        image = resize_image(picture, self.image_size, self.resize).numpy()
        return Resized(image, small, size, mask_size), np.ascontiguousarray(fitted) if self.keep_original else None

    def _warn(self, reference: Reference, resized: Resized) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(
            f"The mask of reference {reference.id} is {resized.mask_size[0]}x{resized.mask_size[1]} pixels and its"
            f" image {reference.image} {resized.size[0]}x{resized.size[1]} (height x width): this mask, and any other"
            " like it, is resized to its image.",
            stacklevel=3,
        )


def content_hash(path: Path) -> str:
    """Returns a hash of a file's bytes; raises OSError where it is missing.

    A process reads a file once for it, and again when size or times of the file have changed. Writing changes the
    status time even where a file's own time is set back.
    """
    status = path.stat()
    return _hash(str(path), (status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@cache  # workers are forked after the cache was planned, and have what the main process has read
def _hash(path: str, stamp: tuple[int, int, int]) -> str:  # noqa: ARG001
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


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
        pairs = zip(tokens["input_ids"].tolist(), tokens["attention_mask"].tolist(), strict=True)
        rows = [(tuple(ids), tuple(mask)) for ids, mask in pairs]
        return Batch(
            index=torch.tensor([sample.index for sample in samples]),
            # unlike torch.stack it writes into shared memory in a worker, which saves a copy
            image=default_collate([sample.image for sample in samples]),
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            mask=default_collate([sample.mask for sample in samples]),
            ids=[sample.id for sample in samples],
            expressions=expressions,
            categories=[sample.category for sample in samples],
            original_sizes=[sample.original_size for sample in samples],
            no_target=[sample.no_target for sample in samples],
            original_masks=[sample.original_mask for sample in samples if sample.original_mask is not None],
            kinds=[sample.kind for sample in samples],
            image_keys=[sample.image_key for sample in samples],
            turns=[sample.turn for sample in samples],
            word_ids=[[id for id, real in zip(*row, strict=True) if real] for row in rows],
            shared=find_shared(rows, [sample.file for sample in samples], [sample.image for sample in samples]),
        )


def token_lengths(
    references: Sequence[Reference], tokenizer: Tokenizer, augmentation: Augmentation | None = None
) -> list[int]:
    """Returns the number of tokens of each expression, special tokens included; of its longest wording if augmented."""
    wordings = {
        expression: augmentation.wordings(expression) if augmentation else [expression]
        for expression in dict.fromkeys(reference.expression for reference in references)
    }
    texts = list(dict.fromkeys(text for words in wordings.values() for text in words))
    ids = tokenizer(texts)["input_ids"] if texts else []
    lengths = {text: len(row) for text, row in zip(texts, ids, strict=True)}
    return [max(lengths[text] for text in wordings[reference.expression]) for reference in references]
