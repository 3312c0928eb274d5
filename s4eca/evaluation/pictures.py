"""Pictures of predictions: image, truth, prediction and their difference side by side, the expression underneath."""

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


def panel(
    image: Tensor | np.ndarray,
    expression: str,
    truth: Tensor | np.ndarray,
    prediction: Tensor | np.ndarray,
    iou: float | None = None,
) -> Image.Image:
    """Draws one sample.

    Args:
        image: (3, H, W) uint8, RGB.
        expression: written underneath, wrapped.
        truth: (H, W) bool.
        prediction: (H, W) bool.
        iou: fraction, written underneath where given.

    Returns:
        An RGB picture of four tiles: image, truth, prediction, and what was missed or is false.
    """
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(_array(image), 0, -1)))
    factor = max(1, -(-SHORTEST_TILE // min(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    truth, prediction = _array(truth), _array(prediction)
    missed = _paint(picture, truth & ~prediction, MISSED, factor)
    tiles = [
        ("image", picture),
        ("truth", _paint(picture, truth, TRUTH, factor)),
        ("prediction", _paint(picture, prediction, PREDICTION, factor)),
        ("blue: missed, red: false", _paint(missed, prediction & ~truth, FALSE, factor)),
    ]
    width = len(tiles) * (picture.width + MARGIN) + MARGIN
    text_font = ImageFont.load_default(TEXT_SIZE)
    lines = _wrap(expression, text_font, width - 2 * MARGIN)
    if iou is not None:
        lines.append(f"IoU {iou:.3f}")

    top, line_height = TITLE_SIZE + 2 * MARGIN, TEXT_SIZE + MARGIN
    canvas = Image.new("RGB", (width, top + picture.height + MARGIN + len(lines) * line_height), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (title, tile) in enumerate(tiles):
        left = MARGIN + i * (picture.width + MARGIN)
        draw.text((left, MARGIN - 2), title, "black", ImageFont.load_default(TITLE_SIZE))
        canvas.paste(tile, (left, top))
    for i, line in enumerate(lines):
        draw.text((MARGIN, top + picture.height + MARGIN + i * line_height), line, "black", text_font)
    return canvas


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
        picture.save(path)
        paths.append(path)
    return paths


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def _paint(picture: Image.Image, mask: np.ndarray, colour: tuple[int, int, int], factor: int) -> Image.Image:
    """Tints a mask and draws its outline just outside, so that a target of a few pixels is seen."""
    region = Image.fromarray(mask.astype(np.uint8) * 255)
    region = region.resize(picture.size, Image.Resampling.NEAREST) if factor > 1 else region
    outline = np.asarray(region.filter(ImageFilter.MaxFilter(5))) > np.asarray(region)
    strength = np.where(outline, 255, np.asarray(region) * 0.45).astype(np.uint8)
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
