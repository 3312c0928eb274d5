"""REFER annotations (`refs(…).p` and `instances.json`) for the audit: every entry that can be made sense of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s4eca.data.audit.findings import Finding, Severity, on_names, on_records
from s4eca.data.audit.keys import check_keys
from s4eca.data.audit.records import Record
from s4eca.data.masks import RleMask
from s4eca.data.readers.names import ImageFolder
from s4eca.data.readers.refer_files import load_entries
from s4eca.errors import S4ecaError
from s4eca.text import read_json, unmark, unmark_values

_REF_KEYS = (
    *("ref_id", "image_id", "ann_id", "category_id", "split", "sentences", "sent_ids", "file_name", "no_target", "id"),
)
_ANNOTATION_KEYS = ("id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd")
_IMAGE_KEYS = ("id", "file_name", "height", "width", "license", "coco_url", "flickr_url", "date_captured")

_PROBLEMS = {
    "missing-annotation": (
        Severity.ERROR,
        "references whose annotation is missing from instances.json or has no segmentation",
    ),
    "missing-image-entry": (
        Severity.ERROR,
        "references whose image instances.json does not list or gives no file_name",
    ),
    "other-image": (Severity.ERROR, "references whose annotation belongs to another image"),
    "unknown-category": (Severity.WARNING, "references of a category that instances.json does not name"),
    "other-category": (Severity.WARNING, "references whose category is another in instances.json than in refs"),
}


@dataclass
class Instances:
    """`instances.json` by id; `readable` is unset where there is no such file or it cannot be read."""

    readable: bool = False
    images: dict[Any, dict] = field(default_factory=dict)
    annotations: dict[Any, dict] = field(default_factory=dict)
    categories: dict[Any, str] = field(default_factory=dict)


def read_refer(refs: Path, instances: Path | None, images: Path) -> tuple[list[Record], list[Finding]]:
    """Reads all splits of a REFER dataset as far as they can be read.

    Args:
        refs: the pickle.
        instances: the COCO file; None where there is none, which leaves masks and category names unknown.
        images: the folder of the images, whether it exists or not.

    Returns:
        One record per sentence, with the ids that the reader gives, and what is wrong with the files themselves.
    """
    entries, findings = _load_refs(refs)
    table, more = _load_instances(instances)
    findings += more
    findings += check_keys(entries, _REF_KEYS, f"entries of {refs.name}")
    findings += check_keys(table.annotations.values(), _ANNOTATION_KEYS, "annotations of instances.json")
    findings += check_keys(table.images.values(), _IMAGE_KEYS, "images of instances.json")

    files = ImageFolder(images)
    records: list[Record] = []
    wrong: dict[str, list[int]] = {code: [] for code in _PROBLEMS}
    used_images: set[Any] = set()
    used_annotations: set[Any] = set()
    for entry in entries:
        annotations, absent = _annotations_of(entry, table)
        image = table.images.get(_key(entry["image_id"]))
        number = _category_number(annotations, entry)
        built = _records_of(entry, annotations, image, files, _category_name(number, table))
        positions = range(len(records), len(records) + len(built))
        records += built
        if not table.readable:
            continue
        used_images.add(_key(entry["image_id"]))
        used_annotations.update(_key(target) for target in _targets(entry))
        if absent:
            wrong["missing-annotation"] += positions
        if image is None or "file_name" not in image:
            wrong["missing-image-entry"] += positions
        if any(annotation.get("image_id", entry["image_id"]) != entry["image_id"] for annotation in annotations):
            wrong["other-image"] += positions
        if number is not None and number not in table.categories:
            wrong["unknown-category"] += positions
        if number is not None and _key(entry.get("category_id")) not in (None, number):
            wrong["other-category"] += positions

    for code, (severity, text) in _PROBLEMS.items():
        findings += on_records(severity, code, text, records, wrong[code])
    if table.readable:
        findings += _check_segmentations(table.annotations)
        unused = [str(id) for id in table.annotations if id not in used_annotations]
        findings += on_names(Severity.NOTE, "unused-annotation", "annotations that no reference uses", unused)
        unused = [str(image.get("file_name", id)) for id, image in table.images.items() if id not in used_images]
        findings += on_names(
            Severity.NOTE, "unused-image-entry", "images in instances.json that no reference uses", unused
        )
    return records, findings


def _records_of(
    entry: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    image: Mapping[str, Any] | None,
    files: ImageFolder,
    category: str | None,
) -> list[Record]:
    """Returns one record per sentence of an entry."""
    name = (image or {}).get("file_name") or entry.get("file_name")
    size = _stated_size(image)
    ref_id, sentences = str(entry.get("id") or entry["ref_id"]), entry["sentences"]
    parts = [part for annotation in annotations for part in _parts(annotation["segmentation"])]
    mask = RleMask(parts, size, ref_id) if parts else None
    alone = annotations[0] if len(annotations) == 1 else {}  # a box around several targets is not stored
    return [
        Record(
            id=ref_id if len(sentences) == 1 else f"{ref_id}_{position}",
            split=str(entry["split"]),
            expression=unmark(_text(sentence)).strip(),
            category=category,
            image=files.file(name) if isinstance(name, str) and name else None,
            mask=mask,
            no_target=_no_target(entry),
            stated_size=size,
            bbox=alone.get("bbox"),
            area=alone.get("area"),
        )
        for position, sentence in enumerate(sentences)
    ]


def _load_refs(path: Path) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Returns the entries that have every field they need."""
    try:
        content = load_entries(path)
        if not isinstance(content, list):
            raise ValueError(f"a {type(content).__name__} instead of a list of refs")
    except (S4ecaError, OSError, ValueError, RecursionError) as error:
        text = f"{path.name} cannot be read ({str(error).rstrip('.')})"
        return [], on_names(Severity.ERROR, "unreadable-file", text, [path.name])
    good, bad = [], []
    for position, raw in enumerate(content):
        try:
            complete = all(key in raw for key in ("ref_id", "image_id", "split")) and bool(raw["sentences"])
            complete = complete and all(isinstance(_text(sentence), str) for sentence in raw["sentences"])
        except (KeyError, TypeError):
            complete = False
        if complete:
            good.append(unmark_values(raw))
        else:
            bad.append(f"entry {position}")
    text = f"entries of {path.name} without ref_id, image_id, split or sentences with raw text, which are left out here"
    return good, on_names(Severity.ERROR, "bad-entry", text, bad)


