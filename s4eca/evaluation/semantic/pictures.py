"""Pictures of label maps in their classes' colours, and which images of a split are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from s4eca.data.semantic.labelled import IGNORED
from s4eca.evaluation.pictures import MARGIN, PNG_LEVEL

IGNORED_COLOUR = (120, 120, 120)
_EDGE = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class SemanticPicture:
    """An image with its label maps, at its own size.

    Attributes:
        index: position in the evaluated split.
        id: of the image.
        image: (H, W, 3) uint8, RGB.
        truth: (H, W) uint8 ids; None where there is none.
        prediction: (H, W) uint8 ids.
    """

    index: int
    id: str
    image: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray


class Gallery:
    """Keeps, while a split is evaluated, the images that show most: the most classes of objects, then the most of them.

    It goes by the truth (by the prediction where there is none), not by the score, so that what is shown is neither the
    best nor the worst. Ties go to the image that comes first.

    Args:
        count: of images to keep.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._kept: list[tuple[tuple[int, int, int], SemanticPicture]] = []

    def offer(self, picture: SemanticPicture) -> None:
        """Keeps a picture if it shows more than the least of those that are kept."""
        shown = picture.prediction if picture.truth is None else picture.truth
        sizes = np.bincount(shown.ravel(), minlength=IGNORED + 1)[1:IGNORED]
        rank = (-int((sizes > 0).sum()), -int(sizes.sum()), picture.index)
        self._kept = sorted([*self._kept, (rank, picture)], key=lambda entry: entry[0])[: self.count]

    @property
    def pictures(self) -> list[SemanticPicture]:
        """Those that are kept, in the order of the split."""
        return sorted((picture for _, picture in self._kept), key=lambda picture: picture.index)


def draw_labels(ids: np.ndarray, colours: Sequence[tuple[int, int, int]], size: tuple[int, int]) -> Image.Image:
    """Draws a label map in its classes' colours, objects outlined in white just outside, as many colours are dark.

    Args:
        ids: (H, W) uint8, class ids and `IGNORED`, which is grey.
        colours: RGB by id.
        size: (width, height) of the picture; every pixel shows the nearest label.

    Returns:
        A picture in mode P, which a PNG file keeps small.
    """
    small = np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)).copy()
    objects = (small != 0) & (small != IGNORED)
    touched = cv2.dilate(objects.astype(np.uint8), np.ones((3, 3), np.uint8)).view(bool)
    white = len(colours)
    small[touched & ~objects] = white
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    palette[white], palette[IGNORED] = _EDGE, IGNORED_COLOUR
    picture = Image.fromarray(small)
    picture.putpalette(palette.tobytes())
    return picture


def draw_semantic(
    picture: SemanticPicture, colours: Sequence[tuple[int, int, int]], side: int
) -> dict[str, Image.Image]:
    """Draws the tiles `image`, `truth` (where there is one) and `prediction`, their longest side `side` pixels.

    Small images grow by whole factors, which keeps their pixels square and even.
    """
    height, width = picture.image.shape[:2]
    longest = max(height, width)
    scale = side / longest if longest > side else side // longest
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tiles = {"image": Image.fromarray(picture.image).resize(size, Image.Resampling.BICUBIC)}
    if picture.truth is not None:
        tiles["truth"] = draw_labels(picture.truth, colours, size)
    return tiles | {"prediction": draw_labels(picture.prediction, colours, size)}


def occurring(pictures: Sequence[SemanticPicture], labels: Sequence[str]) -> list[int]:
    """Returns the ids that occur in the label maps of some pictures, for a legend."""
    seen = np.zeros(256, bool)
    for picture in pictures:
        for ids in (picture.truth, picture.prediction):
            if ids is not None:
                seen[ids] = True
    return np.flatnonzero(seen[: len(labels)]).tolist()


def save_pictures(
    folder: Path, pictures: Sequence[SemanticPicture], colours: Mapping[str, tuple[int, int, int]], side: int = 640
) -> list[Path]:
    """Writes each picture's tiles side by side as `INDEX_ID.png` and returns the paths.

    PNG files of an earlier evaluation in that folder are removed, as they would pass for this one's.
    """
    for old in folder.glob("[0-9]*_*.png"):
        old.unlink()
    if pictures:
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for picture in pictures:
        tiles = list(draw_semantic(picture, list(colours.values()), side).values())
        width, height = tiles[0].size
        canvas = Image.new("RGB", (len(tiles) * (width + MARGIN) - MARGIN, height), "white")
        for place, tile in enumerate(tiles):
            canvas.paste(tile.convert("RGB"), (place * (width + MARGIN), 0))
        path = folder / f"{picture.index:06d}_{picture.id}.png"
        canvas.save(path, compress_level=PNG_LEVEL)
        paths.append(path)
    return paths
