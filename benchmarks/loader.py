"""Measures the training loader against the loop that RRSIS codebases in the REFER style share.

    python benchmarks/loader.py
    python benchmarks/loader.py --root data/rrsis_d --workers 0 2 8 --json loader.json

The loop (`ReferStyle`): per sample, PIL decodes the JPEG, pycocotools the RLE, PIL resizes both, a fast tokenizer
reads the sentence, torchvision's ToTensor and Normalize follow; default collation. Ours is the data module's own
training loader. Both use the same files, batch size, number of workers and one thread per process, and their epochs
take turns, so that whatever else the machine does falls on all of them. Before anything is timed, the tensors are
compared.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from pycocotools import mask as coco
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv
from transformers import PreTrainedTokenizerBase

from s4eca.data import Reference, ReferenceDataset, ReferringDataModule, RRSISDDataModule, synthesize
from s4eca.tokenizer import aerial_tokenizer

BASELINE = "REFER-style loop"
MAX_TOKENS = 22


class ReferStyle(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """The plain loop: everything per sample, floats and int64 to the collation.

    Args:
        references: with RLE masks.
        tokenizer: a fast tokenizer.
        image_size: side of image and mask.
    """

    def __init__(self, references: list[Reference], tokenizer: PreTrainedTokenizerBase, image_size: int) -> None:
        self.references = references
        self.tokenizer = tokenizer
        self.image_size = image_size
        # as REFER holds them: compressed, in memory
        self.rles = [[coco.encode(np.asfortranarray(item.mask.decode(), np.uint8))] for item in references]

    def __len__(self) -> int:
        return len(self.references)

    def resized(self, index: int) -> tuple[Image.Image, Image.Image]:
        """Returns image and mask (0 and 1) at input size, before they become tensors."""
        reference = self.references[index]
        image = Image.open(reference.image).convert("RGB")
        layers = coco.decode(self.rles[index])
        mask = Image.fromarray(np.sum(layers, axis=2).astype(np.uint8))
        size = [self.image_size, self.image_size]
        return tv.resize(image, size, InterpolationMode.BILINEAR), tv.resize(mask, size, InterpolationMode.NEAREST)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns image (3, S, S) float32, mask (S, S) int64, input_ids (L,) and attention_mask (L,)."""
        image, mask = self.resized(index)
        tensor = tv.normalize(tv.to_tensor(image), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        target = torch.as_tensor(np.array(mask), dtype=torch.int64)
        tokens = self.tokenizer(
            self.references[index].expression,
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        return tensor, target, tokens["input_ids"][0], tokens["attention_mask"][0]


@dataclass(frozen=True)
class Comparison:
    """How the tensors compare, over all different samples.

    Attributes:
        samples: how many were compared.
        pil_image_values: values of `resize: pil` that differ from the baseline's resized image.
        pil_normalised: largest difference of the normalised image, float32.
        mask_pixels: mask pixels that differ.
        tokens: token ids that differ.
        torch_levels: largest difference of `resize: torch`, in grey levels.
        torch_share: share of its values that differ.
        cached_values: values of cached samples (pil and torch) that differ from the same samples uncached.
    """

    samples: int
    pil_image_values: int
    pil_normalised: float
    mask_pixels: int
    tokens: int
    torch_levels: int
    torch_share: float
    cached_values: int

    @property
    def exact(self) -> bool:
        """Whether pil, masks, tokens and cache give the same tensors, floats up to their rounding."""
        different = self.pil_image_values + self.mask_pixels + self.tokens + self.cached_values
        return different == 0 and self.pil_normalised < 1e-5

    @property
    def close(self) -> bool:
        """Whether `resize: torch` is at most one level off, in at most 1e-4 of the values; see `resize_image`."""
        return self.torch_levels <= 1 and self.torch_share <= 1e-4


@dataclass(frozen=True)
class Row:
    """One loader with one number of workers; `ratio` is to the baseline of the same turn."""

    loader: str
    workers: int
    samples_per_second: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float


def data_module(root: Path, options: argparse.Namespace, **changes: Any) -> ReferringDataModule:
    """Returns the data module that is measured, its training split repeated until it has `options.samples`."""
    data = RRSISDDataModule(
        root=root,
        tokenizer=aerial_tokenizer(),
        image_size=options.image_size,
        max_tokens=MAX_TOKENS,
        batch_size=options.batch_size,
        **{"num_workers": 0, **changes},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are expected")
        references = data.references("train")[: options.samples]
    rounds = -(-options.samples // len(references))
    repeated = [replace(item, id=f"{item.id}-{round}") for round in range(rounds) for item in references]
    data.replace("train", repeated[: options.samples])
    return data


def compare(root: Path, cache: Path, options: argparse.Namespace) -> Comparison:
    """Compares the tensors of every different sample, and fills the cache on the way."""
    modules = {how: data_module(root, options, resize=how) for how in ("pil", "torch")}
    plain = {how: module.dataset("train") for how, module in modules.items()}
    cached = {how: data_module(root, options, resize=how, cache=cache).dataset("train") for how in ("pil", "torch")}
    references = modules["pil"].references("train")
    baseline = ReferStyle(references, modules["pil"].tokenizer, options.image_size)
    collate = modules["pil"].train_dataloader().collate_fn
    mean = torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1) * 255
    std = torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1) * 255

    count = len({item.id.rpartition("-")[0] for item in references})
    image_values = mask_pixels = tokens = levels = differing = cached_values = values = 0
    normalised = 0.0
    for index in range(count):
        image, mask = (np.asarray(picture) for picture in baseline.resized(index))
        tensor, _, input_ids, _ = baseline[index]
        batch = collate([plain["pil"][index]])
        image_values += int((batch.image[0].permute(1, 2, 0).numpy() != image).sum())
        mask_pixels += int((batch.mask[0].numpy() != (mask == 1)).sum())
        tokens += int((batch.input_ids[0] != input_ids).sum())
        normalised = max(normalised, float(((batch.image[0].float() - mean) / std - tensor).abs().max()))
        difference = (plain["torch"][index].image.int() - batch.image[0].int()).abs()
        levels, differing = max(levels, int(difference.max())), differing + int((difference > 0).sum())
        values += difference.numel()
        cached_values += sum(_different(plain[how], cached[how], index) for how in cached)
    return Comparison(
        count, image_values, normalised, mask_pixels, tokens, levels, differing / max(values, 1), cached_values
    )


def _different(plain: ReferenceDataset, cached: ReferenceDataset, index: int) -> int:
    """Counts the values of a sample that differ where it is made, and where it is read, by way of the cache."""
    expected = plain[index]
    found = [cached[index], cached[index]]
    return sum(
        int((sample.image != expected.image).sum()) + int((sample.mask != expected.mask).sum()) for sample in found
    )


def measure(root: Path, cache: Path, options: argparse.Namespace, workers: int) -> list[Row]:
    """Times epochs of all loaders in turn."""
    baseline = data_module(root, options)
    loaders: dict[str, Iterable[Any]] = {
        BASELINE: DataLoader(
            ReferStyle(baseline.references("train"), baseline.tokenizer, options.image_size),
            batch_size=options.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
    }
    for name, changes in (
        ("resize: pil", {"resize": "pil"}),
        ("resize: torch", {"resize": "torch"}),
        ("cached", {"resize": "pil", "cache": cache}),
    ):
        loaders[name] = data_module(root, options, num_workers=workers, **changes).train_dataloader()
    for loader in loaders.values():
        _seconds(loader)  # starts workers and warms the page cache
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(options.repeats):
        names = list(loaders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(_seconds(loaders[name]))
    count = options.samples // options.batch_size * options.batch_size
    rows = []
    for name, times in seconds.items():
        ratios = [base / own for base, own in zip(seconds[BASELINE], times, strict=True)]
        median = statistics.median(times)
        rows.append(Row(name, workers, count / median, statistics.median(ratios), min(ratios), max(ratios)))
    return rows


def _seconds(loader: Iterable[Any]) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def table(rows: list[Row]) -> str:
    """Returns the rows as text."""
    lines = [f"{'loader':<18}{'workers':>8}{'samples/s':>11}{'ratio':>8}   lowest-highest of the turns"]
    for row in rows:
        spread = f"{row.lowest_ratio:.2f}-{row.highest_ratio:.2f}"
        lines.append(f"{row.loader:<18}{row.workers:>8}{row.samples_per_second:>11.1f}{row.ratio:>8.2f}   {spread}")
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="an RRSIS-D folder; without it scenes are drawn")
    parser.add_argument("--samples", type=int, default=160, help="per epoch; images repeat where there are fewer")
    parser.add_argument("--images", type=int, default=32, help="number of drawn scenes")
    parser.add_argument("--size", type=int, default=800, help="side of the drawn scenes in pixels")
    parser.add_argument("--image-size", type=int, default=480, help="side of the model's input in pixels")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args(arguments)
    if options.samples < options.batch_size:
        parser.error(f"--samples {options.samples} is less than a batch of {options.batch_size}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Compares, measures and prints; returns 1 where tensors differ that must not."""
    options = parse(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = options.root
        if root is None:
            root = synthesize(Path(folder) / "scenes", train=options.images, val=1, test=1, size=options.size)
        cache = Path(folder) / "cache"
        comparison = compare(root, cache, options)
        print(json.dumps(asdict(comparison)))
        if not comparison.exact:
            print("the tensors differ and must not: nothing is timed")
            return 1
        if not comparison.close:
            print("at these sizes resize: torch differs by more than one level or in more than 1e-4 of the values")
        rows = [row for workers in options.workers for row in measure(root, cache, options, workers)]
    print(table(rows))
    if options.json is not None:
        about = {
            **({"images": "drawn", "size": options.size} if options.root is None else {"images": "given"}),
            **{name: getattr(options, name) for name in ("samples", "image_size", "batch_size", "repeats")},
            "cores": os.cpu_count(),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "pillow": PIL.__version__,
                "numpy": np.__version__,
            },
        }
        content = {"about": about, "comparison": asdict(comparison), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
