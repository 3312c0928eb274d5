"""The LightningDataModule that every dataset's own derives from; those stand beside their readers."""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from s4eca.cache import DiskCache, readable
from s4eca.data.augmentation.transforms import Augmentation
from s4eca.data.dataset import Collate, ReferenceDataset, Tokenizer, token_lengths
from s4eca.data.masks import mask_fingerprint
from s4eca.data.rasters import DEPTHS
from s4eca.data.readers.checks import SPLITS, check_split
from s4eca.data.references import Reference
from s4eca.data.resize import RESIZERS
from s4eca.data.sampler import EpochSampler
from s4eca.data.targets import check_images, check_targets
from s4eca.data.train_share import check_share, draw_images
from s4eca.data.waiting import TimedLoader
from s4eca.data.workers import Unpacking, loading
from s4eca.errors import S4ecaError

_STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",)}


class ReferringDataModule(LightningDataModule):
    """Loads any dataset whose splits `read` can return; a new dataset overrides that one method.

    All randomness of a sample is a function of (seed, epoch, index): nothing depends on workers, on the global random
    state, or on where a run was interrupted.

    Args:
        root: the dataset's folder.
        tokenizer: a transformers fast tokenizer; may be assigned later, at the latest before a loader is used.
        image_size: side of image and mask in pixels, at the model's input.
        max_tokens: fixed length of the token rows, special tokens included.
        batch_size: training samples per process and step.
        eval_batch_size: the same for validation and test, `batch_size` where it is None.
        num_workers: loader processes; 0 loads in the main process.
        resize: `pil` or `torch`, see `resize_image`.
        depth: bits in use of images that have more than 8 per sample, of which the upper 8 are taken; 8 refuses them.
        augmentation: of training samples, None for none (the paper recipes).
        cache: folder that keeps resized samples from the first epoch on, for any number of runs and processes; None
            decodes every time. What it needs is printed, and compared with what the disk has, before it is filled.
        strict_counts: a split size other than the published one is an error instead of a warning.
        train_share: share of the training images that the train split keeps, in (0, 1]; whole images with all their
            expressions, drawn by `seed`, a smaller share within a larger one (see `draw_images`). Split sizes are
            compared with the published ones before that.
        seed: of the training order, the augmentation and the drawn share.
        pin_memory: page-locked batches, which travel to a GPU while it computes; off, with a warning, without one.

    Attributes:
        evaluated: the split that `test_dataloader` loads, so that any split can be evaluated through Lightning.
        keyed: the splits whose samples get an `image_key`, see `Sample`; set before a loader is made.
    """

    name: str = "referring"

    def __init__(
        self,
        *,
        root: str | Path,
        tokenizer: Tokenizer | None = None,
        image_size: int = 480,
        max_tokens: int = 20,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 2,
        resize: str = "pil",
        depth: int = 8,
        augmentation: Augmentation | None = None,
        cache: str | Path | None = None,
        strict_counts: bool = False,
        train_share: float = 1.0,
        seed: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.tokenizer = tokenizer
        self.image_size = _at_least(1, image_size, "image_size")
        self.max_tokens = _at_least(3, max_tokens, "max_tokens")  # two special tokens and a word
        self.batch_size = _at_least(1, batch_size, "batch_size")
        self.eval_batch_size = (
            batch_size if eval_batch_size is None else _at_least(1, eval_batch_size, "eval_batch_size")
        )
        self.num_workers = _at_least(0, num_workers, "num_workers")
        if resize not in RESIZERS:
            raise S4ecaError(f"There is no resizing {resize!r}: set data.resize to one of {', '.join(RESIZERS)}.")
        self.resize = resize
        if type(depth) is not int or depth not in DEPTHS:
            raise S4ecaError(
                f"data.depth={depth} is no number of bits that are read: set it to 8, or to how many bits are in use"
                f" where images have more, up to {DEPTHS[-1]}."
            )
        self.depth = depth
        self.augmentation = augmentation
        self.cache = None if cache is None else DiskCache(cache, "samples")
        self.strict_counts = strict_counts
        self.train_share = check_share(train_share)
        self.seed = _at_least(0, seed, "seed")
        self.pin_memory = pin_memory and torch.cuda.is_available()  # PyTorch would warn of every iterator anew
        if pin_memory and not self.pin_memory:
            warnings.warn("data.pin_memory=true does nothing here, where there is no GPU.", stacklevel=2)
        self.evaluated = "test"
        self.keyed: tuple[str, ...] = ()
        self._references: dict[str, list[Reference]] = {}
        self._drawn_from: list[Reference] = []
        self._checked_lengths: set[str] = set()
        self._looked_at: set[str] = set()
        self._planned: list[str] = []
        self._loader: TimedLoader | None = None
        self._transferring = 0.0

    def read(self, split: str) -> list[Reference]:
        """Returns the references of a split; the one method that a dataset has to provide."""
        raise NotImplementedError

    def references(self, split: str) -> list[Reference]:
        """Returns the references of `train`, of which `train_share` is left, `val` or `test`, read once."""
        check_split(split)
        if split not in self._references:
            found = self.read(split)
            if split == "train" and self.train_share < 1:
                self._drawn_from, found = found, draw_images(found, self.train_share, self.seed)
            self._references[split] = found
        return self._references[split]

    def replace(self, split: str, references: list[Reference]) -> None:
        """Puts other references in the place of a split's own, for experiments such as shuffled expressions."""
        check_split(split)
        self._references[split] = references

    def dataset(self, split: str, train: bool | None = None) -> ReferenceDataset:
        """Returns the samples of a split: augmented for training, with original masks for evaluation.

        Args:
            split: `train`, `val` or `test`.
            train: which of the two; None trains on `train` and evaluates on the others.
        """
        train = split == "train" if train is None else train
        augmentation = self.augmentation if train else None
        return ReferenceDataset(
            self.references(split),
            self.image_size,
            resize=self.resize,
            augmentation=augmentation if augmentation is not None and augmentation.active else None,
            seed=self.seed,
            keep_original=not train,
            cache=self.cache,
            keyed=split in self.keyed,
            depth=self.depth,
        )

    def word_ids(self, splits: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of all different expressions of some splits, as `Batch.word_ids` has them.

        Of the training split, every wording that the augmentation may give an expression.
        """
        tokenizer = self._require_tokenizer()
        rows = [(split, row.expression) for split in splits for row in self.references(split)]
        texts = list(dict.fromkeys(text for split, words in rows for text in self._wordings(split, words)))
        return tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []

    def _wordings(self, split: str, expression: str) -> list[str]:
        if split != "train" or self.augmentation is None:
            return [expression]
        return self.augmentation.wordings(expression)

    def fingerprint(self, splits: tuple[str, ...] = SPLITS) -> dict[str, dict[str, Any]]:
        """Returns what identifies the data: for each split its size and a hash, without opening an image.

        The hash covers, in order, each reference's id, image file name, expression, category, whether it is meant to
        name nothing, and mask annotation (the text of an RLE; name and size in bytes of a mask file); and `depth`,
        where it is not 8. Folders are not part of it. A share of the train split says what it was drawn from, which
        all seeds have in common.
        """
        result = {split: self._identify(self.references(split)) for split in splits}
        if "train" in splits and self._drawn_from:
            result["train"]["drawn_from"] = {**self._identify(self._drawn_from), "share": self.train_share}
        return result

    def _identify(self, references: Sequence[Reference]) -> dict[str, Any]:
        digest = hashlib.sha256(b"" if self.depth == 8 else f"depth {self.depth}".encode())
        for item in references:
            row = [item.id, item.image.name, item.expression, item.category, item.no_target]
            digest.update(json.dumps([*row, mask_fingerprint(item.mask)]).encode())
        return {"count": len(references), "sha256": digest.hexdigest()}

    def setup(self, stage: str | None = None) -> None:
        """Reads the splits of a stage, so that what is wrong with the data shows before training starts.

        Args:
            stage: `fit`, `validate` or `test` (the split `evaluated`); None reads all three splits.

        Raises:
            S4ecaError: a split cannot be read, one of a few images is of no kind that is read, or (nearly) all targets
                are empty.
        """
        splits = SPLITS if stage is None else {**_STAGE_SPLITS, "test": (self.evaluated,)}.get(stage, ())
        for split in splits:
            if split not in self._looked_at:
                check_images(self.references(split), self.depth)
                self.check_targets(split)
                self._looked_at.add(split)
            if self.tokenizer is not None:
                self._warn_truncated(split, self._require_tokenizer())
        self._plan_cache(splits)

    def check_targets(self, split: str) -> None:
        """Raises `S4ecaError` where (nearly) all targets of a split are empty, see `s4eca.data.targets`."""
        check_targets(self.references(split), f"The {split} split of {self.name} in {self.root}")

    @property
    def waited(self) -> float:
        """Seconds that training has waited for batches: for the loader, and until they were handed to the device."""
        return self._transferring + (self._loader.waited if self._loader is not None else 0.0)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Hands a batch to the device; from page-locked memory it is not waited for."""
        start = time.perf_counter()
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        self._transferring += time.perf_counter() - start
        return moved

    def train_dataloader(self) -> TimedLoader:
        """Returns the training loader: shuffled, the last incomplete batch dropped, resumable after any batch."""
        dataset = self.dataset("train")
        sampler = self._sampler(len(dataset), train=True)
        if len(sampler) < self.batch_size:
            raise S4ecaError(
                f"The train split has {len(sampler)} references per process, fewer than one batch of"
                f" {self.batch_size}: lower data.batch_size."
            )
        shared = self._loading(dataset, "train")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*set_vital")  # torchdata 0.11 with torch 2.14
            self._loader = TimedLoader(**shared, batch_size=self.batch_size, sampler=sampler, drop_last=True)
        return self._loader

    def val_dataloader(self) -> DataLoader:
        """Returns the validation loader: every reference once, in the dataset's order."""
        return self.evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        """Returns a loader over the split `evaluated`: every reference once, in the dataset's order."""
        return self.evaluation_loader(self.evaluated)

    def evaluation_loader(self, split: str) -> DataLoader:
        """Returns a loader over any split as it is evaluated: every reference once, in order, with original masks.

        Raises:
            S4ecaError: there are more processes than batches, and one would wait for the others in vain.
        """
        dataset = self.dataset(split, train=False)
        sampler = self._sampler(len(dataset), train=False)
        batches = -(-len(dataset) // self.eval_batch_size)
        if batches < sampler.num_replicas:
            raise S4ecaError(
                f"The {split} split has {batches} batches for {sampler.num_replicas} processes: evaluate it with"
                f" trainer.devices={max(batches, 1)} or fewer, or a smaller data.eval_batch_size."
            )
        return Unpacking(**self._loading(dataset, split), batch_size=self.eval_batch_size, sampler=sampler)

    def _sampler(self, length: int, train: bool) -> EpochSampler:
        trainer = self.trainer
        replicas, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
        block = 1 if train else self.eval_batch_size
        return EpochSampler(length, self.seed, train, num_replicas=replicas, rank=rank, even=train, block=block)

    def _loading(self, dataset: ReferenceDataset, split: str) -> dict[str, Any]:
        """Returns the arguments that all loaders share."""
        tokenizer = self._require_tokenizer()
        self._warn_truncated(split, tokenizer)
        self._plan_cache((split,))
        shared = loading(dataset, Collate(tokenizer, self.max_tokens), self.num_workers, self.seed)
        return {**shared, "pin_memory": self.pin_memory}

    def _require_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise S4ecaError(
                "The data module has no tokenizer: pass tokenizer=… or assign datamodule.tokenizer before it is used."
            )
        # one that has used threads would complain in every worker that is forked afterwards
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return self.tokenizer

    def _plan_cache(self, splits: tuple[str, ...]) -> None:
        """Says what the cache needs for splits that have not been asked for yet; raises where there is no room."""
        new = [split for split in splits if split not in self._planned]
        if self.cache is None or not new:
            return
        self._planned += new
        # with the splits asked for before: they may not have been filled yet and want room too
        references = [item for split in self._planned for item in self.references(split)]
        dataset = ReferenceDataset(references, self.image_size, resize=self.resize, depth=self.depth)
        plan = dataset.plan_cache(self.cache)
        if self.trainer is None or self.trainer.global_rank == 0:
            there = f"{plan.entries - plan.missing:,} of {plan.entries:,} samples ({', '.join(self._planned)})"
            more = f"; the others will take {readable(plan.needed)}, {readable(plan.free)} are free"
            print(f"cache {self.cache.folder}: {there} are there{more if plan.missing else ''}", flush=True)

    def _warn_truncated(self, split: str, tokenizer: Callable[..., Any]) -> None:
        if split in self._checked_lengths:
            return
        self._checked_lengths.add(split)
        # a turned image may take a longer sentence: "above" becomes "on the left of"
        lengths = token_lengths(self.references(split), tokenizer, self.augmentation if split == "train" else None)
        truncated = sum(length > self.max_tokens for length in lengths)
        if truncated:
            warnings.warn(
                f"{truncated} of {len(lengths)} expressions of the {split} split are longer than {self.max_tokens}"
                f" tokens (the longest has {max(lengths)}) and lose their end: raise data.max_tokens.",
                stacklevel=3,
            )


def _at_least(lowest: int, value: int, name: str) -> int:
    if type(value) is not int:
        raise S4ecaError(f"data.{name}={value} is no whole number: set it to {lowest} or more.")
    if value < lowest:
        raise S4ecaError(f"data.{name}={value} is too small: set it to {lowest} or more.")
    return value
