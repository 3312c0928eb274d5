"""`report.html`: one self-contained page with the numbers, the figures and the pictures of an evaluation."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from s4eca import __version__
from s4eca.errors import S4ecaError
from s4eca.evaluation.about import is_shuffled
from s4eca.evaluation.metrics import AREA, NO_TARGET, PRECISION
from s4eca.evaluation.page import figures, wording
from s4eca.evaluation.page.costs import list_costs
from s4eca.evaluation.page.panels import GROUPS, Panel
from s4eca.evaluation.pictures import FALSE, MISSED, PREDICTION, TRUTH, draw_tiles
from s4eca.evaluation.results import Evaluation
from s4eca.evaluation.summary import NO_CATEGORY
from s4eca.files import write_text

PAGE = "report.html"

PICTURES = 1_800_000
"""Bytes that the pictures of a page may take together; base64 makes a third more of them."""

# longest side of a tile in pixels and the WebP qualities to try at it, until the pictures fit
_TILES = {320: (80, 60), 240: (60, 40), 160: (40,), 96: (30,)}

_SCORES = ("mIoU", "oIoU", *PRECISION)
_COLUMNS = ("mIoU", "oIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9")


@dataclass(frozen=True)
class Line:
    """A line of a table: its name, and for each cell the text and the interval under it, if any."""

    name: str
    cells: list[tuple[str, str | None]]


@dataclass(frozen=True)
class Tile:
    """A picture as a data URI, and its size in pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Shown:
    """A panel as the page shows it: its tiles by name, and what stands under them."""

    tiles: dict[str, Tile]
    expression: str
    iou: str
    id: str
    category: str | None


