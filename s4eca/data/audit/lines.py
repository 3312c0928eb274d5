"""Interchange files (`*.jsonl`, one reference per line) for the audit, read line by line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s4eca.data.audit.findings import Finding, Severity, on_names, on_records
from s4eca.data.audit.keys import check_keys
from s4eca.data.audit.records import Record
from s4eca.data.images import image_size
from s4eca.data.masks import RleMask
from s4eca.data.readers.checks import SPLITS, unique_ids
from s4eca.data.readers.jsonl import fullest_folder
from s4eca.errors import S4ecaError

_KEYS = (
    *("split", "image_id", "sent", "file_name", "segmentation", "category_id", "category_name", "ann_id", "bbox"),
    *("area", "id", "height", "width", "no_target"),
)

Row = Mapping[str, Any]


def read_lines(files: Mapping[str, Path], root: Path) -> tuple[list[Record], list[Finding]]:
    """Reads interchange files; a line that is no JSON object or lacks a field does not end it.

    Args:
        files: file by split; the split of a file under any other key is what its lines say.
        root: the folder below which the images are looked for, in the places that `read_jsonl` knows. Of these it
            takes the one that has most of them, so that a missing first image does not hide the others.

    Returns:
        One record per line, with the ids of `read_jsonl`, and what is wrong with the files themselves.
    """
    rows: dict[str, list[Row]] = {}
    findings: list[Finding] = []
    for split, path in files.items():
        rows[split], more = _read(path)
        findings += more
    every = [row for part in rows.values() for row in part]
    findings += check_keys(every, _KEYS, "lines")

    folder, _ = fullest_folder(root, (row["file_name"] for row in every))
    records: list[Record] = []
    absent, elsewhere = [], []
    for split, part in rows.items():
        ids = unique_ids([str(row.get("image_id", Path(row["file_name"]).stem)) for row in part])
        for row, id in zip(part, ids, strict=True):
            given = row.get("split")
            if not row.get("segmentation") and not row.get("no_target"):
                absent.append(len(records))
            if split in SPLITS and given in set(SPLITS) - {split}:
                elsewhere.append(len(records))
            records.append(_record(row, split if split in SPLITS else str(given), str(row.get("id") or id), folder))
    text = "references without a segmentation that are not marked as without a target"
    findings += on_records(Severity.ERROR, "missing-annotation", text, records, absent)
    text = "lines that belong to another split than their file by their own field"
    return records, findings + on_records(Severity.ERROR, "other-split", text, records, elsewhere)


def _read(path: Path) -> tuple[list[Row], list[Finding]]:
    """Returns the lines that have every field they need."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        text = f"annotation files that cannot be read ({error.strerror})"
        return [], on_names(Severity.ERROR, "unreadable-file", text, [path.name])
    rows, bad = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            complete = all(isinstance(row[key], str) for key in ("sent", "file_name"))
        except (ValueError, KeyError, TypeError, RecursionError):
            complete = False
        if complete:
            rows.append(row)
        else:
            bad.append(f"line {number}")
    text = f"lines of {path.name} that are no JSON object with sent and file_name, left out here"
    return rows, on_names(Severity.ERROR, "bad-entry", text, bad)


def _record(row: Row, split: str, id: str, folder: Path) -> Record:
    image = folder / row["file_name"]
    height, width = row.get("height"), row.get("width")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    parts = row.get("segmentation") or []
    parts = parts if isinstance(parts, list) else [parts]
    if parts and isinstance(parts[0], list) and size is None:
        try:
            drawn: tuple[int, int] | None = image_size(image, id)
        except S4ecaError:  # without the image polygons have no size, and are not checked
            parts, drawn = [], None
    else:
        drawn = size
    number, name = row.get("category_id"), row.get("category_name")
    return Record(
        id=id,
        split=split,
        expression=row["sent"].strip(),
        category=name if isinstance(name, str) else None if number is None else f"id {number}",
        image=image,
        mask=RleMask(parts, drawn, id) if parts else None,
        no_target=bool(row.get("no_target")),
        stated_size=size,
        bbox=row.get("bbox"),
        area=row.get("area"),
    )
