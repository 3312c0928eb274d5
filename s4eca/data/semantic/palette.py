"""iSAID's classes and their colours, and label maps in either form: colours as the authors store them, or ids."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from s4eca.data.file_kinds import explained
from s4eca.data.images import read_image
from s4eca.data.semantic.labelled import IGNORED, LabelledImage
from s4eca.errors import S4ecaError

ISAID_COLOURS = {
    "background": (0, 0, 0),
    "ship": (0, 0, 63),
    "storage_tank": (0, 63, 63),
    "baseball_diamond": (0, 63, 0),
    "tennis_court": (0, 63, 127),
    "basketball_court": (0, 63, 191),
    "ground_track_field": (0, 63, 255),
    "bridge": (0, 127, 63),
    "large_vehicle": (0, 127, 127),
    "small_vehicle": (0, 0, 127),
    "helicopter": (0, 0, 191),
    "swimming_pool": (0, 0, 255),
    "roundabout": (0, 191, 127),
    "soccer_ball_field": (0, 127, 191),
    "plane": (0, 127, 255),
    "harbor": (0, 100, 155),
}
"""RGB by class; a class's id is its position (iSAID's devkit, which mmsegmentation follows)."""

ISAID_LABELS = tuple(ISAID_COLOURS)
"""Names of the 16 labels in the order of their ids, background first."""

ISAID_CLASSES = ISAID_LABELS[1:]
"""Names of the 15 classes of objects; class k of the label maps is at k - 1."""

_UNKNOWN = 254  # what no colour stands for; also no id


def decode_colours(colours: np.ndarray, path: Path) -> np.ndarray:
    """Turns a colour-coded label map into ids.

    Args:
        colours: (H, W, 3) uint8, RGB.
        path: of its file, for the message.

    Returns:
        (H, W) uint8.

    Raises:
        S4ecaError: a colour is no class; the message names it and the first place where it stands.
    """
    ids = _table()[_packed(colours)]
    wrong = ids == _UNKNOWN
    if wrong.any():
        row, column = divmod(int(wrong.argmax()), wrong.shape[1])
        colour = tuple(colours[row, column].tolist())
        raise S4ecaError(
            f"{path} has the colour {colour} at row {row}, column {column}, which is no class of iSAID"
            f" ({int(wrong.sum()):,} such pixels): replace the file with a whole copy of the dataset's own."
        )
    return ids


def read_labels(item: LabelledImage) -> np.ndarray | None:
    """Reads an image's label map as (H, W) uint8 ids, `IGNORED` included; None where it has none.

    Raises:
        S4ecaError: the file is missing or damaged, or holds colours or ids that are no class.
    """
    if item.labels is None:
        return None
    if item.coloured:
        return decode_colours(read_image(item.labels, item.id), item.labels)
    return _read_ids(item.labels)


def _read_ids(path: Path) -> np.ndarray:
    with explained(f"The label map {path} cannot be decoded", path), Image.open(path) as image:
        mode, stored = image.mode, image.tile[0].args if image.tile else None
        ids = np.array(image)
    if mode not in ("L", "P"):  # mmsegmentation's converter writes P, and the ids are its indices
        raise S4ecaError(
            f"The label map {path} has mode {mode} where one byte per pixel, the class id, is expected: make the"
            " patches with `s4eca data patches`."
        )
    if stored == "P;1":
        raise S4ecaError(
            f"The label map {path} has one bit per pixel and has lost its classes, which happens to mmsegmentation's"
            " converter with a recent Pillow: make the patches with `s4eca data patches`."
        )
    wrong = (ids >= len(ISAID_LABELS)) & (ids != IGNORED)
    if wrong.any():
        row, column = divmod(int(wrong.argmax()), wrong.shape[1])
        raise S4ecaError(
            f"{path} has the label {int(ids[row, column])} at row {row}, column {column}, which is no class of iSAID"
            f" ({int(wrong.sum()):,} such pixels): make the patches again with `s4eca data patches`."
        )
    return ids


def _packed(colours: np.ndarray) -> np.ndarray:
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


@cache
def _table() -> np.ndarray:
    """Returns the id of every colour there is, (2²⁴,) uint8: looking up is one read per pixel."""
    table = np.full(1 << 24, _UNKNOWN, np.uint8)
    table[_packed(np.array(list(ISAID_COLOURS.values())))] = np.arange(len(ISAID_COLOURS))
    return table