def write_page(folder: Path, evaluation: Evaluation, summary: Mapping[str, Any], panels: Sequence[Panel]) -> Path:
    """Writes `report.html`, which needs no other file and no network, and returns its path.

    Args:
        folder: where to; made if need be.
        evaluation: rows for the figures.
        summary: scores as in `metrics.json`; fractions, and NaN or None for what has no value.
        panels: samples to show, of any of the three groups. Their pictures get smaller where they are many, so that
            the page stays below 3 MB up to about a hundred panels.

    Raises:
        S4ecaError: the summary has other protocols than the evaluation.
    """
    if list(summary["protocols"]) != list(evaluation.rows):
        raise S4ecaError(
            f"The summary has the protocols {', '.join(summary['protocols'])} and the evaluation"
            f" {', '.join(evaluation.rows)}: make the report from one and the same evaluation."
        )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files(__package__) / "page.html.jinja").read_text(encoding="utf-8"))
    text = template.render(
        version=__version__,
        title=wording.headline(evaluation.about),
        name=evaluation.about.get("name"),
        facts=wording.list_facts(evaluation.about),
        costs=list_costs(evaluation.about),
        shuffled=is_shuffled(evaluation.about),
        command=evaluation.about.get("command"),
        explanations={protocol: wording.explain(protocol, evaluation.about) for protocol in evaluation.rows},
        protocols=list(evaluation.rows),
        overall=_overall(summary),
        intervals=summary.get("intervals") or {},
        columns=_COLUMNS,
        categories={
            protocol: _lines(scores)
            for protocol, scores in summary["categories"].items()
            if set(scores) - {NO_CATEGORY}
        },
        kinds={protocol: _lines(scores) for protocol, scores in summary.get("kinds", {}).items()},
        sizes={
            kind: {protocol: _lines(scores) for protocol, scores in by_protocol.items()}
            for kind, by_protocol in summary["sizes"].items()
        },
        figures=_figures(evaluation, summary),
        groups=_groups(panels),
        chosen_by=panels[0].choice.protocol if panels else None,
        n=len(evaluation.samples),
        without_truth=_without_truth(evaluation, panels),
        colours={
            name: f"rgb({red} {green} {blue})"
            for name, (red, green, blue) in {
                "truth": TRUTH,
                "prediction": PREDICTION,
                "missed": MISSED,
                "falsely marked": FALSE,
            }.items()
        },
        count=wording.count,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    write_text(path, text)
    return path


def _overall(summary: Mapping[str, Any]) -> list[tuple[str | None, list[Line]]]:
    """Returns the parts of the table of protocols, which are its columns: a heading and lines each."""
    scores = summary["protocols"]
    bounds = (summary.get("intervals") or {}).get("protocols") or {}

    def line(label: str, name: str, form: Any = wording.percent) -> Line:
        cells = [
            (form(values.get(name)), wording.span((bounds.get(protocol) or {}).get(name)))
            for protocol, values in scores.items()
        ]
        return Line(label, cells)

    parts: list[tuple[str | None, list[Line]]] = [(None, [line(name, name) for name in _SCORES])]
    parts[0][1].append(line("samples (n)", "n", wording.count))
    if any(values.get("n_empty") for values in scores.values()):
        lines = [line(name, f"nonempty/{name}") for name in _SCORES]
        parts.append(("Without the samples whose truth is empty", [*lines, line("n", "nonempty/n", wording.count)]))
        parts[0][1].append(line("with empty truth", "n_empty", wording.count))
    if any(values.get("n_no_target") for values in scores.values()):
        lines = [line(name, name) for name in ("N-acc", "T-acc")]
        parts.append(
            ("Expressions without a target", [*lines, line("no-target samples", "n_no_target", wording.count)])
        )
    return parts


def _lines(scores: Mapping[str, Mapping[str, float | None]]) -> list[Line]:
    """Returns a line per group of samples: their number, and the scores of `_COLUMNS`."""
    return [
        Line(
            name,
            [(wording.count(values["n"]), None), *((wording.percent(values[score]), None) for score in _COLUMNS)],
        )
        for name, values in scores.items()
    ]


def _figures(evaluation: Evaluation, summary: Mapping[str, Any]) -> dict[str, Any]:
    targets = {protocol: rows[rows[:, NO_TARGET] == 0] for protocol, rows in evaluation.rows.items()}
    if not any(len(rows) for rows in targets.values()):
        return {}
    counts = {protocol: figures.count_ious(rows, protocol) for protocol, rows in targets.items()}
    curves = {protocol: figures.precision_curve(rows, protocol) for protocol, rows in targets.items()}
    drawn: dict[str, Any] = {
        "histogram": Markup(
            figures.draw_histograms(
                counts, {protocol: scores.get("mIoU") for protocol, scores in summary["protocols"].items()}
            )
        ),
        "precision": Markup(figures.draw_precision(curves)),
    }
    bars = {}
    for protocol, scores in summary["categories"].items():
        if set(scores) - {NO_CATEGORY}:
            values = {
                name: (math.nan if group["mIoU"] is None else group["mIoU"], group["n"])
                for name, group in scores.items()
            }
            bars[protocol] = Markup(figures.draw_categories(values, f"categories-{protocol}"))
    return drawn | {"categories": bars}


def _without_truth(evaluation: Evaluation, panels: Sequence[Panel]) -> int:
    if not panels:
        return 0
    rows = evaluation.rows[panels[0].choice.protocol]
    return int(((rows[:, AREA] == 0) | (rows[:, NO_TARGET] != 0)).sum())


def _groups(panels: Sequence[Panel]) -> dict[str, list[Shown]]:
    """Returns the panels of each group that has some."""
    groups: dict[str, list[Shown]] = {group: [] for group in GROUPS}
    for panel, tiles in zip(panels, _encoded(panels), strict=True):
        choice = panel.choice
        groups[choice.group].append(
            Shown(
                tiles, choice.sample.expression, wording.percent(choice.iou), choice.sample.id, choice.sample.category
            )
        )
    return {group: members for group, members in groups.items() if members}


def _encoded(panels: Sequence[Panel]) -> list[dict[str, Tile]]:
    """Returns each panel's tiles, as large and as good as fits into `PICTURES`, or the smallest there are."""
    encoded: list[dict[str, Tile]] = []
    for side, qualities in _TILES.items():
        drawn = [_draw(panel, side) for panel in panels]
        for quality in qualities:
            encoded = [{name: _encode(tile, quality) for name, tile in tiles.items()} for tiles in drawn]
            if sum(len(tile.source) for tiles in encoded for tile in tiles.values()) <= PICTURES * 4 / 3:
                return encoded
    return encoded


def _draw(panel: Panel, side: int) -> dict[str, Image.Image]:
    height, width = panel.image.shape[:2]
    longest = max(height, width)
    # small images grow by whole factors, which keeps their pixels square and even
    scale = side / longest if longest > side else side // longest
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tiles = draw_tiles(np.moveaxis(panel.image, -1, 0), panel.truth, panel.prediction, size)
    return tiles | {name: step.resize(size, Image.Resampling.BICUBIC) for name, step in panel.steps.items()}


def _encode(picture: Image.Image, quality: int) -> Tile:
    content = io.BytesIO()
    picture.save(content, "webp", quality=quality)
    source = "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
    return Tile(source, picture.width, picture.height)
