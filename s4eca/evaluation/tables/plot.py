"""Accuracy against budget and against memory: the runs of a comparison table as points, drawn by matplotlib."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from s4eca.errors import S4ecaError
from s4eca.evaluation.tables.build import Table
from s4eca.evaluation.tables.labels import place_labels
from s4eca.evaluation.tables.rows import Row

ENDINGS = (".png", ".svg", ".pdf")
PANELS = {
    "percent": "method's learned parameters (% of the towers)",
    "kept": "memory kept for the backward pass (MiB per sample)",
}
"""Costs that scores are drawn against, and what their axes say."""

LOG_FROM = 10
"""An axis whose largest value is more than so many times its smallest is logarithmic."""

WIDTH, DPI = 12.0, 150
LONGEST_NAME = 32
POINT, BAR, LINE, INK, PALE = "#0b5cad", "#7ba7d6", "#8a8a8a", "#1a1a1a", "#e4e4e4"
LETTERS = 9.5

_STYLE: Any = {
    "svg.fonttype": "path",  # with a viewer's own font the names would have other widths
    "svg.hashsalt": "s4eca",
    "pdf.fonttype": 42,
    "font.size": LETTERS,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.color": LINE,
    "ytick.labelcolor": INK,
}


def check_ending(path: Path) -> None:
    """Raises `S4ecaError` where a file's ending names no format of a plot."""
    if path.suffix.lower() not in ENDINGS:
        raise S4ecaError(f"{path} does not end in {', '.join(ENDINGS)}, which decides the plot's format: rename it.")


def plot_notes(table: Table, score: str) -> list[str]:
    """Says which runs of a table a panel cannot show, and where memory was not measured alike."""
    sentences = []
    for cost, meaning in PANELS.items():
        missing = [row.label for row in _own(table) if not _is_drawn(row, cost, score)]
        if missing:
            name = meaning.partition(" (")[0]
            sentences.append(f"Not drawn against {name}, as that or {score} is not known: {', '.join(missing)}.")
    settings = dict.fromkeys(row.measured for row in _own(table) if _is_drawn(row, "kept", score))
    if len(settings) > 1:
        sentences.append(f"Memory was not measured alike, and depends on it: {'; '.join(settings)}.")
    return sentences


def draw_plot(table: Table, score: str = "mIoU") -> Figure:
    """Draws a score against the budget and against memory, a point per row of a table that is a run.

    Bars show the sample deviation over seeds where a row has several; costs have none, memory hardly differs by seed.
    An axis whose values span more than a factor of `LOG_FROM` is logarithmic; what costs nothing then stands left of
    it at a tick of its own.

    Args:
        table: rows without the score or a panel's cost are left out of that panel, see `plot_notes`.
        score: one of `s4eca.evaluation.tables.published.SCORES`.

    Raises:
        S4ecaError: no run can be drawn in either panel.
    """
    rows = _own(table)
    if not any(_is_drawn(row, cost, score) for row in rows for cost in PANELS):
        raise S4ecaError(
            f"There is nothing to plot: no run has {score} and its method's share of parameters or its training's cost,"
            " which eval.py writes: evaluate the runs again."
        )
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, min(12.0, max(5.0, 2.2 + 0.26 * len(rows)))), dpi=DPI)
        figure.subplots_adjust(left=0.06, right=0.985, wspace=0.08, top=0.92, bottom=0.1)
        panels = figure.subplots(1, len(PANELS), sharey=True)
        drawn = {cost: [row for row in rows if _is_drawn(row, cost, score)] for cost in PANELS}
        _scale_scores(panels[0], [row for row in rows if any(row in shown for shown in drawn.values())], score)
        for panel, (cost, meaning) in zip(panels, PANELS.items(), strict=True):
            _draw_panel(panel, drawn[cost], cost, score)
            panel.set_xlabel(meaning)
        panels[0].set_ylabel(f"{score} (%)")
        figure.text(0.06, 0.955, table.place, fontsize=LETTERS + 2.5)
        if any((row.scores[score] or (0, None))[1] is not None for row in rows):
            figure.text(0.985, 0.955, "mean and sample deviation over seeds", ha="right", color="#5a5a5a")
        # names are placed by the sizes that they have on the page
        for panel, cost in zip(panels, PANELS, strict=True):
            _write_names(figure, panel, drawn[cost], score)
    return figure


def write_plot(figure: Figure, path: Path) -> None:
    """Writes a figure, in the format of the file's ending and without a date: the same figure is the same file.

    Raises:
        S4ecaError: an ending that is none of `ENDINGS`, or a place that cannot be written to.
    """
    check_ending(path)
    form = path.suffix.lower()[1:]
    undated: dict[str, Any] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with mpl.rc_context(_STYLE):
                figure.savefig(partial, format=form, metadata=undated[form])
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise S4ecaError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error


def _own(table: Table) -> list[Row]:
    return [row for row in table.rows if row.own]


def _is_drawn(row: Row, cost: str, score: str) -> bool:
    return row.costs.get(cost) is not None and row.scores[score] is not None


