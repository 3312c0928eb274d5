"""The figures of the report as inline SVG: drawn by matplotlib, coloured and lettered by the page they stand in."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from s4eca.evaluation.metrics import INTERSECTION, UNION
from s4eca.evaluation.protocols import PROTOCOLS, exceeds

BINS = 20
THRESHOLDS = np.arange(1, 101)
"""Where Pr@X is drawn, in hundredths of IoU."""

WIDTH = 5.0  # inches of 72 units: as wide as a phone, where letters then have their nominal size
LETTERS = 11
LONGEST_NAME = 26  # letters of a category's name that fit beside its bar

# matplotlib has no CSS variables: these colours stand for them until the SVG is written
_INK, _MUTED, _LINE, _FILL = "#000001", "#000002", "#000003", "#000004"
_SERIES = ("#000011", "#000012", "#000013")
_CSS = {_INK: "currentColor", _MUTED: "var(--muted)", _LINE: "var(--line)", _FILL: "var(--series-1)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, 1)
}
_STROKES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "s4eca",
    "font.size": LETTERS,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "xtick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.color": _LINE,
    "ytick.labelcolor": _INK,
}


def count_ious(rows: np.ndarray, protocol: str) -> np.ndarray:
    """Returns how many rows (N, 6) have an IoU in [0, 0.05), [0.05, 0.1), …, [0.95, 1], as int64 (20,)."""
    iou = PROTOCOLS[protocol].iou(rows[:, INTERSECTION], rows[:, UNION])
    return np.histogram(iou, np.arange(BINS + 1) / BINS)[0]


def precision_curve(rows: np.ndarray, protocol: str) -> np.ndarray:
    """Returns Pr@X of rows (N, 6) at `THRESHOLDS`, fractions (100,), by the protocol's own rule; NaN without rows.

    At 0.5, 0.6 … 0.9 these are the numbers of the table, ties included: `detris` counts IoU > X with X in float32, the
    others IoU >= X.
    """
    if not len(rows):
        return np.full(len(THRESHOLDS), np.nan)
    rules = PROTOCOLS[protocol]
    iou = rules.iou(rows[:, INTERSECTION], rows[:, UNION])[:, None]
    limits = THRESHOLDS / 100
    # a quotient of pixel counts is never closer to a hundredth than a double can tell, unless it is that hundredth
    hits = iou > np.float32(limits).astype(np.float64) if rules.hits is exceeds else iou >= limits
    return hits.mean(0)


def draw_histograms(counts: Mapping[str, np.ndarray], means: Mapping[str, float | None]) -> str:
    """Draws one IoU histogram per protocol, one above the other, and returns the SVG element.

    Args:
        counts: protocol to samples per bin (20,).
        means: protocol to mIoU as a fraction, marked by a line; None or NaN for no line.
    """
    titles = {}
    with _figure(0.45 + 1.35 * len(counts)) as figure:
        axes = figure.subplots(len(counts), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (protocol, heights) in zip(axes, counts.items(), strict=True):
            bars = axis.bar((np.arange(BINS) + 0.5) * 5, heights, width=4.3, color=_FILL)
            for number, (bar, height) in enumerate(zip(bars, heights.tolist(), strict=True)):
                bar.set_gid(f"bar-{protocol}-{number}")
                titles[f"bar-{protocol}-{number}"] = f"IoU {number * 5} to {number * 5 + 5} %: {height:,} samples"
            mean = means.get(protocol)
            if mean is not None and not np.isnan(mean):
                axis.axvline(mean * 100, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
            axis.set_title(protocol, fontsize=LETTERS, loc="left", pad=4)
            axis.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            _grid(axis, "y")
        axes[-1].set_xlim(0, 100)
        axes[-1].set_xticks(range(0, 101, 20))
        axes[-1].set_xlabel("IoU (%)")
        return _svg(figure, "histogram", f"Histograms of the IoU under {', '.join(counts)}", titles)


def draw_precision(curves: Mapping[str, np.ndarray]) -> str:
    """Draws Pr@X over X, a line per protocol, and returns the SVG element.

    Args:
        curves: protocol to what `precision_curve` returns; the five points of the tables are marked.
    """
    with _figure(3.6) as figure:
        axis = figure.subplots()
        marked = [place for place, percent in enumerate(THRESHOLDS.tolist()) if percent in (50, 60, 70, 80, 90)]
        for number, (protocol, curve) in enumerate(curves.items()):
            (line,) = axis.plot(
                THRESHOLDS / 100,
                curve * 100,
                color=_SERIES[number % len(_SERIES)],
                linestyle=_STROKES[number % len(_STROKES)],
                linewidth=2,
                marker="os^"[number % 3],
                markersize=5,
                markevery=marked,
                label=protocol,
            )
            line.set_gid(f"curve-{protocol}")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 100)
        axis.set_xticks(np.arange(0, 11, 2) / 10)
        axis.set_xlabel("threshold X on the IoU")
        axis.set_ylabel("Pr@X (%)")
        axis.legend(loc="upper right", frameon=False, handlelength=3)
        _grid(axis, "both")
        titles = {f"curve-{protocol}": protocol for protocol in curves}
        return _svg(figure, "precision", f"Pr@X over X under {', '.join(curves)}", titles)


def draw_categories(scores: Mapping[str, tuple[float, int]], name: str = "categories") -> str:
    """Draws a bar per category, the best on top, and returns the SVG element.

    Args:
        scores: category to (mIoU as a fraction, samples); those without a value come last.
        name: stands before the ids of the figure, for pages with several.
    """
    order = sorted(scores, key=lambda category: (np.isnan(scores[category][0]), -scores[category][0], category))
    values = [scores[category][0] * 100 for category in order]
    titles = {}
    with _figure(0.9 + 0.25 * len(order)) as figure:
        axis = figure.subplots()
        bars = axis.barh(range(len(order)), np.nan_to_num(values), height=0.68, color=_FILL)
        for number, (bar, category) in enumerate(zip(bars, order, strict=True)):
            bar.set_gid(f"bar-{number}")
            mean = "\N{EN DASH}" if np.isnan(values[number]) else f"{values[number]:.1f}"
            titles[f"bar-{number}"] = f"{category}: mIoU {mean} %, {scores[category][1]:,} samples"
            end = np.nan_to_num(values[number])
            axis.text(end + 1.5, number, mean, va="center_baseline", fontsize=LETTERS - 1)
            axis.text(136, number, f"{scores[category][1]:,}", va="center_baseline", ha="right", fontsize=LETTERS - 1)
        axis.text(136, -0.95, "n", va="center_baseline", ha="right", fontsize=LETTERS - 1)
        axis.set_yticks(range(len(order)), [_shorten(category) for category in order])
        axis.set_ylim(len(order) - 0.4, -1.4)
        axis.set_xlim(0, 136)
        axis.set_xticks(range(0, 101, 25))
        axis.set_xlabel("mIoU (%)", loc="left")
        axis.tick_params(axis="y", length=0)
        axis.spines["bottom"].set_bounds(0, 100)
        return _svg(figure, name, f"mIoU of {len(order)} categories", titles)


@contextmanager
def _figure(height: float) -> Iterator[Figure]:
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def _grid(axis: Axes, which: str) -> None:
    axis.grid(axis=which, color=_LINE, linewidth=0.6)  # type: ignore[arg-type]
    axis.set_axisbelow(True)


def _shorten(name: str) -> str:
    name = "".join(letter if letter.isprintable() else " " for letter in name)  # XML has no control characters
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _svg(figure: Figure, name: str, label: str, titles: Mapping[str, str]) -> str:
    """Writes a figure as an <svg> element for HTML.

    Ids that are referred to or were given get `name` before them, so that several figures fit into one page; all
    others go. Fonts and colours are the page's, the size is the page's too. Elements that have a title show it under
    the pointer.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    root = ElementTree.fromstring(text.getvalue())
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text.getvalue())) | set(titles)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            plain = key.rpartition("}")[2]
            if plain == "id":
                if value in used:
                    element.set("id", f"{name}-{value}")
                    if value in titles:
                        caption = ElementTree.Element("title")
                        caption.text = titles[value]
                        element.insert(0, caption)
            elif plain == "href":
                element.set("href", value.replace("#", f"#{name}-"))
            elif plain == "style":
                element.set("style", _colour(re.sub(r" font-family: [^;]*;?", "", value)))
            else:
                element.set(plain, value.replace("url(#", f"url(#{name}-"))
    for element in list(root):
        if element.tag in ("metadata", "defs") and element.find("style") is not None:
            root.remove(element)  # a style sheet inside HTML would rule the whole page
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _colour(style: str) -> str:
    return re.sub("#0000[01][1-4]", lambda found: _CSS[found.group()], style)
