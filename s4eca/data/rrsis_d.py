"""Reader for RRSIS-D and every dataset in the same REFER layout (RMSIN, arXiv:2312.12470)."""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from s4eca.data.checks import check_count, check_files, check_split, check_unique
from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.masks import RleMask
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError

RRSIS_D_COUNTS = {"train": 12_181, "val": 1_740, "test": 3_481}

# Where users really have it: the layout of RMSIN's README, one folder deeper (RS2-SAM2, RSRefSeg2, SegEarth-R1), below
# a `refer` checkout, and the unzipped Hugging Face copy.
_BASES = ("", "RRSIS-D", "rrsisd-data", "refer/data", "refer/rrsisd-data", "rrsisd")
_ANNOTATIONS = ("rrsisd", "")
_IMAGES = ("images/rrsisd/JPEGImages", "images/JPEGImages", "JPEGImages")


@dataclass(frozen=True)
class Layout:
    """The three places a REFER dataset is read from."""

    refs: Path
    instances: Path
    images: Path


@dataclass(frozen=True)
class ReferEntry:
    """One entry of a refs pickle: a region and the sentences that name it."""

    ref_id: int
    image_id: int
    ann_id: int
    category_id: int | None
    split: str
    sentences: tuple[str, ...]


def read_rrsis_d(
    root: str | Path,
    split: str,
    strict_counts: bool = False,
    split_by: str = "unc",
    expected: Mapping[str, int] = RRSIS_D_COUNTS,
) -> list[Reference]:
    """Reads one split in the order of the refs file.

    Every sentence is a reference. Its id is the `ref_id`, followed by `_0`, `_1`, … where an entry has several
    sentences. Categories carry the dataset's own names (`baseballfield`). The stored `area` and `bbox` are ignored:
    the first is some 200 times too large, the second belongs to DIOR-RSVG. References whose mask is empty are kept
    (test 00413 is one), so that the split stays the published one.

    Args:
        root: any folder that `find_layout` understands.
        split: `train`, `val` or `test`; compared exactly.
        strict_counts: a split size other than the published one is an error instead of a warning.
        split_by: the name in brackets of `refs(unc).p`.
        expected: published split sizes.

    Raises:
        S4ecaError: files are missing, damaged or hold something else than the layout promises.
    """
    check_split(split)
    layout = find_layout(root, split_by)
    entries = [entry for entry in read_refer_entries(layout.refs) if entry.split == split]
    images, annotations, categories = _read_instances(layout.instances)

    references = []
    for entry in entries:
        if entry.ann_id not in annotations or entry.image_id not in images:
            raise S4ecaError(
                f"Reference {entry.ref_id} of {layout.refs} points to annotation {entry.ann_id} of image"
                f" {entry.image_id}, which {layout.instances} lacks: take both files from the same download."
            )
        annotation, image = annotations[entry.ann_id], images[entry.image_id]
        # RRSIS-D writes `categories_id`, COCO and the other REFER datasets `category_id`
        category = annotation.get("categories_id", annotation.get("category_id"))
        segmentation = annotation["segmentation"]
        parts = [segmentation] if isinstance(segmentation, dict) else segmentation
        size = (image["height"], image["width"]) if "height" in image and "width" in image else None
        for position, sentence in enumerate(entry.sentences):
            id = str(entry.ref_id) if len(entry.sentences) == 1 else f"{entry.ref_id}_{position}"
            references.append(
                Reference(
                    id=id,
                    image=layout.images / image["file_name"],
                    expression=sentence,
                    split=split,
                    category=categories.get(entry.category_id if category is None else category),
                    mask=RleMask(parts, size, id, layout.instances),
                )
            )
    check_unique(references, layout.refs)
    check_files(references, [reference.image for reference in references])
    check_count(f"RRSIS-D in {root}", split, len(references), expected, strict_counts)
    return references


