"""The two annotation files of a REFER dataset: the refs pickle and `instances.json`."""

import marshal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s4eca.data.masks import AnnotationFile
from s4eca.data.readers.json_stream import JsonMembers
from s4eca.data.readers.names import ImageFolder
from s4eca.data.readers.plain_pickle import load_plain_pickle
from s4eca.errors import S4ecaError
from s4eca.text import read_json, unmark, unmark_values


@dataclass(frozen=True, slots=True)
class ReferEntry:
    """One entry of a refs file: the sentences that name one region.

    Attributes:
        ref_id: as in the file.
        image_id: as in the file.
        ann_id: as in the file, a tuple where it is a list there (gRefCOCO: several regions, or [-1] for none).
        category_id: as in the file, None where there is none or where the regions differ.
        split: as in the file.
        sentences: with surrounding white space removed.
        no_target: the sentences name nothing in the image, on purpose.
        id: a text that stands in for `ref_id`; only files written by `convert` have it.
    """

    ref_id: int | str
    image_id: int
    ann_id: int | tuple[int, ...]
    category_id: int | None
    split: str
    sentences: tuple[str, ...]
    no_target: bool = False
    id: str | None = None

    @property
    def annotations(self) -> tuple[int, ...]:
        """The ids of the regions; gRefCOCO writes -1 where there is none."""
        ids = self.ann_id if isinstance(self.ann_id, tuple) else (self.ann_id,)
        return tuple(id for id in ids if id != -1)


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is kept of an annotation; the stored `area` and `bbox` are not to be trusted, see `read_rrsis_d`.

    Attributes:
        span: offset and length in `instances.json`, for `StoredMask`.
        category_id: as in the file.
        empty: it has no segmentation.
    """

    span: tuple[int, int]
    category_id: Any
    empty: bool


@dataclass(frozen=True, slots=True)
class Image:
    """What is kept of an image: its file, and (height, width) where the annotations say it."""

    path: Path
    size: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Instances:
    """`instances.json`: images, annotations and category names by id."""

    file: AnnotationFile
    images: dict[Any, Image]
    annotations: dict[Any, Annotation]
    categories: dict[Any, str]


def load_entries(path: Path) -> Any:
    """Returns what a refs file holds: a pickle, or JSON as in gRefCOCO.

    Raises:
        S4ecaError: the file is missing, damaged, of another kind, or a pickle that asks for a global.
    """
    if path.suffix.lower() != ".json":
        return load_plain_pickle(path)
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise S4ecaError(f"{path} cannot be read as JSON ({error}): take a whole copy of it.") from error


def read_refer_entries(path: str | Path) -> list[ReferEntry]:
    """Reads a refs file alone, without images and annotations.

    Raises:
        S4ecaError: see `load_entries`, or an entry lacks a field.
    """
    path = Path(path)
    entries = load_entries(path)
    if not isinstance(entries, list):
        raise S4ecaError(f"{path} holds a {type(entries).__name__} instead of a list of refs: give the refs file.")
    known: dict[str, str] = {}
    rows = [_row(raw, position, path, known) for position, raw in enumerate(entries)]
    # What is kept lies scattered over what is not, and would hold on to the memory of all of it: RRSIS-D's tokens and
    # repetitions take 25 MB. So it moves out before it moves in again.
    packed = marshal.dumps(rows)
    del entries, rows, known
    return [ReferEntry(*row) for row in marshal.loads(packed)]


def _row(raw: Any, position: int, path: Path, known: dict[str, str]) -> tuple[Any, ...]:
    """Returns the fields of a `ReferEntry`."""
    try:
        raw = unmark_values(raw)
        image_id, ann_id = raw["image_id"], raw["ann_id"]
        if isinstance(ann_id, list):
            ann_id = tuple(ann_id)
        category = raw.get("category_id")
        if isinstance(category, list):
            category = category[0] if len(set(category)) == 1 else None
        texts = [unmark(sentence["raw"] if "raw" in sentence else sentence["sent"]) for sentence in raw["sentences"]]
        # RRSIS-D repeats two of three sentences; equal ones are held once
        sentences = tuple(known.setdefault(text, text) for text in map(str.strip, texts))
        "".join(sentences).encode()
        no_target = bool(raw.get("no_target")) or ann_id in (-1, (-1,), ())
        hash((image_id, ann_id, category, raw.get("id")))  # they are looked up by; a list raises TypeError
        split = known.setdefault(raw["split"], raw["split"])
        return raw["ref_id"], image_id, ann_id, category, split, sentences, no_target, raw.get("id")
    except UnicodeEncodeError as error:  # Python 2 had bytes, in any encoding
        raise S4ecaError(
            f"Entry {position} of {path} has text that is not UTF-8 ({error.object!r}): save it again in UTF-8."
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise S4ecaError(
            f"Entry {position} of {path} is not a REFER ref ({error!r}): take the refs file of the dataset, or mend the"
            " entry."
        ) from error


def read_instances(path: Path, folder: Path) -> Instances:
    """Reads `instances.json`; `folder` is where the images are.

    Raises:
        S4ecaError: the file is missing or damaged, or something in it lacks a field.
    """
    missing = {"images", "annotations", "categories"}
    sizes: dict[Any, Any] = {}
    names = ImageFolder(folder)
    try:
        found = Instances(AnnotationFile.of(path), {}, {}, {})
        members = JsonMembers(path)
        for key, elements in members:
            missing.discard(key)
            if key == "images":
                found.images.update((raw["id"], _image(raw, path, names, sizes)) for raw in elements)
            elif key == "annotations":
                found.annotations.update((raw["id"], _annotation(raw, members.span)) for raw in elements)
            elif key == "categories":
                found.categories.update((raw["id"], unmark_values(raw)["name"]) for raw in elements)
        if missing:
            raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise S4ecaError(
            f"{path} cannot be read as COCO annotations ({error!r}): take a whole copy of it, with images, annotations"
            " and categories."
        ) from error
    return found


def _image(raw: dict[str, Any], path: Path, names: ImageFolder, sizes: dict[Any, Any]) -> Image:
    if "file_name" not in raw:
        raise S4ecaError(f"Image {raw['id']} of {path} has no file_name: add it.")
    if "height" not in raw or "width" not in raw:
        return Image(names.file(raw["file_name"]), None)
    size = (raw["height"], raw["width"])
    return Image(names.file(raw["file_name"]), sizes.setdefault(size, size))


def _annotation(raw: dict[str, Any], span: tuple[int, int]) -> Annotation:
    # RRSIS-D writes `categories_id`, COCO and the other REFER datasets `category_id`
    category = raw.get("categories_id", raw.get("category_id"))
    hash(category)  # a list raises TypeError
    return Annotation(span, category, not raw.get("segmentation"))
