"""REFER annotations (`refs(…).p` and `instances.json`) for the audit: every entry that can be made sense of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s4eca.data.audit.findings import Finding, Severity, no_references, on_defects, on_names, on_records
from s4eca.data.audit.keys import check_keys
from s4eca.data.audit.records import Record
from s4eca.data.defects import DefectError
from s4eca.data.masks import StoredMask
from s4eca.data.readers.names import ImageFolder
from s4eca.data.readers.refer_checks import entry_defects, mask_size
from s4eca.data.readers.refer_files import (
    Instances,
    ReferEntry,
    instance_rows,
    load_refs,
    open_instances,
    refer_entry,
)
from s4eca.errors import S4ecaError
from s4eca.text import unmark_values

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
    "missing-image-entry": (Severity.ERROR, "references whose image instances.json does not list"),
    "other-image": (Severity.ERROR, "references whose annotation belongs to another image"),
    "unknown-category": (Severity.WARNING, "references of a category that instances.json does not name"),
    "other-category": (Severity.WARNING, "references whose category is another in instances.json than in refs"),
}


@dataclass
class _Table:
    """`instances.json` as the reader keeps it, None where there is none or it cannot be read, and its rows by id."""

    read: Instances | None = None
    images: dict[Any, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[Any, dict[str, Any]] = field(default_factory=dict)


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
    files = ImageFolder(images)
    table, more = _load_instances(instances, files)
    findings += more
    findings += check_keys([raw for raw, _ in entries], _REF_KEYS, f"entries of {refs.name}")
    findings += check_keys(table.annotations.values(), _ANNOTATION_KEYS, "annotations of instances.json")
    findings += check_keys(table.images.values(), _IMAGE_KEYS, "images of instances.json")

    records: list[Record] = []
    wrong: dict[str, list[int]] = {code: [] for code in _PROBLEMS}
    for raw, entry in entries:
        found = [table.annotations[id] for id in entry.annotations if id in table.annotations]
        number = _category_number(found, entry)
        built = _records_of(raw, entry, found, table, files, _category_name(number, table))
        positions = range(len(records), len(records) + len(built))
        records += built
        if table.read is None:
            continue
        for defect in entry_defects(entry, table.read, refs):
            if defect.code in wrong:  # that a mask cannot be painted will show when it is
                wrong[defect.code] += positions
        if number is not None and number not in table.read.categories:
            wrong["unknown-category"] += positions
        if number is not None and entry.category_id not in (None, number):
            wrong["other-category"] += positions

    for code, (severity, text) in _PROBLEMS.items():
        findings += on_records(severity, code, text, records, dict.fromkeys(wrong[code]))
    findings += _check_lists(entries)
    if table.read is not None:
        findings += _check_segmentations(table.annotations)
        used = {id for _, entry in entries for id in entry.annotations}
        unused = [str(id) for id in table.annotations if id not in used]
        findings += on_names(Severity.NOTE, "unused-annotation", "annotations that no reference uses", unused)
        used = {entry.image_id for _, entry in entries}
        unused = [str(image.get("file_name", id)) for id, image in table.images.items() if id not in used]
        findings += on_names(
            Severity.NOTE, "unused-image-entry", "images in instances.json that no reference uses", unused
        )
    return records, findings


def _records_of(
    raw: Mapping[str, Any],
    entry: ReferEntry,
    annotations: Sequence[Mapping[str, Any]],
    table: _Table,
    files: ImageFolder,
    category: str | None,
) -> list[Record]:
    """Returns one record per sentence of an entry."""
    image = table.read.images.get(entry.image_id) if table.read is not None else None
    name = raw.get("file_name")
    path = files.file(name) if isinstance(name, str) and name else None
    size = image.size if image is not None else None
    mask = None
    if table.read is not None:
        kept = [table.read.annotations[id] for id in entry.annotations if id in table.read.annotations]
        spans = tuple(number for annotation in kept if not annotation.empty for number in annotation.span)
        try:
            known = mask_size(image, kept, entry.name) if image is not None else None
        except S4ecaError:  # the image's own defect
            known = None
        # without the image polygons have no size, and are not painted
        if spans and (known or not any(annotation.drawn for annotation in kept)):
            mask = StoredMask(table.read.file, spans, known, entry.name)
    alone = annotations[0] if len(annotations) == 1 else {}  # a box around several targets is not stored
    return [
        Record(
            id=entry.name if len(entry.sentences) == 1 else f"{entry.name}_{position}",
            split=str(entry.split),
            expression=sentence,
            category=category,
            image=image.path if image is not None else path,
            mask=mask,
            no_target=entry.no_target,
            stated_size=size,
            bbox=alone.get("bbox"),
            area=alone.get("area"),
        )
        for position, sentence in enumerate(entry.sentences)
    ]


def _load_refs(path: Path) -> tuple[list[tuple[dict[str, Any], ReferEntry]], list[Finding]]:
    """Returns the entries that have every field they need, as they are and as the reader keeps them."""
    try:
        content = load_refs(path)
    except S4ecaError as error:
        text = f"{path.name} cannot be read ({str(error).rstrip('.')})"
        return [], on_names(Severity.ERROR, "unreadable-file", text, [path.name])
    good: list[tuple[dict[str, Any], ReferEntry]] = []
    bad: list[DefectError] = []
    for position, raw in enumerate(content):
        try:
            entry = refer_entry(raw, position, path)
            good.append((unmark_values(raw), entry))
        except DefectError as defect:
            bad.append(defect)
    return good, no_references(path, len(content)) + on_defects(
        f"entries of {path.name} that cannot be used and are left out here", bad
    )


def _load_instances(path: Path | None, folder: ImageFolder) -> tuple[_Table, list[Finding]]:
    """Returns what the COCO file holds, without the rows that cannot be used."""
    if path is None:
        return _Table(), []
    counts: Counter[tuple[str, Any]] = Counter()
    defects: dict[str, list[DefectError]] = {}
    try:
        table = _Table(open_instances(path, folder))
        assert table.read is not None
        rows: dict[str, dict[Any, Any]] = {"images": table.images, "annotations": table.annotations, "categories": {}}
        for part, raw, span in instance_rows(path):
            found = list(table.read.add(part, raw, span))
            for defect in found:
                defects.setdefault(defect.code, []).append(defect)
            if not any(defect.code == "bad-entry" for defect in found):
                counts[part, raw["id"]] += 1
                rows[part][raw["id"]] = raw
    except S4ecaError as error:
        text = f"{str(error).rstrip('.')}; masks and boxes are left out"
        return _Table(), on_names(Severity.ERROR, "unreadable-file", text, [path.name])
    texts = {
        "bad-entry": f"rows of {path.name} that cannot be used and are left out here",
        "repeated-annotation-id": f"ids that different rows of {path.name} share",
    }
    findings = [finding for code, text in texts.items() for finding in on_defects(text, defects.get(code, []))]
    differing = {defect.name for defect in defects.get("repeated-annotation-id", [])}
    same = [str(id) for (_, id), count in counts.items() if count > 1 and str(id) not in differing]
    text = f"rows of {path.name} that are repeated as they are"
    return table, findings + on_names(Severity.WARNING, "repeated-row", text, same)


def _check_lists(entries: Sequence[tuple[Mapping[str, Any], ReferEntry]]) -> list[Finding]:
    """Finds entries with something superfluous, which changes no truth."""
    silent = [entry.name for _, entry in entries if not entry.sentences]
    text = "entries without a sentence, which are no reference"
    findings = on_names(Severity.WARNING, "no-sentence", text, silent)
    odd = [
        entry.name
        for _, entry in entries
        if isinstance(entry.ann_id, tuple) and len(entry.ann_id) > max(len(entry.annotations), 1)
    ]
    text = "entries whose list of annotations repeats one, or holds -1 beside others; each counts once"
    findings += on_names(Severity.WARNING, "repeated-in-list", text, odd)
    sentences: dict[str, set[tuple[Any, str]]] = {}
    for raw, entry in entries:
        for sentence, text in zip(raw["sentences"], entry.sentences, strict=True):
            if sentence.get("sent_id") is not None:
                sentences.setdefault(str(sentence["sent_id"]), set()).add((entry.image_id, text))
    shared = [id for id, meant in sentences.items() if len(meant) > 1]
    text = "sentence ids that stand for different sentences; nothing here uses them, other people's code does"
    return findings + on_names(Severity.WARNING, "repeated-sentence-id", text, shared)


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


def _category_number(annotations: Sequence[Mapping[str, Any]], entry: ReferEntry) -> Any:
    """Returns the category that all annotations of an entry share, or else the entry's own."""
    # the first is RRSIS-D's spelling
    numbers = [row.get("categories_id", row.get("category_id")) for row in annotations]
    given = list(dict.fromkeys(number for number in numbers if number is not None))
    if given:
        return given[0] if len(given) == 1 else None
    return entry.category_id


def _category_name(number: Any, table: _Table) -> str | None:
    if number is None:
        return None
    return (table.read.categories if table.read is not None else {}).get(number, f"id {number}")
