"""Reader for RefSegRS (LGCE, arXiv:2306.08625)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.masks import FileMask
from s4eca.data.readers.checks import check_split
from s4eca.data.readers.listing import IMAGE_SUFFIXES, Listing
from s4eca.data.readers.names import ImageFolder, below
from s4eca.data.readers.phrases import Layout, check_phrases, check_references, read_phrases
from s4eca.data.readers.refer_layout import check_root
from s4eca.data.readers.writing import References, flatten, place_as, save_grid
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError

REFSEGRS_COUNTS = {"train": 2_172, "val": 431, "test": 1_817}

# The files name no class; these are the fourteen that FIANet reports.
REFSEGRS_CLASSES = (
    "road",
    "vehicle",
    "car",
    "van",
    "building",
    "truck",
    "trailer",
    "bus",
    "road marking",
    "bikeway",
    "sidewalk",
    "tree",
    "low vegetation",
    "impervious surface",
)

_BASES = ("", "RefSegRS", "RefSegRS/RefSegRS", "new_dataset2")
# The public release, then the variant that LGCE's own code reads (its train file has no "3").
_VARIANTS = (
    ("images", "masks", ("output_phrase_{split}.txt",)),
    ("images2", "masks2", ("output_phrase_{split}3.txt", "output_phrase_{split}.txt")),
)


def read_refsegrs(
    root: str | Path,
    split: str,
    strict_counts: bool = False,
    expected: Mapping[str, int] = REFSEGRS_COUNTS,
    need_files: bool = True,
    threshold: int | None = None,
) -> list[Reference]:
    """Reads one split in the order of its phrase file.

    A line is `<id> <expression>`; image and mask are `<id>.tif`, see `place`. Masks are semantic: every instance of the
    class. The category is the class that the expression names first, the longer name where two begin together ("road
    marking" before "road"), None where it names none.

    Args:
        root: the folder with `images/`, or one above it.
        split: `train`, `val` or `test`.
        strict_counts: a split size other than the published one is an error instead of a warning.
        expected: published split sizes.
        need_files: False to read the phrases without images and masks.
        threshold: see `FileMask`.

    Raises:
        S4ecaError: files are missing, or a line has no expression.
    """
    check_split(split)
    layout = find_layout(root, split, need_files)
    images, masks = ImageFolder(layout.images), ImageFolder(layout.masks)
    references = []
    for number, name, expression in read_phrases(layout.phrases):
        id, image, mask = place(name, images, masks)
        if need_files and goes_on(name, image):
            raise S4ecaError(
                f"Line {number} of {layout.phrases} begins with {name!r}, which is no image's id"
                f" ({f'{name} {expression}'!r}): put a blank or a tab behind the id."
            )
        target = FileMask(mask, threshold, id)
        references.append(Reference(id, image, expression, split, category_of(expression), target))
    check_references(references, layout, f"RefSegRS in {root}", split, expected, strict_counts, need_files)
    return references


def place(name: str, images: ImageFolder, masks: ImageFolder) -> tuple[str, Path, Path]:
    """Returns id, image and mask of a name at the beginning of a line.

    The image is `<name>.tif`. Where that is not there and the name has the ending of an image, which then is none of
    the id, it is the file of that name or else `<id>.tif`; all by the rules of `ImageFolder`.
    """
    id = below(name)
    image = images.find(f"{id}.tif")
    if image is None and Path(id).suffix.lower() in IMAGE_SUFFIXES:
        image, id = images.find(id), str(Path(id).with_suffix(""))
    image = image or images.file(f"{id}.tif")
    inside = image.relative_to(images.path)
    return "/".join(id.split("/")[-len(inside.parts) :]), image, masks.file(str(inside))


def goes_on(name: str, image: Path) -> bool:
    """Whether a name goes on over a comma or the like, and no such image is there: no white space ends the id."""
    return bool(re.search("[,;|]", name)) and not image.exists()


def find_layout(root: str | Path, split: str, need_files: bool = True) -> Layout:
    """Finds the folders and the phrase file of `split` below `root`; with `need_files=False` the file will do.

    Raises:
        S4ecaError: none of the known layouts is complete; the message says what each of them lacks.
    """
    root = check_root(root, "RefSegRS")
    lacking = []
    for base in (root / name for name in _BASES):
        if not base.is_dir():
            lacking.append(str(base))
            continue
        for images, masks, phrases in _VARIANTS:
            candidates = [base / name.format(split=split) for name in phrases]
            text = next((path for path in candidates if path.is_file()), None)
            if text and (not need_files or ((base / images).is_dir() and (base / masks).is_dir())):
                return Layout(base / images, base / masks, text)
            names = [name for name in (images, masks) if not (base / name).is_dir()]
            names += [] if text else [candidates[0].name]
            lacking.append(f"{', '.join(names)} in {base}")
    raise S4ecaError(
        f"RefSegRS is not complete in {root}: not found {'; '.join(lacking)}; {Listing().describe(root)}; see"
        " data/README.md for the layout."
    )


_CLASS = re.compile(r"\b(" + "|".join(sorted(REFSEGRS_CLASSES, key=len, reverse=True)) + r")(?:s|es)?\b")


def category_of(expression: str) -> str | None:
    """Returns the class that an expression names first, None where it names none of the fourteen.

    >>> category_of("car along the road")
    'car'
    """
    match = _CLASS.search(expression.lower())
    return match.group(1) if match else None


def check_refsegrs(references: References) -> None:
    """Raises `S4ecaError` unless RefSegRS's layout can hold the references: it names no class of its own."""
    check_phrases(references, "RefSegRS")
    for item in flatten(references):
        if item.category != category_of(item.expression):
            raise S4ecaError(
                f"RefSegRS cannot hold the category {item.category!r} of reference {item.id!r}, since its files name"
                " none and a reader takes it from the expression: convert to jsonl or rrsis_d."
            )


def write_refsegrs(references: References, out: Path, images: str) -> None:
    """Writes references that `check_refsegrs` has passed into an empty folder.

    Every reference gets an image and a mask of its own, as in the dataset itself.

    Args:
        references: by split.
        out: the folder.
        images: `link` or `copy`; images that are no TIFF are written anew.
    """
    for folder in ("images", "masks"):
        (out / folder).mkdir()
    for split, items in references.items():
        lines = [f"{item.id} {item.expression}\n" for item in items]
        (out / f"output_phrase_{split}.txt").write_text("".join(lines), encoding="utf-8", newline="")
        for item in items:
            place_as(item.image, out / "images" / f"{item.id}.tif", images, item.id)
            mask = Image.fromarray(item.mask.decode().astype(np.uint8) * 255)
            save_grid(mask, out / "masks" / f"{item.id}.tif")


class RefSegRSDataModule(ReferringDataModule):
    """RefSegRS.

    Args:
        threshold: see `FileMask`.
        options: as for `ReferringDataModule`.
    """

    name = "refsegrs"

    def __init__(self, *, threshold: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.threshold = threshold

    def read(self, split: str) -> list[Reference]:
        """Returns the references of a split, see `read_refsegrs`."""
        return read_refsegrs(self.root, split, self.strict_counts, threshold=self.threshold)
