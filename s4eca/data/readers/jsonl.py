"""Reader and writer of the interchange format of RSRefSeg2, DiCoR and RS-VLMamba: one JSON object on every line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.images import image_size
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
from s4eca.data.readers.listing import Listing
from s4eca.data.readers.refer_layout import check_root
from s4eca.data.readers.writing import References, file_names, flatten, place_images
from s4eca.data.references import MaskSource, Reference
from s4eca.errors import S4ecaError

_FOLDERS = ("", "datainfo")
# Where the images of a line's `file_name` may be, below the root: beside the file, or where the datasets have them.
IMAGE_FOLDERS = (
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
_TYPES: dict[str, tuple[type, ...]] = {
    "image_id": (int, str),
    "id": (int, str),
    "split": (str,),
    "category_name": (str,),
    "height": (int,),
    "width": (int,),
}


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

    The fields are `sent`, `file_name`, `image_id` and `segmentation` (RLE, a list of RLEs, or polygons), and where
    they are there `category_name` and `split`; `bbox`, `area`, `ann_id` and `category_id` are not used. Of our own are
    `id`, and `no_target` for an expression that names nothing, whose `segmentation` is empty or missing. Without an
    `id` a reference is called by its `image_id`, the second of the same image `IMAGE_1`, and so on.

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
        rows = _read_lines(path)
        folder = _find_images(root, images, rows, path, need_files)
        ids = unique_ids([str(row.get("image_id", Path(row["file_name"]).stem)) for row, _ in rows])
        references = [
            _reference(row, id, span, split, folder, file, number)
            for number, (id, (row, span)) in enumerate(zip(ids, rows, strict=True), start=1)
        ]
    check_unique(references, path)
    check_expressions(references, path)
    if need_files:
        check_files(references, [reference.image for reference in references])
    check_count(str(path), split, len(references), counts, strict_counts)
    return references


def find_file(root: Path, split: str, name: str | None = None) -> Path:
    """Returns the file of a split; raises `S4ecaError` where there is none, or several and no name."""
    pattern = f"{name}_{split}.jsonl" if name else f"*{split}.jsonl"
    found = [
        path
        for folder in _FOLDERS
        for path in sorted((root / folder).glob(pattern))
        if name or path.name == f"{split}.jsonl" or path.name.endswith(f"_{split}.jsonl")
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise S4ecaError(
            f"{root} has several files of the {split} split ({', '.join(str(path) for path in found)}):"
            " choose one with name=… (data.name=NAME for NAME_train.jsonl)."
        )
    wanted = [f"{name}_{split}.jsonl"] if name else [f"{split}.jsonl", f"NAME_{split}.jsonl"]
    places = ", ".join(str(root / folder / file) for folder in _FOLDERS for file in wanted)
    raise S4ecaError(f"The {split} split was not found in {root}: give the folder of its file (looked for {places}).")


def _read_lines(path: Path) -> list[tuple[dict[str, Any], tuple[int, int]]]:
    """Returns what is kept of each line, and its place in the file."""
    rows = []
    offset, number = 0, 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    rows.append((_slim(json.loads(line.decode("utf-8")), number, path), (offset, len(line))))
                offset += len(line)
    except (OSError, ValueError) as error:
        raise S4ecaError(f"Line {number} of {path} is no JSON ({error}): mend it or make the file again.") from error
    return rows


def _slim(row: Any, number: int, path: Path) -> dict[str, Any]:
    """Returns a line's fields with `segmentation` as what kind it is of: `rle`, `polygons` or None."""
    if not isinstance(row, dict) or not isinstance(row.get("sent"), str) or not isinstance(row.get("file_name"), str):
        raise S4ecaError(f"Line {number} of {path} lacks a sent or a file_name: complete or remove it.")
    for key, types in _TYPES.items():
        if row.get(key) is not None and not isinstance(row[key], types):
            wanted = " or ".join({int: "a whole number", str: "a text"}[type] for type in types)
            raise S4ecaError(f"Line {number} of {path} has {key} {row[key]!r}, which is not {wanted}: mend it.")
    parts = row.get("segmentation")
    kind = None
    if parts:
        kind = "polygons" if isinstance(parts, list) and isinstance(parts[0], list) else "rle"
    kept = ("sent", "file_name", "no_target", *_TYPES)
    return {"segmentation": kind, **{key: row[key] for key in kept if row.get(key) is not None}}


