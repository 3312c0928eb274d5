"""What a line of the interchange format has to hold, for its reader and for the audit."""

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s4eca.data.defects import DefectError
from s4eca.data.geometry import Extent, check_fit, check_segmentation
from s4eca.data.images import image_size
from s4eca.data.masks import unusable
from s4eca.data.readers.checks import SPLITS, is_id, read_mark, unique_ids
from s4eca.data.readers.names import below
from s4eca.data.rle import check_size
from s4eca.text import unmark_values

Row = Mapping[str, Any]


def read_row(line: str, number: int, path: Path) -> dict[str, Any]:
    """Returns a line's fields without those that are null, `no_target` as a bool.

    Args:
        line: its text, see `s4eca.text`.
        number: of the line, for messages.
        path: of the file, for messages.

    Raises:
        DefectError: it is no JSON object, lacks a field, or has a value of another type in one.
    """

    def bad(text: str) -> DefectError:
        return DefectError(f"Line {number} of {path} {text}.", "bad-entry", f"line {number}")

    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise bad(f"is no JSON ({error}): mend it or make the file again") from error
    named = isinstance(row, dict) and isinstance(row.get("file_name"), str) and row["file_name"]
    if not named or not isinstance(row.get("sent"), str):
        raise bad("lacks a sent or a file_name: complete or remove it")
    row = {key: value for key, value in unmark_values(row).items() if value is not None}
    try:
        "".join(value for value in row.values() if isinstance(value, str)).encode()
    except UnicodeEncodeError as error:  # the escapes of JSON can leave one half of a pair
        raise bad(f"has half of a character in it, {error.object[error.start]!a}: mend it") from error
    for key in ("image_id", "id"):
        if key in row and not is_id(row[key]):
            raise bad(f"has {key} {reprlib.repr(row[key])}, which is not a whole number or a text: mend it")
    for key in ("split", "category_name", "kind"):
        if not isinstance(row.get(key, ""), str):
            raise bad(f"has {key} {row[key]!r}, which is not a text: mend it")
    try:
        check_size([row.get("height", 1), row.get("width", 1)])
    except ValueError as error:
        sides = f"height {row.get('height')!r} and width {row.get('width')!r}"
        raise bad(f"has {sides}, which is not a size in pixels ({error}): mend it") from error
    try:
        row["no_target"] = bool(read_mark(row.get("no_target")))
    except ValueError as error:
        raise bad(f"is in doubt, {error}: mend it") from error
    return row


def row_ids(rows: Sequence[Row]) -> list[str]:
    """Returns what the references of a file's lines are called, see `read_jsonl`."""
    derived = unique_ids([str(row.get("image_id", Path(below(row["file_name"])).stem)) for row in rows])
    return [str(row.get("id", id)) for row, id in zip(rows, derived, strict=True)]


def row_extent(row: Row) -> Extent | str | None:
    """Returns what a line's segmentation takes up; None where it has none, what is wrong where it cannot be painted."""
    if not row.get("segmentation"):
        return None
    try:
        return check_segmentation(row["segmentation"])
    except ValueError as error:
        return str(error)


def row_size(row: Row, extent: Extent | str | None, image: Path, id: str) -> tuple[int, int] | None:
    """Returns (height, width) of a line's image as far as it is needed: as stated, or for polygons as in its file.

    Raises:
        S4ecaError: the image cannot be read.
    """
    if "height" in row and "width" in row:
        return row["height"], row["width"]
    drawn = isinstance(extent, Extent) and extent.box is not None
    return image_size(image, id) if drawn and image.is_file() else None


def row_defects(
    row: Row, extent: Extent | str | None, size: tuple[int, int] | None, split: str, id: str, number: int, path: Path
) -> Iterator[DefectError]:
    """Yields what leaves the truth of a line missing or in doubt.

    Args:
        row: what `read_row` returned; its `segmentation` is not looked at.
        extent: of its segmentation, see `row_extent`.
        size: of its image, see `row_size`.
        split: of the file.
        id: of the reference.
        number: of the line.
        path: of the file.
    """
    where = f"Line {number} of {path}"
    # "Train", "validation" and "testB" are said of these splits as well; other words say nothing
    stated = row.get("split", split).strip().lower()
    if not stated.startswith(split.strip().lower()) and stated.startswith(SPLITS):
        text = f"{where} belongs to the {row['split']} split by its own field: take it out of this file."
        yield DefectError(text, "other-split", id)
    if extent is None:
        if not row["no_target"]:
            text = f"{where} has no segmentation: complete it, or set no_target if nothing is meant."
            yield DefectError(text, "missing-annotation", id)
        return
    try:
        if isinstance(extent, str):
            raise ValueError(extent)
        check_fit([extent], size)
    except ValueError as error:
        yield unusable(id, path, error)
