"""Reader and writer of the interchange format of RSRefSeg2, DiCoR and RS-VLMamba: one JSON object on every line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.defects import DefectError, raise_first
from s4eca.data.geometry import Extent
from s4eca.data.masks import AnnotationFile, EmptyMask, StoredMask, encode_mask
from s4eca.data.readers.checks import (
    SPLITS,
    check_by_split,
    check_count,
    check_expressions,
    check_files,
    check_split,
    check_unique,
    dataset_name,
    published_counts,
    unique_ids,
)
from s4eca.data.readers.collection import paused_collection
from s4eca.data.readers.jsonl_rows import Row, read_row, row_defects, row_extent, row_ids, row_size
from s4eca.data.readers.listing import IMAGE_SUFFIXES, Listing
from s4eca.data.readers.names import ImageFolder, fullest_folder
from s4eca.data.readers.refer_layout import check_root
from s4eca.data.readers.writing import References, file_names, flatten, place_images
from s4eca.data.references import MaskSource, Reference
from s4eca.errors import S4ecaError
from s4eca.folders import visible
from s4eca.text import byte_lines, decode, unmark

_FOLDERS = ("", "datainfo")
_KEPT = ("sent", "file_name", "image_id", "id", "split", "category_name", "height", "width", "no_target", "kind")
_IMAGE_FOLDERS = (
    "images",
    "",
    "images/rrsisd/JPEGImages",
    "RRSIS-D/images/rrsisd/JPEGImages",
    "RefSegRS/images",
    "RISBench_dataset/img_rgb",
    "images/JPEGImages",
    "JPEGImages",
    "img_rgb",
)


def read_jsonl(
    root: str | Path,
    split: str,
    strict_counts: bool = False,
    name: str | None = None,
    images: str | None = None,
    expected: Mapping[str, int] | None = None,
    need_files: bool = True,
) -> list[Reference]:
    """Reads one split in the order of its lines.

    The fields are `sent`, `file_name`, `image_id` and `segmentation` (RLE, a list of RLEs, or polygons), and where they
    are there `category_name` and `split`; `bbox`, `area`, `ann_id` and `category_id` are not used. Of our own are `id`,
    `kind` (of the expression), and `no_target` for an expression that names nothing, whose `segmentation` is empty or
    missing. Without an `id` a reference is called by its `image_id`, the second of the same image `IMAGE_1`, and so on.

    Args:
        root: the folder with `NAME_{split}.jsonl` or `{split}.jsonl`, or one above `datainfo`.
        split: `train`, `val` or `test`.
        strict_counts: a split size other than the expected one is an error instead of a warning.
        name: NAME, where several files of a split are there.
        images: image folder below the root, where it is in none of the usual places.
        expected: split sizes.
        need_files: False to read the annotations without their images.

    Raises:
        S4ecaError: files are missing, or a line is damaged or lacks a field.
    """
    check_split(split)
    root = check_root(root, "a dataset of .jsonl files")
    path = find_file(root, split, name)
    counts = published_counts(name or "", {}, expected, strict_counts)
    with paused_collection():
        file = AnnotationFile.of(path)
        lines = _read_lines(path)
        folder = _find_images(root, images, [line.row for line in lines], path, need_files)
        ids = row_ids([line.row for line in lines])
        references = [_reference(line, id, split, folder, file) for line, id in zip(lines, ids, strict=True)]
    check_unique(references, path)
    check_expressions(references, path)
    if need_files:
        check_files(references, [reference.image for reference in references])
    check_count(str(path), split, len(references), counts, strict_counts)
    return references


def image_folders(root: Path) -> list[Path]:
    """Returns where the images may be: beside the file, or where the datasets have them."""
    return [root / name for name in _IMAGE_FOLDERS]


def find_file(root: Path, split: str, name: str | None = None) -> Path:
    """Returns the file of a split; raises `S4ecaError` where there is none, or several and no name."""
    found = [
        path
        for folder in _FOLDERS
        for path in visible(root / folder, "*.jsonl")
        if (path.stem == f"{name}_{split}" if name else path.stem == split or path.stem.endswith(f"_{split}"))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise S4ecaError(
            f"{root} has several files of the {split} split ({', '.join(str(path) for path in found)}):"
            " choose one with data.name=NAME for NAME_train.jsonl, or move the others away."
        )
    wanted = [f"{name}_{split}.jsonl"] if name else [f"{split}.jsonl", f"NAME_{split}.jsonl"]
    places = ", ".join(str(root / folder / file) for folder in _FOLDERS for file in wanted)
    raise S4ecaError(
        f"The {split} split was not found in {root}: give the folder of its file (looked for {places};"
        f" {Listing().describe(root)})."
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """What is kept of a line: its number, its place in the file, its fields and what its segmentation takes up."""

    number: int
    span: tuple[int, int]
    row: Row
    extent: Extent | str | None


def _read_lines(path: Path) -> list[_Line]:
    lines = []
    try:
        with path.open("rb") as stream:
            for number, offset, content in byte_lines(stream):
                row = read_row(unmark(content.decode("utf-8")), number, path)
                kept = {key: row[key] for key in _KEPT if key in row}
                lines.append(_Line(number, (offset, len(content)), kept, row_extent(row)))
    except OSError as error:
        raise S4ecaError(f"{path} cannot be read ({error.strerror}): make it readable.") from error
    except (UnicodeDecodeError, DefectError):
        decode(path.read_bytes(), path)  # names another encoding, or another kind of file
        raise
    return lines


def _find_images(root: Path, images: str | None, rows: Sequence[Row], path: Path, need_files: bool) -> ImageFolder:
    """Returns the named image folder, or the one that has most of the lines' images."""
    if images:
        if need_files and not (root / images).is_dir():
            raise S4ecaError(f"There is no folder {root / images}: set data.images to the folder with the images.")
        return ImageFolder(root / images)
    folder, count = fullest_folder(image_folders(root), (row["file_name"] for row in rows))
    if rows and count == 0 and need_files:
        raise S4ecaError(f"The images of {path} were not found{_looked_for(root, rows[0]['file_name'])}.")
    return folder


