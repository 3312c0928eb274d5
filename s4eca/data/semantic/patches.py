"""iSAID's scenes cut into overlapping patches, in the layout and by the windows of mmsegmentation's converter."""

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from s4eca.data.images import image_size, read_image
from s4eca.data.semantic.isaid import LABEL_ENDING, OVERLAP, PATCH, PATCH_COUNTS, read_isaid
from s4eca.data.semantic.labelled import IGNORED, LabelledImage
from s4eca.data.semantic.palette import read_labels
from s4eca.errors import S4ecaError
from s4eca.files import make_folder
from s4eca.folders import visible

Window = tuple[int, int, int, int]
"""First and last row, first and last column; the ends exclusive."""


@dataclass(frozen=True)
class Cut:
    """What was done to a split.

    Attributes:
        scenes: that were cut.
        patches: that are there now.
        written: those of them that were written; the others were there before.
    """

    scenes: int
    patches: int
    written: int


def windows(height: int, width: int, size: int, overlap: int) -> list[Window]:
    """Returns the windows over a scene, row by row.

    They advance by `size - overlap`. The last one of a row or column is moved back to the border, so that all have the
    full size; along an axis that is shorter than `size` there is one, which reaches beyond the border.
    """
    rows, columns = _starts(height, size, overlap), _starts(width, size, overlap)
    return [(row, row + size, column, column + size) for row in rows for column in columns]


def cut_patches(
    root: str | Path,
    out: str | Path,
    split: str,
    size: int = PATCH,
    overlap: int = OVERLAP,
    workers: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Cut:
    """Writes `img_dir/SPLIT/NAME_Y0_Y1_X0_X1.png` and, with labels, `ann_dir/SPLIT/…_instance_color_RGB.png`.

    Beyond a scene's border the image is 0 and the label `IGNORED`. Differences from mmsegmentation's converter: a
    scene that is too short along one axis and just long enough along the other is padded too, the files are PNG (its
    images are BMP under that name), and test scenes are cut if asked for. Each file appears as a whole. Whole patches
    that are there already are kept, so that a run that was interrupted continues.

    Args:
        root: folder with the scenes, see `read_isaid`.
        out: folder to write to.
        split: `train`, `val` or `test`.
        size: side of the patches in pixels.
        overlap: of neighbouring patches in pixels.
        workers: threads that cut, one scene each.
        progress: called with the numbers of scenes done and of all.

    Raises:
        S4ecaError: impossible sizes, missing or damaged files, or a folder with patches of another size or dataset.
    """
    if size < 1 or not 0 <= overlap < size:
        raise S4ecaError(
            f"Patches of {size} pixels cannot overlap by {overlap}: choose --size of 1 or more and --overlap from 0 to"
            " size - 1."
        )
    if workers < 1:
        raise S4ecaError(f"There is no work done with {workers} threads: set --workers to 1 or more.")
    scenes = read_isaid(root, split, patches=False)
    plans = [(scene, windows(*image_size(scene.image, scene.id), size, overlap)) for scene in scenes]
    images, labels = Path(out) / "img_dir" / split, Path(out) / "ann_dir" / split
    names = {_name(scene.id, window) for scene, planned in plans for window in planned}
    _check_others(images, {f"{name}.png" for name in names})
    make_folder(images)
    if split != "test":
        _check_others(labels, {f"{name}{LABEL_ENDING}" for name in names})
        make_folder(labels)
    expected = PATCH_COUNTS.get(split) if (size, overlap) == (PATCH, OVERLAP) else None
    if expected is not None and len(names) != expected:
        warnings.warn(
            f"The {split} split of iSAID in {root} makes {len(names):,} patches where {expected:,} are expected;"
            " results will not compare with published ones.",
            stacklevel=2,
        )

    written = done = 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            for number in pool.map(lambda plan: _cut_scene(plan[0], plan[1], images, labels, size), plans):
                written, done = written + number, done + 1
                if progress is not None:
                    progress(done, len(plans))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Cut(len(scenes), len(names), written)


def _starts(length: int, size: int, overlap: int) -> list[int]:
    last = max(length - size, 0)
    return [*range(0, last, size - overlap), last]


def _name(id: str, window: Window) -> str:
    return "_".join([id, *map(str, window)])


def _check_others(folder: Path, wanted: set[str]) -> None:
    """Raises where a folder holds patches that do not belong to this cut: a reader would take them too."""
    others = [path.name for path in visible(folder, "*.png") if path.name not in wanted]
    if others:
        raise S4ecaError(
            f"{folder} holds {len(others):,} images that are no patches of these scenes, size and overlap"
            f" ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}): choose an empty folder."
        )


def _cut_scene(scene: LabelledImage, planned: Sequence[Window], images: Path, labels: Path, size: int) -> int:
    """Writes the patches of a scene that are not there yet and returns how many patches were written or completed."""
    missing = []
    for window in planned:
        files = [(images / f"{_name(scene.id, window)}.png", "RGB")]
        if scene.labels is not None:
            files.append((labels / f"{_name(scene.id, window)}{LABEL_ENDING}", "L"))
        if not all(_is_whole(path, mode, size) for path, mode in files):
            missing.append((window, files))
    if not missing:
        return 0
    image, ids = read_image(scene.image, scene.id), read_labels(scene)
    if ids is not None and ids.shape != image.shape[:2]:
        raise S4ecaError(
            f"The label map {scene.labels} has {ids.shape} pixels and its image {image.shape[:2]} (height, width):"
            " replace both with whole copies."
        )
    for window, files in missing:
        for (path, _), (array, fill) in zip(files, ((image, 0), (ids, IGNORED)), strict=False):
            assert array is not None  # there is a second file only where there are labels
            _write(path, _crop(array, window, fill))
    return len(missing)


def _crop(array: np.ndarray, window: Window, fill: int) -> np.ndarray:
    top, bottom, left, right = window
    inside = array[top:bottom, left:right]
    patch = np.full((bottom - top, right - left, *array.shape[2:]), fill, np.uint8)
    patch[: inside.shape[0], : inside.shape[1]] = inside
    return patch


def _is_whole(path: Path, mode: str, size: int) -> bool:
    """Returns whether a patch of this size and kind is there; the checksums of all its bytes are compared."""
    try:
        with Image.open(path) as image:
            image.verify()
            return image.format == "PNG" and image.size == (size, size) and image.mode == mode
    except (OSError, ValueError, SyntaxError, EOFError):
        return False


def _write(path: Path, array: np.ndarray) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        try:
            Image.fromarray(array).save(
                partial, "png", compress_level=1
            )  # higher ones take up to three times as long for 7 %
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise S4ecaError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error
