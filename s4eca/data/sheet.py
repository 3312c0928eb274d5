"""Contact sheets: samples with their masks outlined and their expressions underneath, as PNG or as one HTML page."""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from s4eca.data.audit.boxes import box_corners
from s4eca.data.audit.records import Record
from s4eca.data.images import read_image
from s4eca.data.resize import resize_mask
from s4eca.errors import S4ecaError
from s4eca.files import write_text

OUTLINE = (40, 220, 90)
BOX = (255, 176, 0)
TINT = 0.25
RING = 16  # pixels on the sheet: smaller targets get a ring around them, of this radius
MARGIN = 10
TEXT_SIZE = 14
TITLE_SIZE = 16
GREY = (225, 225, 225)


@dataclass(frozen=True)
class Section:
    """Samples under a title.

    Attributes:
        title: wrapped where it is long.
        records: what to draw.
        colour: of the mark beside the title, RGB.
        boxes: `xywh` or `xyxy` also draws the stored boxes, read in this way.
        depth: of the images, see `open_image`.
    """

    title: str
    records: Sequence[Record]
    colour: tuple[int, int, int] = (60, 60, 60)
    boxes: str | None = None
    depth: int = 8


def write_sheet(path: Path, sections: Sequence[Section], size: int = 240, columns: int = 4) -> None:
    """Writes a sheet as the suffix of `path` says; what was there is replaced as a whole.

    Args:
        path: ends in `.png` or `.html`.
        sections: what to draw.
        size: longer side of an image on the sheet, in pixels.
        columns: samples in a row of the PNG; the HTML page fits them to the window.

    Raises:
        S4ecaError: another suffix, or a folder that does not exist.
    """
    check_sheet_path(path)
    if path.suffix.lower() == ".html":
        write_text(path, html_sheet(sections, size))
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    draw_sheet(sections, size, columns).save(partial, format="PNG")
    partial.replace(path)


def check_sheet_path(path: Path) -> None:
    """Raises `S4ecaError` where `write_sheet` would, so that it can be known before the work."""
    if path.suffix.lower() not in (".png", ".html"):
        raise S4ecaError(f"{path} is no name for a contact sheet: let it end in .png or .html.")
    if not path.parent.is_dir():
        raise S4ecaError(f"There is no folder {path.parent} for {path.name}: make it first.")


def draw_sheet(sections: Sequence[Section], size: int, columns: int) -> Image.Image:
    """Returns the sections underneath one another, `columns` samples in a row."""
    cell = size + MARGIN
    width = columns * cell + MARGIN
    title_font = ImageFont.load_default(TITLE_SIZE)
    bands: list[Image.Image] = []
    for section in sections:
        lines = _wrap(section.title, title_font, width - 4 * MARGIN)
        band = Image.new("RGB", (width, len(lines) * (TITLE_SIZE + 6) + MARGIN), "white")
        draw = ImageDraw.Draw(band)
        draw.rectangle((MARGIN, MARGIN, MARGIN + 5, band.height), fill=section.colour)
        for i, line in enumerate(lines):
            draw.text((2 * MARGIN + 2, MARGIN + i * (TITLE_SIZE + 6)), line, "black", title_font)
        bands.append(band)
        tiles = [_captioned(record, size, section) for record in section.records]
        for start in range(0, len(tiles), columns):
            row = tiles[start : start + columns]
            band = Image.new("RGB", (width, max(tile.height for tile in row) + MARGIN), "white")
            for i, tile in enumerate(row):
                band.paste(tile, (MARGIN + i * cell, MARGIN))
            bands.append(band)
    sheet = Image.new("RGB", (width, sum(band.height for band in bands) + MARGIN), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return sheet


def html_sheet(sections: Sequence[Section], size: int) -> str:
    """Returns one page that needs no other file."""
    shown = []
    for section in sections:
        tiles = []
        for record in section.records:
            picture, problems = draw_sample(record, size, section.boxes, section.depth)
            texts = {"expression": record.expression, "about": _about(record), "problems": problems}
            tiles.append({"jpeg": _jpeg(picture), **texts})
        colour = "#" + bytes(section.colour).hex()
        shown.append({"title": section.title, "colour": colour, "tiles": tiles})
    return Environment(autoescape=True).from_string(_PAGE).render(sections=shown, size=size)


def draw_sample(record: Record, size: int, boxes: str | None = None, depth: int = 8) -> tuple[Image.Image, list[str]]:
    """Draws the image of a sample with its mask tinted and outlined; a small target gets a ring around it.

    Args:
        record: what to draw.
        size: longer side of the picture in pixels.
        boxes: `xywh` or `xyxy` also draws the stored box, read in this way.
        depth: of the image, see `open_image`.

    Returns:
        A picture whose longer side is `size`, grey where there is no image; and what could not be drawn, in words.
    """
    problems: list[str] = []
    array = _decoded_image(record, problems, depth)
    mask = _decoded_mask(record, problems)
    if array is None and mask is not None:
        array = np.full((*mask.shape, 3), 128, dtype=np.uint8)
    if array is None:
        return Image.new("RGB", (size, size), GREY), problems
    scale = size / max(array.shape[:2])
    shape = (max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale)))
    picture = Image.fromarray(array).resize(shape, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX)
    if mask is not None and mask.any():
        if mask.shape != array.shape[:2]:
            mask = resize_mask(mask, (array.shape[0], array.shape[1]))
        _outline(picture, mask)
    elif mask is not None:
        problems.append("no target" if record.no_target else "the mask is empty")
    if boxes is not None:
        _draw_box(picture, record.bbox, boxes, scale)
    return picture, problems


