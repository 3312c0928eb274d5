"""Whether the two annotation files of a REFER dataset agree, entry by entry."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from s4eca.data.defects import DefectError
from s4eca.data.geometry import check_fit
from s4eca.data.images import image_size
from s4eca.data.masks import unusable
from s4eca.data.readers.refer_files import Annotation, Image, Instances, ReferEntry


def entry_defects(entry: ReferEntry, instances: Instances, refs: Path) -> Iterator[DefectError]:
    """Yields what leaves the truth of an entry's references missing or in doubt; nothing where it has no sentence.

    An entry that is marked as without a target may name annotations that are missing or empty.

    Args:
        entry: of the file `refs`.
        instances: the other file.
        refs: for messages.
    """
    if not entry.sentences:
        return
    id, where = entry.name, f"Reference {entry.name} of {refs}"
    named = {number: instances.annotations.get(number) for number in entry.annotations}
    missing = [number for number, annotation in named.items() if annotation is None]
    found = {number: annotation for number, annotation in named.items() if annotation is not None}
    image = instances.images.get(entry.image_id)
    if image is None or (missing and not entry.no_target):
        yield DefectError(
            f"{where} points to annotation {missing[0] if missing else entry.ann_id!r} of image {entry.image_id!r},"
            f" which {instances.file.path} lacks: take both files from the same download.",
            "missing-image-entry" if image is None else "missing-annotation",
            id,
        )
    if not named and not entry.no_target:
        text = f"{where} says no_target: false and names no annotation ({entry.ann_id}): mend one of the two."
        yield DefectError(text, "missing-annotation", id)
    for number, annotation in found.items():
        if annotation.empty and not entry.no_target:
            text = f"Annotation {number} of {instances.file.path} has no segmentation, and reference {id} means it:"
            yield DefectError(f"{text} add it, or mark the reference no_target.", "missing-annotation", id)
        if annotation.image_id not in (None, entry.image_id):
            text = f"{where} is about image {entry.image_id!r} and its annotation {number!r} belongs to image"
            yield DefectError(f"{text} {annotation.image_id!r}: mend one of the two.", "other-image", id)
    try:
        check_mask(found.values(), image.size if image is not None else None, id, instances)
    except DefectError as defect:
        yield defect


def mask_size(image: Image, annotations: Iterable[Annotation], id: str) -> tuple[int, int] | None:
    """Returns (height, width) of an image as far as its masks need it: as stated, or for polygons as in its file.

    Args:
        image: as `instances.json` has it.
        annotations: of one entry.
        id: of the entry, for messages.

    Raises:
        S4ecaError: the image cannot be read.
    """
    needed = image.size is None and any(annotation.drawn for annotation in annotations) and image.path.is_file()
    return image_size(image.path, id) if needed else image.size


def check_mask(annotations: Iterable[Annotation], size: tuple[int, int] | None, id: str, instances: Instances) -> None:
    """Checks that annotations make up one mask of an image.

    Args:
        annotations: of one entry.
        size: (height, width) of the image, None where it is not known.
        id: of the entry, for messages.
        instances: where the annotations are.

    Raises:
        DefectError: one cannot be painted, they differ in size, or they do not fit the image.
    """
    extents = []
    try:
        for annotation in annotations:
            if isinstance(annotation.extent, str):
                raise ValueError(annotation.extent)
            if annotation.extent is not None:
                extents.append(annotation.extent)
        check_fit(extents, size)
    except ValueError as error:
        raise unusable(id, instances.file.path, error) from error
