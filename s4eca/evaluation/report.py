"""Scores for people and for programs: a table, a JSON file and a CSV file."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from s4eca.evaluation.metrics import PRECISION
from s4eca.files import write_text

Summary = Mapping[str, Any]
"""What `summarise_evaluation` returns."""

COLUMNS = (*PRECISION, "oIoU", "mIoU")
"""The field's order."""

NO_TARGET_COLUMNS = ("N-acc", "T-acc")


def metrics_table(summary: Summary, title: str) -> Group:
    """Returns a table in percent, 80 columns wide at most: a row per protocol, and below it the interval of each score.

    A protocol with samples of empty truth gets a further row without them, and both counts are printed. No-target
    samples add a table with N-acc and T-acc and the number of samples behind each, and kinds of expressions one with
    the mIoU of each kind.
    """
    protocols, drawn = summary["protocols"], summary["intervals"]
    table = _table(title, (*COLUMNS, "n"))
    for protocol, values in protocols.items():
        table.add_row(protocol, *_cells(values, COLUMNS), str(values["n"]))
        _add_interval(table, drawn, protocol, COLUMNS)
        if values["n_empty"]:
            nonempty = {name: values[f"nonempty/{name}"] for name in (*COLUMNS, "n")}
            table.add_row("  non-empty", *_cells(nonempty, COLUMNS), str(nonempty["n"]))
    tables = [table]
    if any(values["n_no_target"] for values in protocols.values()):
        rejected = _table("", (*NO_TARGET_COLUMNS, "n no-target", "n target"))
        for protocol, values in protocols.items():
            counts = str(values["n_no_target"]), str(values["n"])
            rejected.add_row(protocol, *_cells(values, NO_TARGET_COLUMNS), *counts)
            _add_interval(rejected, drawn, protocol, NO_TARGET_COLUMNS)
        tables.append(rejected)
    if kinds := summary.get("kinds"):
        by_kind = _table("", (*(f"mIoU {protocol}" for protocol in kinds), "n"), first="kind")
        for kind, values in next(iter(kinds.values())).items():
            cells = [_cells(kinds[protocol][kind], ("mIoU",))[0] for protocol in kinds]
            by_kind.add_row(kind, *cells, str(values["n"]))
        tables.append(by_kind)
    return Group(*tables)


def write_metrics(folder: Path, summary: Summary) -> tuple[Path, Path]:
    """Writes `metrics.json` (see `dump_metrics`) and `metrics.csv` into a folder and returns their paths.

    The CSV file has a line per protocol and group of samples: `all`, `nonempty` (without those of empty truth),
    `category:NAME`, `kind:NAME` (of expression), `pixels:BUCKET` and `share:BUCKET` (the truth's size). Its columns are
    protocol, group, n, n_empty, n_no_target, the scores as fractions, and for `all` and `nonempty` intervals as `NAME
    low` and `NAME high`. What has no value is empty. Files are replaced as a whole: a reader never sees half of one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_csv = folder / "metrics.json", folder / "metrics.csv"
    dump_metrics(as_json, summary)
    scores = (*COLUMNS, *NO_TARGET_COLUMNS)
    bounds = [f"{name} {bound}" for name in scores for bound in ("low", "high")]
    text = io.StringIO()
    names = ["protocol", "group", "n", "n_empty", "n_no_target", *scores, *bounds]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for line in _lines(summary):
        writer.writerow(_without_nan(line))
    write_text(as_csv, text.getvalue())
    return as_json, as_csv


def dump_metrics(path: Path, summary: Summary) -> None:
    """Writes a summary as a JSON file, fractions at full precision; the file is replaced as a whole.

    What has no value, such as the mean of no samples, is null.
    """
    write_text(path, json.dumps(_without_nan(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _lines(summary: Summary) -> Iterator[dict[str, Any]]:
    for protocol, values in summary["protocols"].items():
        intervals = summary["intervals"]["protocols"].get(protocol, {})
        low = {f"{name} low": bounds[0] for name, bounds in intervals.items()}
        high = {f"{name} high": bounds[1] for name, bounds in intervals.items()}
        yield {"protocol": protocol, "group": "all", **values, **low, **high}
        prefix = "nonempty/"
        nonempty = {
            name.removeprefix(prefix): value for name, value in {**values, **low, **high}.items() if prefix in name
        }
        yield {"protocol": protocol, "group": "nonempty", **nonempty}
        for category, scores in summary["categories"].get(protocol, {}).items():
            yield {"protocol": protocol, "group": f"category:{category}", **scores}
        for kind, scores in summary.get("kinds", {}).get(protocol, {}).items():
            yield {"protocol": protocol, "group": f"kind:{kind}", **scores}
        for kind, buckets in summary["sizes"].items():
            for bucket, scores in buckets.get(protocol, {}).items():
                yield {"protocol": protocol, "group": f"{kind}:{bucket}", **scores}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _table(title: str, columns: tuple[str, ...], first: str = "protocol") -> Table:
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE, collapse_padding=True)
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name.replace("0.", "."), justify="right", no_wrap=True)
    return table


def _add_interval(table: Table, drawn: Mapping[str, Any], protocol: str, names: tuple[str, ...]) -> None:
    """Adds two rows, the lower and the upper bound of every score, where the summary has intervals."""
    if protocol in drawn["protocols"]:
        bounds = drawn["protocols"][protocol]
        for place, word in enumerate(("from", "to")):
            label = f"  {100 * drawn['confidence']:g}% {word}"
            table.add_row(label, *_cells({name: bounds[name][place] for name in names}, names), "", style="dim")


def _cells(values: Mapping[str, float], names: tuple[str, ...]) -> list[str]:
    return ["-" if math.isnan(values[name]) else f"{100 * values[name]:.2f}" for name in names]
