"""Pictures of predictions: image, truth, prediction and their difference side by side, the expression underneath."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from s4eca.data.references import Batch
from s4eca.evaluation.protocols import count_pixels

TRUTH = (40, 220, 90)
PREDICTION = (255, 176, 0)
MISSED = (60, 130, 255)
FALSE = (235, 40, 60)

SHORTEST_TILE = 320  # pixels; smaller images are enlarged by whole factors
TITLE_SIZE = 16
TEXT_SIZE = 20
MARGIN = 8
PNG_LEVEL = 1  # of compression; PIL's own 6 takes three times as long for a tenth less


def panel(
    image: Tensor | np.ndarray,
    expression: str,
    truth: Tensor | np.ndarray,
    prediction: Tensor | np.ndarray,
    iou: float | None = None,
    protocol: str | None = None,
) -> Image.Image:
    """Draws one sample.

    Args:
        image: (3, H, W) uint8, RGB.
        expression: written underneath, wrapped.
        truth: (H, W) bool.
        prediction: (H, W) bool.
        iou: fraction, written underneath where given.
        protocol: under which the IoU was taken; the masks may be shown at another size.

    Returns:
        An RGB picture of four tiles: image, truth, prediction, and what was missed or is false.
    """
    picture = _picture(image)
    factor = max(1, -(-SHORTEST_TILE // min(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    drawn = draw_tiles(image, truth, prediction, size)
    lines = [expression] + ([] if iou is None else [f"IoU {iou:.3f}" + (f" ({protocol})" if protocol else "")])
    titles = {"error": "blue: missed, red: false"}
    return lay_out({titles.get(name, name): tile for name, tile in drawn.items()}, lines)


def lay_out(tiles: Mapping[str, Image.Image], lines: Sequence[str]) -> Image.Image:
    """Puts pictures of equal size side by side, their names above and lines of text underneath, wrapped."""
    size = next(iter(tiles.values())).size
    width = len(tiles) * (size[0] + MARGIN) + MARGIN
    text_font = ImageFont.load_default(TEXT_SIZE)
    wrapped = [part for line in lines for part in _wrap(line, text_font, width - 2 * MARGIN)]
    top, line_height = TITLE_SIZE + 2 * MARGIN, TEXT_SIZE + MARGIN
    canvas = Image.new("RGB", (width, top + size[1] + MARGIN + len(wrapped) * line_height), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (name, tile) in enumerate(tiles.items()):
        left = MARGIN + i * (size[0] + MARGIN)
        draw.text((left, MARGIN - 2), name, "black", ImageFont.load_default(TITLE_SIZE))
        canvas.paste(tile, (left, top))
    for i, line in enumerate(wrapped):
        draw.text((MARGIN, top + size[1] + MARGIN + i * line_height), line, "black", text_font)
    return canvas


def draw_tiles(
    image: Tensor | np.ndarray, truth: Tensor | np.ndarray, prediction: Tensor | np.ndarray, size: tuple[int, int]
) -> dict[str, Image.Image]:
    """Draws the four tiles of a sample.

    Args:
        image: (3, H, W) uint8, RGB.
        truth: (H, W) bool.
        prediction: (H, W) bool.
        size: (width, height) of each tile.

    Returns:
        RGB pictures `image`, `truth`, `prediction` and `error`. A mask is tinted by the share of each tile pixel that
        it covers, and outlined just outside, so that a target smaller than a tile's pixel is still seen.
    """
    picture = _picture(image).resize(size, Image.Resampling.BICUBIC)
    truth, prediction = _array(truth), _array(prediction)
    missed = paint(picture, truth & ~prediction, MISSED)
    return {
        "image": picture,
        "truth": paint(picture, truth, TRUTH),
        "prediction": paint(picture, prediction, PREDICTION),
        "error": paint(missed, prediction & ~truth, FALSE),
    }


def save_panels(folder: Path, batch: Batch, logits: Tensor, limit: int) -> list[Path]:
    """Writes one PNG per sample, at most `limit`, named by position in the dataset, and returns their paths.

    Masks are compared at input size, logits (B, H, W) > 0; the IoU is 0 where both are empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(min(limit, len(batch))):
        prediction, truth = logits[i] > 0, batch.mask[i]
        intersection, union, _ = count_pixels(prediction, truth).tolist()
        picture = panel(batch.image[i], batch.expressions[i], truth, prediction, intersection / max(union, 1))
        path = folder / f"{int(batch.index[i]):06d}.png"
        picture.save(path, compress_level=PNG_LEVEL)
        paths.append(path)
    return paths


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def _picture(image: Tensor | np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(_array(image), 0, -1)))


def paint(picture: Image.Image, mask: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    """Returns the picture with a mask (H, W) bool tinted and outlined, see `draw_tiles`."""
    # the box filter repeats pixels when it enlarges by whole factors, and averages them when it shrinks
    share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(picture.size, Image.Resampling.BOX))
    touched = Image.fromarray((share > 0).astype(np.uint8) * 255)
    outline = np.asarray(touched.filter(ImageFilter.MaxFilter(5))) > np.asarray(touched)
    strength = np.where(outline, 255, share * (255 * 0.45)).astype(np.uint8)
    painted = picture.copy()
    painted.paste(colour, mask=Image.fromarray(strength))
    return painted


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
