"""The importance of a study's keys as a bar chart."""

import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from s4eca.errors import S4ecaError
from s4eca.sweep.status import TOP, Importance

ENDINGS = (".png", ".svg", ".pdf")
BAR, INK, PALE = "#0b5cad", "#1a1a1a", "#e4e4e4"
_STYLE: Any = {"font.size": 10, "text.color": INK, "text.parse_math": False, "svg.hashsalt": "s4eca"}


def check_ending(path: Path) -> None:
    """Raises `S4ecaError` where a file's ending names no format of a picture."""
    if path.suffix.lower() not in ENDINGS:
        raise S4ecaError(f"out={path} does not end in {', '.join(ENDINGS)}, which decides the picture's format.")


def draw_importance(importance: Importance, study: str, metric: str) -> Figure:
    """Draws a bar per key, the most important one on top."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 1.7 + 0.42 * len(importance.shares)), dpi=150, layout="constrained")
        axes = figure.subplots()
        names, shares = list(importance.shares), list(importance.shares.values())
        bars = axes.barh(range(len(names)), shares, height=0.62, color=BAR)
        axes.bar_label(bars, [f"{100 * share:.0f} %" for share in shares], padding=5)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * max(shares))
        axes.set_xticks([])
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        axes.spines["left"].set_color(PALE)
        axes.tick_params(length=0)
        axes.set_title(f"{study}: what decides {metric}", loc="left", fontsize=12.5, pad=10)
        axes.set_xlabel(
            f"share of what tells the best {100 * TOP:.0f} % from all {importance.trials} complete trials (PED-ANOVA)",
            loc="left",
        )
    return figure


def write_picture(figure: Figure, path: Path) -> None:
    """Writes a picture in the format of its ending; what was there stays until then.

    Raises:
        S4ecaError: an ending of no format, or a place that cannot be written to.
    """
    check_ending(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with mpl.rc_context(_STYLE):
                figure.savefig(partial, format=path.suffix.lower()[1:])
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise S4ecaError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error