def _looked_for(root: Path, file_name: str) -> str:
    """Returns what was looked for and what is there instead, with the remedy that fits."""
    listing = Listing()
    places = image_folders(root)
    there = [place for place in places if any(name.lower().endswith(IMAGE_SUFFIXES) for name in listing.folder(place))]
    if there:
        return (
            f": {listing.describe(there[0])}, and the first line asks for {file_name!r}; correct file_name, or name"
            " another folder with data.images=FOLDER"
        )
    return (
        f": name their folder with data.images=FOLDER (looked for"
        f" {', '.join(str(place / file_name) for place in places)})"
    )


def _reference(line: _Line, id: str, split: str, folder: ImageFolder, file: AnnotationFile) -> Reference:
    row, extent, path = line.row, line.extent, folder.file(line.row["file_name"])
    size = row_size(row, extent, path, id)
    raise_first(row_defects(row, extent, size, split, id, line.number, file.path))
    no_target = row["no_target"]
    mask: MaskSource = EmptyMask(path, size, id)
    if extent is not None:
        mask = StoredMask(file, line.span, size, id)
        if no_target and mask.covers():
            text = (
                f"Line {line.number} of {file.path} is marked no_target and its mask is not empty: mend one of the two."
            )
            raise DefectError(text, "no-target-with-mask", id)
    return Reference(id, path, row["sent"].strip(), split, row.get("category_name"), mask, no_target, row.get("kind"))


def write_jsonl(references: References, out: Path, images: str, name: str | None = None) -> None:
    """Writes `{split}.jsonl`, or `NAME_{split}.jsonl`, and `images/` into an empty folder.

    This layout can hold every reference.

    Masks are compressed RLE; `bbox` (x, y, width, height) and `area` are those of the mask, in pixels. `category_id`
    counts the categories of all splits in the order of their names, from 0.

    Args:
        references: by split.
        out: the folder.
        images: `link` or `copy`.
        name: NAME; None for none.
    """
    items = flatten(references)
    names = file_names(items)
    image_ids = _image_ids(names.values())
    categories = sorted({item.category for item in items if item.category is not None})
    place_images(names, out / "images", images)
    prefix = f"{name}_" if name else ""
    for split, members in references.items():
        derived = unique_ids([str(image_ids[names[item.image]]) for item in members])
        with (out / f"{prefix}{split}.jsonl").open("w", encoding="utf-8", newline="") as stream:
            for item, id in zip(members, derived, strict=True):
                file, rle = names[item.image], encode_mask(item.mask.decode())
                row: dict[str, Any] = {"split": split, "image_id": image_ids[file], "sent": item.expression}
                row |= {"file_name": file, "segmentation": rle}
                row |= {"bbox": [int(side) for side in coco.toBbox(rle)], "area": int(coco.area(rle))}
                if item.category is not None:
                    row |= {"category_id": categories.index(item.category), "category_name": item.category}
                if item.kind is not None:
                    row["kind"] = item.kind
                if item.id != id:
                    row["id"] = item.id
                if item.no_target:
                    row["no_target"] = True
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _image_ids(names: Iterable[str]) -> dict[str, int | str]:
    """Returns what RSRefSeg2 calls an image: 2934 for 02934.jpg, and for any other the name without its ending.

    Where two images would be called the same, all keep their whole names.
    """
    stems = {name: Path(name).stem for name in names}
    ids = {name: int(stem) if stem.isascii() and stem.isdecimal() else stem for name, stem in stems.items()}
    return ids if len(set(map(str, ids.values()))) == len(ids) else {name: name for name in stems}


class JsonlDataModule(ReferringDataModule):
    """A dataset in the interchange format; results stand under NAME of its `NAME_train.jsonl`, if it has one.

    Args:
        name: see `read_jsonl`; likewise `images` and `expected`.
        images: see `read_jsonl`.
        expected: see `read_jsonl`.
        options: as for `ReferringDataModule`.
    """

    name = "jsonl"

    def __init__(
        self,
        *,
        name: str | None = None,
        images: str | None = None,
        expected: Mapping[str, int] | None = None,
        max_tokens: int = 50,
        **options: Any,
    ) -> None:
        super().__init__(max_tokens=max_tokens, **options)
        self.file_name = name
        self.name = dataset_name(name or self._found_name() or self.name)
        check_by_split("expected", expected, int)
        self.images = images
        self.expected = expected

    def _found_name(self) -> str | None:
        """Returns NAME of the first split that is there; None where it has none, or there is no (one) file yet."""
        for split in SPLITS:
            try:
                stem = find_file(self.root, split).stem
            except S4ecaError:
                continue
            return stem.removesuffix(split).removesuffix("_") or None
        return None

    def read(self, split: str) -> list[Reference]:
        """Returns the references of a split, see `read_jsonl`."""
        return read_jsonl(self.root, split, self.strict_counts, self.file_name, self.images, self.expected)
