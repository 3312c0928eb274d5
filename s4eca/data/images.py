"""Images as RGB of 8 bits: the one way in for everything that looks at an image file."""

from pathlib import Path

import numpy as np
from PIL import Image

from s4eca.data.file_kinds import UNREADABLE, explained, is_tiff
from s4eca.data.rasters import raster_size, read


def open_image(path: Path, id: str = "", depth: int = 8) -> Image.Image:
    """Reads an image in mode RGB; EXIF orientation is ignored, as the masks were drawn without it.

    What counts is what the file says of its samples: those of at most 8 bits are taken as they are, larger ones by the
    upper 8 of `depth` bits, where that is set. `Raster.rgb` says which bands are taken.

    Args:
        path: the file.
        id: of the reference, for messages.
        depth: bits in use of samples that have more than 8; 8 refuses them.

    Raises:
        PixelError: the file is missing, damaged, of no kind that is read, or has more bits per sample.
    """
    with explained(f"The image{f' of reference {id} in' if id else ''} {path} cannot be decoded", path):
        return read(path, _to_rgb, lambda raster: Image.fromarray(raster.rgb(depth)))


def read_image(path: Path, id: str = "", depth: int = 8) -> np.ndarray:
    """Reads an image as (H, W, 3) uint8 RGB, see `open_image`."""
    return np.array(open_image(path, id, depth))


def image_size(path: Path, id: str = "") -> tuple[int, int]:
    """Returns (height, width) of an image file without decoding it.

    Raises:
        PixelError: the file is missing or no image; the message names the reference `id`.
    """
    with explained(f"The size of image {path} of reference {id} cannot be read", path):
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except UNREADABLE:
            if not is_tiff(path):
                raise
            return raster_size(path)


def _to_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")
