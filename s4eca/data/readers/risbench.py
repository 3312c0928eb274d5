"""Reader for RISBench (CroBIM, arXiv:2410.08613)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.masks import FileMask
from s4eca.data.readers.checks import check_split, unique_ids
from s4eca.data.readers.listing import IMAGE_SUFFIXES, Listing
from s4eca.data.readers.names import ImageFolder, below
from s4eca.data.readers.phrases import Layout, check_phrases, check_references, read_phrases
from s4eca.data.readers.refer_layout import check_root
from s4eca.data.readers.writing import References, flatten, place_as, save_grid
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError

# The sum, 52,472, is the published one; how it splits is what users of the dataset report.
RISBENCH_COUNTS = {"train": 26_300, "val": 10_013, "test": 16_159}

_BASES = ("", "RISBench_dataset", "RISBench", "RISBench/RISBench_dataset")
# The release, then names that some users have given its folders.
_FOLDERS = (("img_rgb", "mask"), ("images", "masks"))


def read_risbench(
    root: str | Path,
    split: str,
    strict_counts: bool = False,
    threshold: int | None = None,
    expected: Mapping[str, int] = RISBENCH_COUNTS,
    need_files: bool = True,
) -> list[Reference]:
    """Reads one split in the order of its phrase file.

    A line is `<name.png> sentence`, with or without the angle brackets; image and mask have that name. The id is the
    name without its ending; where several lines share an image, the second is `NAME_1`, the third `NAME_2`, and so on.
    The files name no category.

    Args:
        root: the folder with `img_rgb/` and `mask/`, or one above it.
        split: `train`, `val` or `test`.
        strict_counts: a split size other than the published one is an error instead of a warning.
        threshold: see `FileMask`.
        expected: published split sizes.
        need_files: False to read the phrases without images and masks.

    Raises:
        S4ecaError: files are missing, or a line has no file name or no expression.
    """
    check_split(split)
    layout = find_layout(root, split, need_files)
    images, masks = ImageFolder(layout.images), ImageFolder(layout.masks)
    phrases = read_phrases(layout.phrases)
    for number, name, expression in phrases:
        if not is_file_name(name):
            raise S4ecaError(
                f"Line {number} of {layout.phrases} does not begin with the name of an image file"
                f" ({f'{name} {expression}'!r}): complete or remove it."
            )
    ids = unique_ids([Path(below(name)).stem for _, name, _ in phrases])
    references = [
        Reference(id, images.file(name), expression, split, None, FileMask(masks.file(name), threshold, id))
        for id, (_, name, expression) in zip(ids, phrases, strict=True)
    ]
    check_references(references, layout, f"RISBench in {root}", split, expected, strict_counts, need_files)
    return references


def is_file_name(name: str) -> bool:
    """Whether the name at the beginning of a line is that of an image, and leads to no place outside its folder."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and ".." not in re.split(r"[\\/]", name)


def find_layout(root: str | Path, split: str, need_files: bool = True) -> Layout:
    """Finds the folders and the phrase file of `split` below `root`; with `need_files=False` the file will do.

    Raises:
        S4ecaError: something is missing; the message says where it was looked for.
    """
    root = check_root(root, "RISBench")
    lacking = []
    for base in (root / name for name in _BASES):
        phrases = base / f"output_phrase_{split}.txt"
        for images, masks in _FOLDERS:
            there = (base / images).is_dir() and (base / masks).is_dir()
            if phrases.is_file() and (there or not need_files):
                return Layout(base / images, base / masks, phrases)
        if base.is_dir():
            missing = [] if phrases.is_file() else [phrases.name]
            missing += [name for name in _FOLDERS[0] if not (base / name).is_dir()]
            lacking.append(f"{', '.join(missing)} in {base}")
        else:
            lacking.append(str(base))
    raise S4ecaError(
        f"RISBench is not complete in {root}: not found {'; '.join(lacking)}; {Listing().describe(root)}; see"
        " data/README.md for the layout."
    )


def check_risbench(references: References) -> None:
    """Raises `S4ecaError` unless RISBench's layout can hold the references: it names no categories."""
    check_phrases(references, "RISBench")
    for item in flatten(references):
        if item.category is not None:
            raise S4ecaError(
                f"RISBench cannot hold the category {item.category!r} of reference {item.id!r}, since its files name"
                " none: convert to jsonl or rrsis_d."
            )


def write_risbench(references: References, out: Path, images: str) -> None:
    """Writes references that `check_risbench` has passed into an empty folder.

    Every reference gets an image and a mask of its own, `ID.png`.

    Args:
        references: by split.
        out: the folder.
        images: `link` or `copy`; images that are no PNG are written anew.
    """
    for folder in _FOLDERS[0]:
        (out / folder).mkdir()
    for split, items in references.items():
        lines = [f"{item.id}.png {item.expression}\n" for item in items]
        (out / f"output_phrase_{split}.txt").write_text("".join(lines), encoding="utf-8", newline="")
        for item in items:
            place_as(item.image, out / "img_rgb" / f"{item.id}.png", images, item.id)
            save_grid(Image.fromarray(item.mask.decode().astype(np.uint8) * 255), out / "mask" / f"{item.id}.png")


class RISBenchDataModule(ReferringDataModule):
    """RISBench; its sentences are long, and DiCoR gives them 50 tokens.

    Args:
        threshold: see `read_risbench`.
        options: as for `ReferringDataModule`.
    """

    name = "risbench"

    def __init__(self, *, threshold: int | None = None, max_tokens: int = 50, **options: Any) -> None:
        super().__init__(max_tokens=max_tokens, **options)
        self.threshold = threshold

    def read(self, split: str) -> list[Reference]:
        """Returns the references of a split, see `read_risbench`."""
        return read_risbench(self.root, split, self.strict_counts, self.threshold)