def _find_images(root: Path, images: str | None, rows: list[Any], path: Path, need_files: bool) -> Path:
    """Returns the named image folder, or the one that has most of the lines' images."""
    if images:
        if need_files and not (root / images).is_dir():
            raise S4ecaError(f"There is no folder {root / images}: set data.images to the folder with the images.")
        return root / images
    folder, count = fullest_folder(root, (row["file_name"] for row, _ in rows))
    if rows and count == 0 and need_files:
        file_name = rows[0][0]["file_name"]
        raise S4ecaError(
            f"The images of {path} were not found: name their folder with images=… (looked for"
            f" {', '.join(str(root / name / file_name) for name in IMAGE_FOLDERS)})."
        )
    return folder


def fullest_folder(root: Path, names: Iterable[str]) -> tuple[Path, int]:
    """Returns which of `IMAGE_FOLDERS` below `root` has most of the files `names`, and how many; the first at a tie."""
    wanted: dict[str, set[str]] = {}
    for below, _, name in (name.rpartition("/") for name in names):
        wanted.setdefault(below, set()).add(name)
    listing = Listing()
    counts = {
        root / folder: sum(len(files & listing.folder(root / folder / below)) for below, files in wanted.items())
        for folder in IMAGE_FOLDERS
    }
    return max(counts.items(), key=lambda item: item[1])


def _reference(
    row: dict[str, Any],
    derived: str,
    span: tuple[int, int],
    split: str,
    folder: Path,
    file: AnnotationFile,
    number: int,
) -> Reference:
    where = f"Line {number} of {file.path}"
    if row.get("split", split) in set(SPLITS) - {split}:
        raise S4ecaError(f"{where} belongs to the {row['split']} split by its own field: take it out of this file.")
    id, path = str(row.get("id", derived)), folder / row["file_name"]
    no_target = bool(row.get("no_target"))
    size = (row["height"], row["width"]) if "height" in row and "width" in row else None
    if row["segmentation"] == "polygons" and size is None and path.is_file():
        size = image_size(path, id)
    mask = StoredMask(file, span, size, id)
    if row["segmentation"] is None and not no_target:
        raise S4ecaError(f"{where} has no segmentation: complete it, or set no_target if nothing is meant.")
    if row["segmentation"] is not None and no_target and mask.covers():
        raise S4ecaError(f"{where} is marked no_target and its mask is not empty: mend one of the two.")
    source: MaskSource = EmptyMask(path, size, id) if row["segmentation"] is None else mask
    return Reference(id, path, row["sent"].strip(), split, row.get("category_name"), source, no_target)


def write_jsonl(references: References, out: Path, images: str) -> None:
    """Writes `{split}.jsonl` and `images/` into an empty folder; this layout can hold every reference.

    Masks are compressed RLE; `bbox` (x, y, width, height) and `area` are those of the mask, in pixels. `category_id`
    counts the categories of all splits in the order of their names, from 0.

    Args:
        references: by split.
        out: the folder.
        images: `link` or `copy`.
    """
    items = flatten(references)
    names = file_names(items)
    image_ids = _image_ids(names.values())
    categories = sorted({item.category for item in items if item.category is not None})
    place_images(names, out / "images", images)
    for split, members in references.items():
        derived = unique_ids([str(image_ids[names[item.image]]) for item in members])
        with (out / f"{split}.jsonl").open("w", encoding="utf-8", newline="") as stream:
            for item, id in zip(members, derived, strict=True):
                name, rle = names[item.image], encode_mask(item.mask.decode())
                row: dict[str, Any] = {"split": split, "image_id": image_ids[name], "sent": item.expression}
                row |= {"file_name": name, "segmentation": rle}
                row |= {"bbox": [int(side) for side in coco.toBbox(rle)], "area": int(coco.area(rle))}
                if item.category is not None:
                    row |= {"category_id": categories.index(item.category), "category_name": item.category}
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
