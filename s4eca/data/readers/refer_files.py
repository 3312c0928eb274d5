"""The two annotation files of a REFER dataset: the refs pickle and `instances.json`."""

import marshal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s4eca.data.defects import DefectError, raise_first
from s4eca.data.geometry import Extent, check_segmentation
from s4eca.data.masks import AnnotationFile
from s4eca.data.readers.checks import is_id, read_mark
from s4eca.data.readers.json_stream import JsonMembers
from s4eca.data.readers.names import ImageFolder
from s4eca.data.readers.plain_pickle import load_plain_pickle
from s4eca.data.rle import check_size
from s4eca.errors import S4ecaError
from s4eca.text import read_json, unmark, unmark_values
from s4eca.wording import indefinite


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
        no_target: the sentences name nothing in the image, on purpose: by its mark, or without one by `ann_id`.
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
        """The ids of the regions, each once; gRefCOCO writes -1 where there is none."""
        return _without_nothing(self.ann_id)

    @property
    def name(self) -> str:
        """What the entry's references are called by."""
        return str(self.ref_id) if self.id is None else self.id


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is kept of an annotation; the stored `area` and `bbox` are not to be trusted, see `read_rrsis_d`.

    Attributes:
        span: offset and length in `instances.json`, for `StoredMask`.
        category_id: as in the file.
        image_id: as in the file, None where it says none.
        extent: of its segmentation; None where it has none, and where it cannot be painted what is wrong with it.
        kind: of the expressions that mean it, None where it says none.
    """

    span: tuple[int, int]
    category_id: Any
    image_id: Any
    extent: Extent | str | None
    kind: str | None = None

    @property
    def empty(self) -> bool:
        """It has no segmentation."""
        return self.extent is None

    @property
    def drawn(self) -> bool:
        """It has polygons, which have no size of their own."""
        return isinstance(self.extent, Extent) and self.extent.box is not None


@dataclass(frozen=True, slots=True)
class Image:
    """What is kept of an image: its file, and (height, width) where the annotations say it."""

    path: Path
    size: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Instances:
    """`instances.json`: images, annotations and category names by id."""

    file: AnnotationFile
    folder: ImageFolder
    images: dict[Any, Image]
    annotations: dict[Any, Annotation]
    categories: dict[Any, str]

    def add(self, part: str, raw: Any, span: tuple[int, int]) -> Iterator[DefectError]:
        """Takes a row, and yields what is wrong with it; of rows that share an id the last one stays.

        A row may be repeated as it is. Where two rows differ under one id, it is open which of them references mean.

        Args:
            part: `images`, `annotations` or `categories`.
            raw: the row.
            span: its offset and length in the file.
        """
        id = raw.get("id") if isinstance(raw, dict) else None
        if not is_id(id):
            text = f"{self.file.path} cannot be read as COCO annotations (a row of {part} has no id): mend it."
            yield DefectError(text, "bad-entry", f"a row of {part} without an id")
            return
        table: dict[Any, Any] = getattr(self, part)
        row: Any
        try:
            if part == "images":
                row = _image(raw, self.folder)
            elif part == "annotations":
                row = _annotation(raw, span)
            else:
                row = _category(raw)
        except ValueError as error:
            yield DefectError(
                f"Row {id} of {part} in {self.file.path} cannot be used ({error}): mend it.",
                "bad-entry",
                f"{id} of {part}",
            )
            return
        if id in table and not self._same(part, table[id], row):
            text = f"{self.file.path} has two different rows of {part} under the id {id}: keep the right one."
            yield DefectError(text, "repeated-annotation-id", str(id))
        table[id] = row

    def _same(self, part: str, first: Any, second: Any) -> bool:
        if part != "annotations":
            return bool(first == second)
        if (first.category_id, first.image_id, first.kind) != (second.category_id, second.image_id, second.kind):
            return False
        texts = [self.file.read_json(*row.span).get("segmentation") for row in (first, second)]
        return bool(texts[0] == texts[1])


def read_refer_entries(path: str | Path) -> list[ReferEntry]:
    """Reads a refs file alone, without images and annotations.

    Raises:
        S4ecaError: see `load_refs`, or an entry lacks a field.
    """
    path = Path(path)
    entries = load_refs(path)
    known: dict[str, str] = {}
    rows = [_row(raw, position, path, known) for position, raw in enumerate(entries)]
    # What is kept lies scattered over what is not, and would hold on to the memory of all of it: RRSIS-D's tokens and
    # repetitions take 25 MB. So it moves out before it moves in again.
    packed = marshal.dumps(rows)
    del entries, rows, known
    return [ReferEntry(*row) for row in marshal.loads(packed)]


def load_refs(path: Path) -> list[Any]:
    """Returns the entries of a refs file as they are: a pickle, or JSON as in gRefCOCO.

    Raises:
        S4ecaError: the file is missing, damaged, of another kind, or a pickle that asks for a global.
    """
    if path.suffix.lower() != ".json":
        entries = load_plain_pickle(path)
    else:
        try:
            entries = read_json(path)
        except (OSError, ValueError, RecursionError) as error:
            raise S4ecaError(f"{path} cannot be read as JSON ({error}): take a whole copy of it.") from error
    if not isinstance(entries, list):
        raise S4ecaError(
            f"{path} holds {indefinite(type(entries).__name__)} instead of a list of refs: give the refs file."
        )
    return entries


def refer_entry(raw: Any, position: int, path: Path) -> ReferEntry:
    """Returns an entry of a refs file; raises `DefectError` where it lacks a field or holds something else in it."""
    return ReferEntry(*_row(raw, position, path, {}))


def _row(raw: Any, position: int, path: Path, known: dict[str, str]) -> tuple[Any, ...]:
    """Returns the fields of a `ReferEntry`."""
    try:
        raw = unmark_values(raw)
        image_id, ann_id, ref_id, id = raw["image_id"], raw["ann_id"], raw["ref_id"], raw.get("id")
        if isinstance(ann_id, list):
            ann_id = tuple(ann_id)
        category = raw.get("category_id")
        if isinstance(category, list):
            category = category[0] if len(set(category)) == 1 else None
        texts = [unmark(sentence["raw"] if "raw" in sentence else sentence["sent"]) for sentence in raw["sentences"]]
        # RRSIS-D repeats two of three sentences; equal ones are held once
        sentences = tuple(known.setdefault(text, text) for text in map(str.strip, texts))
        "".join(sentences).encode()
        mark = read_mark(raw.get("no_target"))
        no_target = ann_id is not None and not _without_nothing(ann_id) if mark is None else mark
        ids = (ref_id, image_id, *(ann_id if isinstance(ann_id, tuple) else (ann_id,)))
        # an entry without a target need not name an annotation
        strange = [value for value in ids if not is_id(value) and value is not None]
        if strange or ref_id is None or image_id is None or not (id is None or is_id(id)):
            raise ValueError(f"it has {(strange or [id])[0]!r} for an id")
        hash(category)  # it is looked up by; a list raises TypeError
        split = known.setdefault(raw["split"], raw["split"])
        return ref_id, image_id, ann_id, category, split, sentences, no_target, None if id is None else str(id)
    except UnicodeEncodeError as error:  # Python 2 had bytes, in any encoding
        raise DefectError(
            f"Entry {position} of {path} has text that is not UTF-8 ({error.object!r}): save it again in UTF-8.",
            "bad-entry",
            f"entry {position}",
        ) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = error if isinstance(error, ValueError) else repr(error)  # the words of others say little by themselves
        raise DefectError(
            f"Entry {position} of {path} is not a REFER ref ({reason}): take the refs file of the dataset, or mend the"
            " entry.",
            "bad-entry",
            f"entry {position}",
        ) from error


def _without_nothing(ann_id: Any) -> tuple[Any, ...]:
    if not isinstance(ann_id, tuple):
        return () if ann_id == -1 else (ann_id,)
    return tuple(dict.fromkeys(id for id in ann_id if id != -1))


def read_instances(path: Path, folder: Path) -> Instances:
    """Reads `instances.json`; `folder` is where the images are.

    Raises:
        S4ecaError: the file is missing or damaged, something in it lacks a field, or an id stands for two things.
    """
    found = open_instances(path, ImageFolder(folder))
    for part, raw, span in instance_rows(path):
        raise_first(found.add(part, raw, span))
    return found


def open_instances(path: Path, folder: ImageFolder) -> Instances:
    """Returns `Instances` without a row; raises `S4ecaError` where there is no such file."""
    return Instances(AnnotationFile.of(path), folder, {}, {}, {})


def instance_rows(path: Path) -> Iterator[tuple[str, Any, tuple[int, int]]]:
    """Yields what `Instances.add` takes, for all rows of `instances.json`.

    Raises:
        S4ecaError: the file is missing or damaged, or has no images, annotations or categories.
    """
    missing = {"images", "annotations", "categories"}
    try:
        members = JsonMembers(path)
        for key, elements in members:
            if key in missing:
                missing.discard(key)
                for raw in elements:
                    yield key, unmark_values(raw) if isinstance(raw, dict) else raw, members.span
        if missing:
            raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
    except (OSError, ValueError, RecursionError) as error:
        raise S4ecaError(
            f"{path} cannot be read as COCO annotations ({error}): take a whole copy of it, with images, annotations"
            " and categories."
        ) from error


def _image(raw: dict[str, Any], folder: ImageFolder) -> Image:
    if not isinstance(raw.get("file_name"), str) or not raw["file_name"]:
        raise ValueError("it has no file_name")
    height, width = raw.get("height"), raw.get("width")
    size = None if height is None or width is None else check_size([height, width])
    return Image(folder.file(raw["file_name"]), size)


def _annotation(raw: dict[str, Any], span: tuple[int, int]) -> Annotation:
    # RRSIS-D writes `categories_id`, COCO and the other REFER datasets `category_id`
    category, image_id = raw.get("categories_id", raw.get("category_id")), raw.get("image_id")
    if any(isinstance(value, list | dict) for value in (category, image_id)):
        raise ValueError("it has a list or an object for an id")
    kind = raw.get("kind")
    if kind is not None and not isinstance(kind, str):
        raise ValueError("its kind is not a text")
    extent: Extent | str | None = None
    if raw.get("segmentation"):
        try:
            extent = check_segmentation(raw["segmentation"])
        except ValueError as error:  # which nobody minds as long as no reference means it
            extent = str(error)
    return Annotation(span, category, image_id, extent, kind)


def _category(raw: dict[str, Any]) -> str:
    if not isinstance(raw.get("name"), str):
        raise ValueError("it has no name")
    return str(raw["name"])
