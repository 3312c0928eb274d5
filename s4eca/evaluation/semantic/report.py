"""Scores of semantic segmentation for people and for programs: tables, a JSON file and a CSV file."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from s4eca.evaluation.page.wording import count, percent
from s4eca.evaluation.report import dump_metrics
from s4eca.files import write_text

Summary = Mapping[str, Any]
"""What `summarise_semantic` returns."""

SPOKEN = {"pixel_accuracy": "pixel acc."}
COLUMNS = ("IoU", "recall", "precision")


def semantic_tables(summary: Summary, title: str) -> Group:
    """Returns the scores and, below, a line per class, in percent and 80 columns wide at most.

    The share is that of a class in all counted pixels of the truth. Where a part of the split was scored, a line below
    says so.
    """
    scores = summary["scores"]
    names = [name for name in scores if name not in ("images", "pixels")]
    overall = Table(title=title, title_justify="left", box=box.SIMPLE, collapse_padding=True)
    for name in (*names, "images"):
        overall.add_column(SPOKEN.get(name, name), justify="right", no_wrap=True)
    overall.add_row(*(percent(scores[name]) for name in names), count(scores["images"]))

    classes = Table(box=box.SIMPLE, collapse_padding=True)
    classes.add_column("class", max_width=32)
    for name in (*COLUMNS, "share"):
        classes.add_column(name, justify="right", no_wrap=True)
    for label, values in summary["classes"].items():
        share = values["truth_pixels"] / scores["pixels"] if scores["pixels"] else math.nan
        classes.add_row(Text(label), *(percent(values[name]) for name in COLUMNS), percent(share))
    notes = [Text(note, style="yellow") for note in (subset_note(summary),) if note]
    return Group(overall, classes, *notes)


def subset_note(summary: Summary) -> str | None:
    """Returns a sentence where a part of the split was scored, None where all of it was."""
    subset = summary["about"].get("subset")
    if not subset:
        return None
    return f"Only {subset['images']:,} of {subset['of']:,} images were scored, drawn with seed {subset['seed']}."


def write_semantic_metrics(folder: Path, summary: Summary) -> tuple[Path, Path]:
    """Writes `metrics.json` (the summary) and `metrics.csv` into a folder and returns their paths.

    The CSV file has a line `all` with the means, and a line `class:NAME` for each class. Scores are fractions at full
    precision; what has no value is null in the one and empty in the other. Files are replaced as a whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_csv = folder / "metrics.json", folder / "metrics.csv"
    dump_metrics(as_json, summary)
    lines = [{"group": "all", **summary["scores"]}]
    lines += [{"group": f"class:{label}", **values} for label, values in summary["classes"].items()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: "" if _is_nan(value) else value for name, value in line.items()})
    write_text(as_csv, text.getvalue())
    return as_json, as_csv


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
