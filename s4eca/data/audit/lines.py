"""Interchange files (`*.jsonl`, one reference per line) for the audit, read line by line."""

from collections.abc import Mapping
from pathlib import Path

from s4eca.data.audit.encoding import text_lines
from s4eca.data.audit.findings import Finding, Severity, on_defects, on_names, on_records
from s4eca.data.audit.keys import check_keys
from s4eca.data.audit.records import Record
from s4eca.data.defects import DefectError
from s4eca.data.masks import RleMask
from s4eca.data.readers.checks import SPLITS
from s4eca.data.readers.jsonl import image_folders
from s4eca.data.readers.jsonl_rows import Row, read_row, row_defects, row_extent, row_ids, row_size
from s4eca.data.readers.names import ImageFolder, below, fullest_folder
from s4eca.errors import S4ecaError

_KEYS = (
    *("split", "image_id", "sent", "file_name", "segmentation", "category_id", "category_name", "ann_id", "bbox"),
    *("area", "id", "height", "width", "no_target"),
)

_PROBLEMS = {
    "missing-annotation": "references without a segmentation that are not marked as without a target",
    "other-split": "lines that belong to another split than their file by their own field",
}


def read_lines(files: Mapping[str, Path], root: Path) -> tuple[list[Record], list[Finding]]:
    """Reads interchange files; a line that its reader refuses does not end it.

    Args:
        files: file by split; the split of a file under any other key is what its lines say.
        root: the folder below which the images are looked for, in the places that `read_jsonl` knows. Of these it
            takes the one that has most of them, so that a missing first image does not hide the others.

    Returns:
        One record per line, with the ids of `read_jsonl`, and what is wrong with the files themselves.
    """
    rows: dict[str, list[tuple[int, Row]]] = {}
    findings: list[Finding] = []
    for split, path in files.items():
        rows[split], more = _read(path)
        findings += more
    every = [row for part in rows.values() for _, row in part]
    findings += check_keys(every, _KEYS, "lines")

    folder, _ = fullest_folder(image_folders(root), (row["file_name"] for row in every))
    records: list[Record] = []
    wrong: dict[str, list[int]] = {code: [] for code in _PROBLEMS}
    for split, part in rows.items():
        ids = row_ids([row for _, row in part])
        for (number, row), id in zip(part, ids, strict=True):
            record = _record(row, split if split in SPLITS else str(row.get("split")), id, folder)
            # that a mask cannot be painted will show when it is
            for defect in row_defects(row, row_extent(row), None, record.split, id, number, files[split]):
                if defect.code in wrong:
                    wrong[defect.code].append(len(records))
            records.append(record)
    for code, text in _PROBLEMS.items():
        findings += on_records(Severity.ERROR, code, text, records, wrong[code])
    return records, findings + _check_images(rows)


def _read(path: Path) -> tuple[list[tuple[int, Row]], list[Finding]]:
    """Returns the lines that have every field they need, each with its number."""
    lines, findings = text_lines(path)
    rows: list[tuple[int, Row]] = []
    bad: list[DefectError] = []
    for number, line in lines:
        try:
            rows.append((number, read_row(line, number, path)))
        except DefectError as defect:
            bad.append(defect)
    return rows, findings + on_defects(f"lines of {path.name} that cannot be used and are left out here", bad)


def _check_images(rows: Mapping[str, list[tuple[int, Row]]]) -> list[Finding]:
    """Finds image ids that a split gives to several images: references called by them are told apart by their order."""
    files: dict[tuple[str, str], dict[str, None]] = {}
    for split, part in rows.items():
        for _, row in part:
            if "image_id" in row and "id" not in row:
                files.setdefault((split, str(row["image_id"])), {})[below(row["file_name"])] = None
    several = [f"{id}: {', '.join(names)}" for (_, id), names in files.items() if len(names) > 1]
    return on_names(Severity.WARNING, "image-id-of-several", "image ids that stand for several image files", several)


def _record(row: Row, split: str, id: str, folder: ImageFolder) -> Record:
    image = folder.file(row["file_name"])
    stated = (row["height"], row["width"]) if "height" in row and "width" in row else None
    extent = row_extent(row)
    try:
        size = row_size(row, extent, image, id)
    except S4ecaError:  # the image's own defect
        size = None
    parts = row.get("segmentation") or []
    parts = parts if isinstance(parts, list) else [parts]
    unsized = size is None and not isinstance(extent, str | None) and extent.box is not None
    number, name = row.get("category_id"), row.get("category_name")
    return Record(
        id=id,
        split=split,
        expression=row["sent"].strip(),
        category=name if name is not None or number is None else f"id {number}",
        image=image,
        # without the image polygons have no size, and are not painted
        mask=RleMask(parts, size, id) if parts and not unsized else None,
        no_target=row["no_target"],
        stated_size=stated,
        bbox=row.get("bbox"),
        area=row.get("area"),
    )