def _draw_box(picture: Image.Image, bbox: Any, convention: str, scale: float) -> None:
    box = box_corners(bbox, convention)
    if box is not None and box[2] >= box[0] and box[3] >= box[1]:
        # a box beyond the picture is drawn no farther than it can be seen, since Pillow walks all of its outline
        ends = [*picture.size] * 2
        corners = [min(max(value * scale, -4.0), end + 4.0) for value, end in zip(box, ends, strict=True)]
        ImageDraw.Draw(picture).rectangle(corners, outline=BOX, width=2)


def _outline(picture: Image.Image, mask: np.ndarray) -> None:
    cover = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BOX))
    inside = cover >= 128 if (cover >= 128).any() else cover > 0
    if not inside.any():  # resized to an image of another size, or thinner than the box filter sees
        return
    region = Image.fromarray(inside.astype(np.uint8) * 255)
    outline = np.asarray(region.filter(ImageFilter.MaxFilter(5))) > np.asarray(region)
    strength = np.where(outline, 255, inside * (255 * TINT)).astype(np.uint8)
    picture.paste(OUTLINE, mask=Image.fromarray(strength))
    rows, columns = np.nonzero(inside)
    if max(np.ptp(rows), np.ptp(columns)) < RING:
        y, x = float(rows.mean()), float(columns.mean())
        ImageDraw.Draw(picture).ellipse((x - RING, y - RING, x + RING, y + RING), outline=OUTLINE, width=2)


def _decoded_image(record: Record, problems: list[str], depth: int) -> np.ndarray | None:
    if record.image is None or not record.image.is_file():
        problems.append("no image file")
        return None
    try:
        return read_image(record.image, record.id, depth)
    except Exception:  # a damaged file raises nearly anything; the sheet shows that it is damaged
        problems.append("the image cannot be decoded")
        return None


def _decoded_mask(record: Record, problems: list[str]) -> np.ndarray | None:
    if record.mask is None:
        problems.append("no target" if record.no_target else "no mask")
        return None
    try:
        return record.mask.decode()
    except Exception:  # as above
        problems.append("the mask cannot be decoded")
        return None


def _about(record: Record) -> str:
    return " · ".join(filter(None, (record.id, record.split, record.category)))


def _captioned(record: Record, size: int, section: Section) -> Image.Image:
    picture, problems = draw_sample(record, size, section.boxes, section.depth)
    font = ImageFont.load_default(TEXT_SIZE)
    lines = [(line, "black") for line in _wrap(record.expression, font, size)]
    lines += [(line, "dimgray") for line in _wrap(_about(record), font, size)]
    lines += [(problem, "firebrick") for text in problems for problem in _wrap(text, font, size)]
    tile = Image.new("RGB", (size, picture.height + 4 + len(lines) * (TEXT_SIZE + 4)), "white")
    tile.paste(picture, ((size - picture.width) // 2, 0))
    draw = ImageDraw.Draw(tile)
    for i, (line, colour) in enumerate(lines):
        draw.text((0, picture.height + 4 + i * (TEXT_SIZE + 4)), line, colour, font)
    return tile


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels; a longer word is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
            continue
        while font.getlength(word) > width and len(word) > 1:
            fitting = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines.append(word[:fitting])
            word = word[fitting:]
        lines.append(word)
    return lines or [""]


def _jpeg(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=85)
    return base64.b64encode(stream.getvalue()).decode()


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Contact sheet</title>
<style>
  body { font: 15px/1.4 system-ui, sans-serif; margin: 1rem; color: #222; background: #fff; }
  h2 { font-size: 1rem; margin: 2rem 0 .7rem; padding-left: .6rem; border-left: 6px solid; break-after: avoid; }
  section { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, {{ size }}px), 1fr)); }
  figure { margin: 0; break-inside: avoid; }
  img { max-width: 100%; height: auto; }
  small { color: #666; display: block; overflow-wrap: anywhere; }
  em { color: #b22222; font-style: normal; display: block; }
</style>
{% for section in sections %}
<h2 style="border-color: {{ section.colour }}">{{ section.title }}</h2>
<section>
{% for tile in section.tiles %}
<figure><img src="data:image/jpeg;base64,{{ tile.jpeg }}" alt="{{ tile.expression }}">
<figcaption>{{ tile.expression }}<small>{{ tile.about }}</small>
{% for problem in tile.problems %}<em>{{ problem }}</em>{% endfor %}</figcaption></figure>
{% endfor %}
</section>
{% endfor %}
</html>
"""
