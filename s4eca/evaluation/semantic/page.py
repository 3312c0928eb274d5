"""`report.html` of semantic segmentation: one self-contained page with the scores, the classes and pictures."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from s4eca import __version__
from s4eca.evaluation.page import wording
from s4eca.evaluation.page.build import PAGE, PICTURES, Tile
from s4eca.evaluation.semantic.pictures import IGNORED_COLOUR, SemanticPicture, draw_semantic, occurring
from s4eca.evaluation.semantic.report import COLUMNS, SPOKEN, Summary, subset_note
from s4eca.files import write_text

_SIDES = (448, 320, 224, 128)  # longest side of a tile in pixels, tried until the pictures fit into `PICTURES`


@dataclass(frozen=True)
class Shown:
    """A picture as the page shows it."""

    id: str
    tiles: Mapping[str, Tile]


def write_semantic_page(
    folder: Path,
    summary: Summary,
    pictures: Sequence[SemanticPicture],
    colours: Mapping[str, tuple[int, int, int]],
) -> Path:
    """Writes `report.html`, which needs no other file and no network, and returns its path.

    Args:
        folder: where to; made if need be.
        summary: what `summarise_semantic` returns.
        pictures: images to show with their label maps. They get smaller where they are many.
        colours: RGB by class name, in the order of the ids.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files(__package__) / "page.html.jinja").read_text(encoding="utf-8"))
    about, scores = summary["about"], summary["scores"]
    facts = {name: value for name, value in about.items() if name != "subset"}  # has a paragraph of its own
    legend = {list(colours)[id]: colours[list(colours)[id]] for id in occurring(pictures, list(colours))}
    text = template.render(
        version=__version__,
        style=_style(),
        title=wording.headline(about),
        name=about.get("name"),
        facts=wording.list_facts(facts),
        subset=subset_note(summary),
        command=about.get("command"),
        overall=_overall(scores),
        columns=COLUMNS,
        classes=_classes(summary),
        pictures=_encoded(pictures, list(colours.values())),
        legend={
            label: f"rgb({red} {green} {blue})"
            for label, (red, green, blue) in (legend | {"not counted": IGNORED_COLOUR}).items()
        },
        n_labels=len(summary["classes"]),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    write_text(path, text)
    return path


def _style() -> Markup:
    """Returns the style sheet of the other report, so that both look alike."""
    page = (files("s4eca.evaluation.page") / "page.html.jinja").read_text(encoding="utf-8")
    return Markup(page.partition("<style>")[2].partition("</style>")[0])


def _overall(scores: Mapping[str, Any]) -> dict[str, str]:
    """Returns the text of each score."""
    counts = ("images", "pixels")
    return {
        SPOKEN.get(name, name): wording.count(value) if name in counts else wording.percent(value)
        for name, value in scores.items()
    }


def _classes(summary: Summary) -> dict[str, list[str]]:
    """Returns the cells of each class: its scores, and its share of the truth."""
    pixels = summary["scores"]["pixels"]
    return {
        label: [
            *(wording.percent(values[name]) for name in COLUMNS),
            wording.percent(values["truth_pixels"] / pixels if pixels else None),
            wording.count(values["truth_pixels"]),
            wording.count(values["predicted_pixels"]),
        ]
        for label, values in summary["classes"].items()
    }


def _encoded(pictures: Sequence[SemanticPicture], colours: Sequence[tuple[int, int, int]]) -> list[Shown]:
    """Returns the pictures, as large as fits into `PICTURES`, or the smallest there are."""
    encoded: list[Shown] = []
    for side in _SIDES:
        encoded = [
            Shown(
                picture.id,
                {name: _encode(tile) for name, tile in draw_semantic(picture, colours, side).items()},
            )
            for picture in pictures
        ]
        if sum(len(tile.source) for shown in encoded for tile in shown.tiles.values()) <= PICTURES * 4 / 3:
            break
    return encoded


def _encode(picture: Image.Image) -> Tile:
    """Encodes a photograph as WebP and a label map as PNG, whose colours stay exact."""
    form, options = ("png", {"optimize": True}) if picture.mode == "P" else ("webp", {"quality": 75})
    content = io.BytesIO()
    picture.save(content, form, **options)
    source = f"data:image/{form};base64," + base64.b64encode(content.getvalue()).decode()
    return Tile(source, picture.width, picture.height)