def _value(row: Row, score: str) -> float:
    return (row.scores[score] or (math.nan, None))[0]


def _deviation(row: Row, score: str) -> float:
    return (row.scores[score] or (math.nan, None))[1] or 0.0


def _cost(row: Row, cost: str) -> float:
    return (row.costs[cost] or (math.nan, None))[0]


def _scale_scores(axis: Axes, rows: Sequence[Row], score: str) -> None:
    lowest = min(_value(row, score) - _deviation(row, score) for row in rows)
    highest = max(_value(row, score) + _deviation(row, score) for row in rows)
    margin = max(0.06 * (highest - lowest), 0.5)
    axis.set_ylim(lowest - margin, highest + margin)


def _draw_panel(axis: Axes, rows: Sequence[Row], cost: str, score: str) -> None:
    axis.grid(color=PALE, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(length=3)
    if not rows:
        axis.set_xticks([])
        axis.text(0.5, 0.5, "not known of any run", transform=axis.transAxes, ha="center", color="#5a5a5a")
        return
    places = _scale_costs(axis, [_cost(row, cost) for row in rows])
    values = [_value(row, score) for row in rows]
    deviations = [_deviation(row, score) for row in rows]
    axis.errorbar(places, values, deviations, fmt="none", ecolor=BAR, elinewidth=1.3, capsize=0, zorder=3)
    axis.plot(places, values, "o", color=POINT, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6, zorder=4)


def _scale_costs(axis: Axes, values: Sequence[float]) -> list[float]:
    """Sets scale, limits and ticks of an x-axis, and returns where on it the values are drawn."""
    positive = [value for value in values if value > 0]
    # nothing and a single amount have no ratio
    if not positive or max(positive) <= LOG_FROM * min(positive):
        highest = max(values)
        lowest = min(values) if min(values) > 0.5 * highest else 0.0
        margin = 0.1 * ((highest - lowest) or highest or 1.0)
        axis.set_xlim(lowest - margin, highest + 2.5 * margin)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_major_locator(FixedLocator([tick for tick in axis.get_xticks() if 0 <= tick <= 1.05 * highest]))
        return list(values)
    lowest, highest = min(positive), max(positive)
    axis.set_xscale("log")
    decades = math.log10(highest / lowest)
    room = 10 ** (0.08 * decades)
    zero = lowest / 10 ** (0.16 * decades)
    axis.set_xlim((zero if 0 in values else lowest) / room, highest * room**2.5)
    steps = (1, 2, 5) if decades < 2.7 else (1, 3) if decades < 4 else (1,)
    powers = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    # the rest of the axis is room for names: no method learns more than all
    ticks = [tick for tick in ticks if lowest / room < tick < 1.05 * highest]
    if 0 in values:
        ticks.insert(0, zero)
        # the axis is broken between nothing and the smallest amount
        gap = zero * (lowest / zero) ** 0.4
        stroke: Any = [(-0.5, -1), (0.5, 1)]
        for shift in (0.985, 1.015):
            axis.plot(
                gap * shift**decades,
                0,
                marker=stroke,
                markersize=9,
                color=LINE,
                transform=axis.get_xaxis_transform(),
                clip_on=False,
            )
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value == zero else f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    return [value or zero for value in values]


def _write_names(figure: Figure, axis: Axes, rows: Sequence[Row], score: str) -> None:
    """Writes the rows' names beside their points, with a thin line where a name stands apart."""
    if not rows:
        return
    (dots,) = axis.get_lines()[-1:]
    to_page = axis.transData
    unit = 72 / figure.dpi  # pixels to points, so that distances do not depend on the resolution
    at = np.column_stack([dots.get_xdata(), dots.get_ydata()])
    points = to_page.transform(at) * unit
    heights = [
        (_value(row, score) - _deviation(row, score), _value(row, score) + _deviation(row, score)) for row in rows
    ]
    bars = np.array([to_page.transform([(1, low), (1, high)])[:, 1] for low, high in heights]) * unit
    names = [
        axis.text(x, y, _shorten(row.label), fontsize=LETTERS - 0.5, zorder=5)
        for (x, y), row in zip(at, rows, strict=True)
    ]
    boxes = [name.get_window_extent() for name in names]
    sizes = np.array([(box.width * unit + 2, LETTERS * 1.25) for box in boxes])
    frame = axis.get_window_extent()
    area = (frame.x0 * unit + 2, frame.y0 * unit + 2, frame.x1 * unit, frame.y1 * unit)
    back = to_page.inverted()
    for name, point, place in zip(names, points, place_labels(points, sizes, bars, area), strict=True):
        end = (place.x, place.y)
        name.set_position(tuple(back.transform(np.array((end[0] + (1.5 if place.right else -1.5), end[1])) / unit)))
        name.set_horizontalalignment("left" if place.right else "right")
        name.set_verticalalignment("center_baseline")
        if math.dist(point, end) > 9:
            line = back.transform(np.array([point, end]) / unit)
            axis.plot(line[:, 0], line[:, 1], color=LINE, linewidth=0.6, zorder=2)


def _shorten(name: str) -> str:
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
