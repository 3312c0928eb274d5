"""Scores for people and for programs: a table, a JSON file and a CSV file."""

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.table import Table

from s4eca.evaluation.protocols import TENTHS
from s4eca.files import write_text

Results = Mapping[str, Mapping[str, float]]
"""Scores per protocol, as `ReferringMetrics.compute` returns them."""

COLUMNS = (*(f"Pr@0.{tenth}" for tenth in TENTHS), "oIoU", "mIoU")
"""The field's order."""


def metrics_table(scores: Results, title: str) -> Table:
    """Returns a table in percent, one row per protocol.

    A protocol with samples of empty truth gets a second row without them, and both counts are printed.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE)  # 80 columns are enough for it
    table.add_column("protocol", no_wrap=True)
    for name in (*COLUMNS, "n"):
        table.add_column(name.replace("0.", "."), justify="right")
    for protocol, values in scores.items():
        table.add_row(protocol, *_cells(values, ""))
        if values["n_empty"]:
            table.add_row("  non-empty", *_cells(values, "nonempty/"))
    return table


def write_metrics(folder: Path, scores: Results) -> tuple[Path, Path]:
    """Writes `metrics.json` and `metrics.csv` into a folder, as fractions, and returns their paths.

    The JSON file is {"protocols": {protocol: {"mIoU": …, "n": …}}}, the CSV file has a line per protocol. What has no
    value, such as the mean of no samples, is null in the one and empty in the other. A file is replaced as a whole:
    a reader never sees half of one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    protocols = {
        protocol: {name: None if math.isnan(value) else value for name, value in values.items()}
        for protocol, values in scores.items()
    }
    as_json = folder / "metrics.json"
    write_text(as_json, json.dumps({"protocols": protocols}, indent=2, allow_nan=False) + "\n")

    names = list(dict.fromkeys(name for values in protocols.values() for name in values))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["protocol", *names], lineterminator="\n")
    writer.writeheader()
    for protocol, values in protocols.items():
        writer.writerow({"protocol": protocol, **values})
    as_csv = folder / "metrics.csv"
    write_text(as_csv, text.getvalue())
    return as_json, as_csv


def _cells(values: Mapping[str, float], prefix: str) -> list[str]:
    percent = [values[prefix + name] * 100 for name in COLUMNS]
    return ["-" if math.isnan(value) else f"{value:.2f}" for value in percent] + [str(values[prefix + "n"])]
