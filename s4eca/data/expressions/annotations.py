"""COCO instance annotations as the grammar takes them, with everything that would make an expression untrue checked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s4eca.data.defects import raise_first
from s4eca.data.expressions.grammar import Instance, is_plain, words_of
from s4eca.data.expressions.tally import Tally
from s4eca.data.geometry import check_fit
from s4eca.data.images import image_size
from s4eca.data.masks import StoredMask, encode_mask
from s4eca.data.readers.names import ImageFolder
from s4eca.data.readers.refer_files import Annotation, Instances, instance_rows, open_instances
from s4eca.errors import S4ecaError
from s4eca.wording import first

# annotators leave a pixel or two between a thing that is cut off and the border
_BORDER = 2


@dataclass(frozen=True, slots=True)
class Scene:
    """One image and what is known of it.

    Attributes:
        name: the image's path below the folder of images.
        image: its file.
        size: (height, width).
        instances: all that are usable.
        barred: names of classes of which some instance is not usable, so that none can be called the only one.
        masks: by annotation.
        categories: as the file calls them, by annotation.
    """

    name: str
    image: Path
    size: tuple[int, int]
    instances: tuple[Instance, ...]
    barred: frozenset[str]
    masks: Mapping[Any, StoredMask]
    categories: Mapping[Any, str]


def read_scenes(path: Path, folder: Path, skip_missing: bool, left_out: Tally) -> list[Scene]:
    """Reads a COCO file of instances and measures every mask.

    An instance cannot be used if it is a crowd (`iscrowd`), has no mask, one that cannot be painted, does not fit its
    image or is empty, or if its class has a name that turns change. Such instances bar their class in their image.
    Annotations of one class with the same mask are one instance.

    Args:
        path: the file.
        folder: where its images are.
        skip_missing: images that are not in the folder are left out instead of being an error.
        left_out: is told of everything that is left out.

    Raises:
        S4ecaError: the file is damaged, contradicts itself or its images, or no annotation has a mask.
    """
    if not folder.is_dir():
        raise S4ecaError(f"There is no folder {folder}: give the folder with the images of {path}.")
    found = open_instances(path, ImageFolder(folder))
    crowds = set()
    for part, raw, span in instance_rows(path):
        raise_first(found.add(part, raw, span))
        if part == "annotations" and raw.get("iscrowd"):
            crowds.add(raw["id"])
    members = _by_image(found)
    _check_files(found, skip_missing, left_out)
    scenes = []
    for image_id, image in found.images.items():
        if not image.path.is_file():
            continue
        size = image_size(image.path, str(image_id))
        if image.size not in (None, size):
            raise S4ecaError(
                f"Image {image.path} has {size[1]} x {size[0]} pixels and {path} says {image.size[1]} x"
                f" {image.size[0]} (width x height): give the images that were annotated, at their size."
            )
        name = Path(os.path.relpath(image.path, folder)).as_posix()
        scenes.append(_measure(found, members.get(image_id, {}), crowds, name, image.path, size, left_out))
    return scenes


def _by_image(found: Instances) -> dict[Any, dict[Any, Annotation]]:
    """Returns the annotations of every image by id, after checking what they point to."""
    path = found.file.path
    members: dict[Any, dict[Any, Annotation]] = {}
    if all(annotation.empty for annotation in found.annotations.values()):
        count = len(found.annotations)
        raise S4ecaError(
            f"{path} has {f'{count:,} annotations and none of them a mask' if count else 'no annotations'}: give a COCO"
            " file of instance segmentations, as expressions are made for masks."
        )
    for id, annotation in found.annotations.items():
        for what, key, table in (
            ("image", annotation.image_id, found.images),
            ("category", annotation.category_id, found.categories),
        ):
            if key not in table:
                raise S4ecaError(
                    f"Annotation {id} of {path} has {what}_id {key!r}, which the file does not list: take a whole copy"
                    " of it, or mend it."
                )
        members.setdefault(annotation.image_id, {})[id] = annotation
    return members


def _check_files(found: Instances, skip_missing: bool, left_out: Tally) -> None:
    entries: dict[Path, Any] = {}
    for id, image in found.images.items():
        if image.path in entries:
            raise S4ecaError(
                f"{found.file.path} has {image.path.name} twice, as image {entries[image.path]} and image {id}: join"
                " their annotations under one of them."
            )
        entries[image.path] = id
    missing = [str(path) for path in entries if not path.is_file()]
    if missing and (len(missing) == len(entries) or not skip_missing):
        raise S4ecaError(
            f"{len(missing):,} of {len(entries):,} images of {found.file.path} are missing ({first(missing, 3)}): give"
            " the folder that holds them, or leave missing ones out with --skip-missing."
        )
    left_out.add("images that are not in the folder", first(missing, 1), len(missing))


def _measure(
    found: Instances,
    members: Mapping[Any, Annotation],
    crowds: set[Any],
    name: str,
    image: Path,
    size: tuple[int, int],
    left_out: Tally,
) -> Scene:
    instances, barred, seen, masks, categories = [], set(), set(), {}, {}
    for id, annotation in members.items():
        category = found.categories[annotation.category_id]
        words = words_of(category)
        mask = StoredMask(found.file, annotation.span, size, str(id))
        pixels = np.zeros((0, 0), bool)
        reason, case = "", f"annotation {id}"
        if not is_plain(words):
            reason, case = "instances of a class whose name a turned image would change, or not ASCII", repr(category)
        elif id in crowds:
            reason = "crowds, of which no instance can be told"
        elif annotation.extent is None:
            reason = "instances without a mask"
        else:
            try:
                if isinstance(annotation.extent, str):
                    raise ValueError(annotation.extent)
                check_fit([annotation.extent], size)
                pixels = mask.decode()
                reason = "" if pixels.any() else "instances with an empty mask"
            except (ValueError, S4ecaError) as error:
                reason, case = "instances whose mask cannot be used", f"{case}, {error}"
        if reason:
            left_out.add(reason, case)
            barred.add(words)
            continue
        outline = (words, encode_mask(pixels)["counts"])
        if outline in seen:
            left_out.add("annotations that repeat another one's class and mask", case)
            continue
        seen.add(outline)
        instances.append(_locate(id, words, pixels))
        masks[id], categories[id] = mask, category
    return Scene(name, image, size, tuple(instances), frozenset(barred), masks, categories)


def _locate(id: Any, name: str, pixels: np.ndarray) -> Instance:
    height, width = pixels.shape
    rows, columns = np.nonzero(pixels)
    cut = bool(
        rows.min() < _BORDER
        or columns.min() < _BORDER
        or rows.max() >= height - _BORDER
        or columns.max() >= width - _BORDER
    )
    x, y = (float(columns.mean()) + 0.5) / width, (float(rows.mean()) + 0.5) / height
    return Instance(id, name, x, y, len(rows), cut)
