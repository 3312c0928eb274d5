"""The LightningDataModule of semantic segmentation: images of any size with their label maps, for evaluation."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from s4eca.data.images import read_image
from s4eca.data.readers.checks import check_split
from s4eca.data.sampler import EpochSampler
from s4eca.data.semantic.isaid import read_isaid
from s4eca.data.semantic.labelled import LabelledImage, SemanticSample
from s4eca.data.semantic.palette import ISAID_CLASSES, ISAID_LABELS, read_labels
from s4eca.data.workers import Unpacking, loading
from s4eca.errors import S4ecaError


class SemanticDataset(Dataset[SemanticSample]):
    """Decodes labelled images one at a time, at their own size."""

    def __init__(self, items: list[LabelledImage]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | tuple[int, int]) -> SemanticSample:
        """Returns a sample by index or by the sampler's key (epoch, index).

        Raises:
            S4ecaError: image or label map cannot be decoded, or their sizes differ.
        """
        index = key if isinstance(key, int) else key[1]
        item = self.items[index]
        image, labels = read_image(item.image, item.id), read_labels(item)
        if labels is not None and labels.shape != image.shape[:2]:
            raise S4ecaError(
                f"The label map {item.labels} has {labels.shape} pixels and its image {image.shape[:2]} (height,"
                " width): replace both with whole copies."
            )
        return SemanticSample(
            index=index,
            id=item.id,
            image=torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0))),
            labels=None if labels is None else torch.from_numpy(labels),
        )


class SemanticDataModule(LightningDataModule):
    """Loads iSAID for methods that need no training; a batch is a list of samples, since their sizes may differ.

    The patches are what papers score (see `s4eca.data.semantic.patches`). Whole scenes are accepted too; they have up
    to tens of millions of pixels.

    Args:
        root: the dataset's folder, see `read_isaid`.
        batch_size: images per process and step.
        num_workers: loader processes; 0 loads in the main process.
        limit: score so many images of the split only, drawn by `seed`; None takes all. A smaller limit takes a part of
            what a larger one takes. `facts` says it, and the report prints it.
        strict_counts: a number of images other than the published one is an error instead of a warning.
        seed: of the images that `limit` draws.

    Attributes:
        evaluated: the split that `test_dataloader` and `predict_dataloader` load; `val`, as `test` has no labels.
        classes: names of the 15 classes of objects; class k of the label maps is at k - 1.
        labels: names of all 16 labels in the order of their ids, background first.
    """

    name = "isaid"
    classes = ISAID_CLASSES
    labels = ISAID_LABELS

    def __init__(
        self,
        *,
        root: str | Path,
        batch_size: int = 1,
        num_workers: int = 2,
        limit: int | None = None,
        strict_counts: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size = _at_least(1, batch_size, "batch_size")
        self.num_workers = _at_least(0, num_workers, "num_workers")
        self.limit = None if limit is None else _at_least(1, limit, "limit")
        self.strict_counts = strict_counts
        self.seed = _at_least(0, seed, "seed")
        self.evaluated = "val"
        self._read: dict[str, list[LabelledImage]] = {}

    def images(self, split: str) -> list[LabelledImage]:
        """Returns the images of a split that are evaluated: all, or those that `limit` draws; in the split's order."""
        items = self._whole(split)
        if self.limit is None or self.limit >= len(items):
            return items
        chosen = np.random.default_rng(self.seed).permutation(len(items))[: self.limit]
        return [items[place] for place in sorted(chosen.tolist())]

    def facts(self) -> dict[str, Any]:
        """Returns what a report's `about` says of the data: dataset, split, layout, and the subset if it is one."""
        items = self.images(self.evaluated)
        facts: dict[str, Any] = {
            "dataset": self.name,
            "split": self.evaluated,
            "layout": "whole scenes" if items[0].coloured else "patches",
        }
        if len(items) < len(self._whole(self.evaluated)):
            facts["subset"] = {"images": len(items), "of": len(self._whole(self.evaluated)), "seed": self.seed}
        return facts

    def fingerprint(self) -> dict[str, dict[str, Any]]:
        """Returns what identifies the evaluated images: their number and a hash, without opening one.

        The hash covers, in order, each id, the size in bytes of the image file and that of the label file.
        """
        items, hashed = self.images(self.evaluated), hashlib.sha256()
        for item in items:
            sizes = [path.stat().st_size if path is not None else None for path in (item.image, item.labels)]
            hashed.update(json.dumps([item.id, *sizes]).encode())
        return {self.evaluated: {"count": len(items), "sha256": hashed.hexdigest()}}

    def setup(self, stage: str | None = None) -> None:
        """Reads the evaluated split, so that what is wrong with the files shows before a model is asked.

        Raises:
            S4ecaError: files are missing, the split has no labels to test against, or training is asked for.
        """
        if stage == "fit":
            raise S4ecaError("iSAID is evaluated without training here: use eval.py with data=isaid.")
        if stage in ("test", "validate"):
            self._require_labels()
        self.images(self.evaluated)

    def val_dataloader(self) -> DataLoader:
        """Returns the same loader as `test_dataloader`."""
        return self.test_dataloader()

    def test_dataloader(self) -> DataLoader:
        """Returns a loader over the split `evaluated`: every image once, in order.

        Raises:
            S4ecaError: the split has no labels.
        """
        self._require_labels()
        return self.predict_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """Returns a loader over the split `evaluated`, with labels or without: every image once, in order.

        Raises:
            S4ecaError: there are more processes than batches, and one would wait for the others in vain.
        """
        dataset = SemanticDataset(self.images(self.evaluated))
        trainer = self.trainer
        replicas, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
        batches = -(-len(dataset) // self.batch_size)
        if batches < replicas:
            raise S4ecaError(
                f"The {self.evaluated} split has {batches} batches for {replicas} processes: evaluate it with"
                f" trainer.devices={batches} or fewer, or a smaller data.batch_size."
            )
        return Unpacking(
            **loading(dataset, list, self.num_workers, self.seed),
            batch_size=self.batch_size,
            sampler=EpochSampler(len(dataset), num_replicas=replicas, rank=rank, block=self.batch_size),
        )

    def _whole(self, split: str) -> list[LabelledImage]:
        check_split(split)
        if split not in self._read:
            self._read[split] = read_isaid(self.root, split, self.strict_counts)
        return self._read[split]

    def _require_labels(self) -> None:
        check_split(self.evaluated)
        if self.evaluated == "test":
            raise S4ecaError(
                "The test split of iSAID has no labels to score against: evaluate with split=val, or predict only."
            )


def _at_least(lowest: int, value: int, name: str) -> int:
    if type(value) is not int or value < lowest:
        raise S4ecaError(f"data.{name}={value} is no whole number of {lowest} or more: set it to one.")
    return value