def _load_instances(path: Path | None) -> tuple[Instances, list[Finding]]:
    """Returns what the COCO file holds, by id, without the rows that have none."""
    if path is None:
        return Instances(), []
    try:
        content = read_json(path)
        tables = {name: list(content[name]) for name in ("images", "annotations", "categories")}
    except (S4ecaError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error).rstrip(".") if isinstance(error, S4ecaError) else repr(error)
        text = f"{path.name} cannot be read as COCO annotations ({reason}); masks and boxes are left out"
        return Instances(), on_names(Severity.ERROR, "unreadable-file", text, [path.name])
    findings = []
    by_id: dict[str, dict[Any, Any]] = {}
    for name, rows in tables.items():
        good = [unmark_values(row) for row in rows if isinstance(row, dict) and _key(row.get("id")) is not None]
        bad = len(rows) - len(good)
        if bad:
            text = f"rows of {name} in {path.name} without an id, which are left out here"
            findings.append(Finding(Severity.ERROR, "bad-entry", text, bad))
        counts = Counter(_key(row["id"]) for row in good)
        text = f"ids that several rows of {name} in {path.name} share; readers keep only the last"
        repeated = [str(id) for id, count in counts.items() if count > 1]
        findings += on_names(Severity.ERROR, "repeated-annotation-id", text, repeated)
        by_id[name] = {_key(row["id"]): row for row in good}
    names = {id: str(row.get("name", f"id {id}")) for id, row in by_id["categories"].items()}
    return Instances(True, by_id["images"], by_id["annotations"], names), findings


def _annotations_of(entry: Mapping[str, Any], table: Instances) -> tuple[list[dict], bool]:
    """Returns the annotations that an entry names and that have a segmentation, and whether one is absent."""
    found = [table.annotations.get(_key(target)) for target in _targets(entry)]
    good = [annotation for annotation in found if annotation and annotation.get("segmentation")]
    if _no_target(entry):
        return good, None in found
    return good, len(good) < len(found) or not found


def _check_segmentations(annotations: Mapping[Any, Mapping[str, Any]]) -> list[Finding]:
    """Says where an RLE stands inside a list of one, which COCO's own tools take for polygons."""
    wrapped = [
        str(id)
        for id, annotation in annotations.items()
        if isinstance(annotation.get("segmentation"), list)
        and len(annotation["segmentation"]) == 1
        and isinstance(annotation["segmentation"][0], dict)
    ]
    text = "masks are a run-length code inside a list of one, where COCO has it bare"
    return on_names(Severity.NOTE, "rle-in-list", text, wrapped)


def _category_number(annotations: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]) -> Any:
    """Returns the category that all annotations of an entry share, or else the entry's own."""
    # the first is RRSIS-D's spelling
    numbers = [row.get("categories_id", row.get("category_id")) for row in annotations]
    given = list(dict.fromkeys(number for number in numbers if _key(number) is not None))
    if given:
        return given[0] if len(given) == 1 else None
    return _key(entry.get("category_id"))


def _category_name(number: Any, table: Instances) -> str | None:
    return None if number is None else table.categories.get(_key(number), f"id {number}")


def _text(sentence: Mapping[str, Any]) -> Any:
    return sentence["raw"] if "raw" in sentence else sentence["sent"]


def _stated_size(image: Mapping[str, Any] | None) -> tuple[int, int] | None:
    height, width = ((image or {}).get(key) for key in ("height", "width"))
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _parts(segmentation: Any) -> list[Any]:
    return segmentation if isinstance(segmentation, list) else [segmentation]


def _key(value: Any) -> Any:
    """Returns an id as a dictionary key, None where it cannot be one."""
    return value if isinstance(value, int | float | str) else None


def _no_target(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("no_target")) or entry.get("ann_id") in (-1, [-1], [])


def _targets(entry: Mapping[str, Any]) -> list[Any]:
    """Returns the annotation ids of an entry; -1 stands for none, as in gRefCOCO."""
    ids = entry.get("ann_id")
    return [id for id in (ids if isinstance(ids, list) else [ids]) if id not in (None, -1)]