def find_layout(root: str | Path, split_by: str = "unc") -> Layout:
    """Finds the annotation files and the image folder below `root` in any of the layouts that users have.

    Raises:
        S4ecaError: something is missing; the message says what, and lists every place that was looked at.
    """
    root = Path(root)
    if not root.is_dir():
        raise S4ecaError(f"There is no folder {root}: set data.root to the folder that holds RRSIS-D.")
    refs_name = f"refs({split_by}).p"
    looked: list[str] = []
    absent = {refs_name, "instances.json", "the folder JPEGImages"}
    for base in (root / name for name in _BASES):
        places = {
            refs_name: [base / folder / refs_name for folder in _ANNOTATIONS],
            "instances.json": [base / folder / "instances.json" for folder in _ANNOTATIONS],
            "the folder JPEGImages": [base / folder for folder in _IMAGES],
        }
        found = {name: next((path for path in paths if path.exists()), None) for name, paths in places.items()}
        refs, instances, images = found.values()
        if refs and instances and images:
            return Layout(refs, instances, images)
        absent -= {name for name, path in found.items() if path}
        looked += [str(path) for paths in places.values() for path in paths]
    what = " and ".join(sorted(absent)) or "one folder that holds all three parts"
    raise S4ecaError(
        f"RRSIS-D is not complete in {root}, {what} was not found: arrange the files as data/README.md shows"
        f" (looked for {', '.join(looked)})."
    )


class _PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists, strings and numbers; refuses every name, since a name is how a pickle runs code."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(stream)
        self._path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise S4ecaError(
            f"{self._path} asks for {module}.{name}, which could run code and no RRSIS-D file needs:"
            " download it again from the dataset's page."
        )


def read_refer_entries(path: str | Path) -> list[ReferEntry]:
    """Reads a refs pickle alone, without images and annotations.

    Raises:
        S4ecaError: the file is missing, damaged, asks for a global, or an entry lacks a field.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            entries = _PlainUnpickler(stream, path).load()
    except S4ecaError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise S4ecaError(f"{path} cannot be read as a pickle ({error}): download it again.") from error
    if not isinstance(entries, list):
        raise S4ecaError(f"{path} holds a {type(entries).__name__} instead of a list of refs: download it again.")
    return [_entry(raw, position, path) for position, raw in enumerate(entries)]


def _entry(raw: Any, position: int, path: Path) -> ReferEntry:
    try:
        return ReferEntry(
            ref_id=raw["ref_id"],
            image_id=raw["image_id"],
            ann_id=raw["ann_id"],
            category_id=raw.get("category_id"),
            split=raw["split"],
            sentences=tuple(sentence["raw"].strip() for sentence in raw["sentences"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise S4ecaError(
            f"Entry {position} of {path} is not a REFER ref ({error!r}): download the file again."
        ) from error


def _read_instances(path: Path) -> tuple[dict[int, dict], dict[int, dict], dict[Any, str]]:
    """Returns images and annotations by id, and category names by id."""
    try:
        with path.open(encoding="utf-8") as stream:
            content = json.load(stream)
        images = {image["id"]: image for image in content["images"]}
        annotations = {annotation["id"]: annotation for annotation in content["annotations"]}
        categories = {category["id"]: category["name"] for category in content["categories"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise S4ecaError(f"{path} cannot be read as COCO annotations ({error!r}): download it again.") from error
    for id, annotation in annotations.items():
        if not annotation.get("segmentation"):
            raise S4ecaError(f"Annotation {id} of {path} has no segmentation: download the file again.")
    for id, image in images.items():
        if "file_name" not in image:
            raise S4ecaError(f"Image {id} of {path} has no file_name: download the file again.")
    return images, annotations, categories


class RRSISDDataModule(ReferringDataModule):
    """RRSIS-D; 22 tokens cover every one of its sentences."""

    name = "rrsis_d"

    def __init__(self, *, max_tokens: int = 22, split_by: str = "unc", **options: Any) -> None:
        super().__init__(max_tokens=max_tokens, **options)
        self.split_by = split_by

    def read(self, split: str) -> list[Reference]:
        """Returns the references of a split, see `read_rrsis_d`."""
        return read_rrsis_d(self.root, split, self.strict_counts, self.split_by)
