"""Reader for RefSegRS (LGCE, arXiv:2306.08625)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from s4eca.data.checks import check_count, check_files, check_split, check_unique
from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.masks import FileMask
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


@dataclass(frozen=True)
class Layout:
    """The three places one split of RefSegRS is read from."""

    images: Path
    masks: Path
    phrases: Path


def read_refsegrs(
    root: str | Path,
    split: str,
    strict_counts: bool = False,
    expected: Mapping[str, int] = REFSEGRS_COUNTS,
) -> list[Reference]:
    """Reads one split in the order of its phrase file.

    A line is `<id> <expression>`; image and mask are `<id>.tif`. Masks are semantic: every instance of the class, grey
    values above 50. The category is the class that the expression names first, the longer name where two begin
    together ("road marking" before "road"), None where it names none.

    Args:
        root: the folder with `images/`, or one above it.
        split: `train`, `val` or `test`.
        strict_counts: a split size other than the published one is an error instead of a warning.
        expected: published split sizes.

    Raises:
        S4ecaError: files are missing, or a line has no expression.
    """
    check_split(split)
    layout = find_layout(root, split)
    try:
        lines = layout.phrases.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise S4ecaError(f"{layout.phrases} cannot be read as text ({error}): unpack the archive again.") from error

    references = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        id, _, expression = line.strip().partition(" ")
        if not expression.strip():
            raise S4ecaError(f"Line {number} of {layout.phrases} has no expression ({line!r}): complete or remove it.")
        references.append(
            Reference(
                id=id,
                image=layout.images / f"{id}.tif",
                expression=expression.strip(),
                split=split,
                category=category_of(expression),
                mask=FileMask(layout.masks / f"{id}.tif", id=id),
            )
        )
    check_unique(references, layout.phrases)
    check_files(references, [reference.image for reference in references])
    check_files(references, [layout.masks / reference.image.name for reference in references])
    check_count(f"RefSegRS in {root}", split, len(references), expected, strict_counts)
    return references


def find_layout(root: str | Path, split: str) -> Layout:
    """Finds the folders and the phrase file of `split` below `root`.

    Raises:
        S4ecaError: none of the known layouts is complete; the message says what each of them lacks.
    """
    root = Path(root)
    if not root.is_dir():
        raise S4ecaError(f"There is no folder {root}: set data.root to the folder that holds RefSegRS.")
    lacking = []
    for base in (root / name for name in _BASES):
        if not base.is_dir():
            lacking.append(str(base))
            continue
        for images, masks, phrases in _VARIANTS:
            candidates = [base / name.format(split=split) for name in phrases]
            text = next((path for path in candidates if path.is_file()), None)
            if text and (base / images).is_dir() and (base / masks).is_dir():
                return Layout(base / images, base / masks, text)
            names = [name for name in (images, masks) if not (base / name).is_dir()]
            names += [] if text else [candidates[0].name]
            lacking.append(f"{', '.join(names)} in {base}")
    raise S4ecaError(
        f"RefSegRS is not complete in {root}: not found {'; '.join(lacking)}; see data/README.md for the layout."
    )


_CLASS = re.compile(r"\b(" + "|".join(sorted(REFSEGRS_CLASSES, key=len, reverse=True)) + r")(?:s|es)?\b")


def category_of(expression: str) -> str | None:
    """Returns the class that an expression names first, None where it names none of the fourteen.

    >>> category_of("car along the road")
    'car'
    """
    match = _CLASS.search(expression.lower())
    return match.group(1) if match else None


class RefSegRSDataModule(ReferringDataModule):
    """RefSegRS."""

    name = "refsegrs"

    def read(self, split: str) -> list[Reference]:
        """Returns the references of a split, see `read_refsegrs`."""
        return read_refsegrs(self.root, split, self.strict_counts)
