"""Tables as Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Callable, Sequence

from rich.cells import cell_len

from s4eca.evaluation.tables.build import Table
from s4eca.evaluation.tables.cost import COSTS, EQUAL_OVER_SEEDS, format_cost
from s4eca.evaluation.tables.published import SCORES
from s4eca.evaluation.tables.rows import Row

MISSING = "–"  # noqa: RUF001
CSV_COLUMNS = (
    *("dataset", "split", "method", "kind", "protocol", "marks"),
    *(column for name in SCORES for column in (name, f"{name} deviation")),
    *("n_seeds", "seeds", "samples", "n_empty", "input_size", "selection", "training", "source", "remark"),
    "backbones",
)
COST_CSV_COLUMNS = (
    *(COSTS[key] for key in EQUAL_OVER_SEEDS),
    *(column for key, name in COSTS.items() if key not in EQUAL_OVER_SEEDS for column in (name, f"{name} deviation")),
    "measured on",
)
RATE_CSV_COLUMNS = ("lr", "lr chosen from")

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # the default font encoding shows other signs for these
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "`": r"\textasciigrave{}",
    # what notes and marks use
    "≥": r"$\ge$",
    "±": r"$\pm$",
    "–": r"\textendash{}",  # noqa: RUF001
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "‖": r"$\|$",
    "○": r"$\circ$",
    "◇": r"$\diamond$",
    "▽": r"$\bigtriangledown$",
    "△": r"$\bigtriangleup$",
}


def to_markdown(tables: Sequence[Table]) -> str:
    """Returns GitHub's tables with aligned columns, each under a heading and with its notes as a list.

    Percent with two decimals, mean ± sample deviation for several seeds; the runs' names are bold. No score
    is: rows of different protocols have no common best one.
    """
    return "\n".join(_markdown(table) for table in tables)


def to_latex(tables: Sequence[Table]) -> str:
    r"""Returns a `table*` each, for a document that loads booktabs; notes stand under the table in small type."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_latex(table) for table in tables)


def to_csv(tables: Sequence[Table]) -> str:
    """Returns all tables as one, a line per row: percent with two decimals, empty where there is no value.

    `kind` is `run` or `published`, `marks` are the keys of `s4eca.evaluation.tables.rows.MARKS` separated by spaces.
    Tables with costs have these as further columns at the end, with six significant digits, and those with learning
    rates these, with the rates that they were chosen from on val.
    """
    text = io.StringIO()
    columns = CSV_COLUMNS
    columns += COST_CSV_COLUMNS if any(table.costs for table in tables) else ()
    columns += RATE_CSV_COLUMNS if any(table.rates for table in tables) else ()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            scores = {}
            for name, score in row.scores.items():
                mean, deviation = score or (None, None)
                scores[name] = "" if mean is None else f"{mean:.2f}"
                scores[f"{name} deviation"] = "" if deviation is None else f"{deviation:.2f}"
            for key in table.costs:
                mean, deviation = row.costs.get(key) or (None, None)
                scores[COSTS[key]] = "" if mean is None else f"{mean:.6g}"
                if deviation is not None:
                    scores[f"{COSTS[key]} deviation"] = f"{deviation:.6g}"
            if table.costs:
                scores["measured on"] = row.measured
            if table.rates:
                scores |= dict(zip(RATE_CSV_COLUMNS, (row.rate, row.candidates), strict=True))
            about = {"dataset": table.dataset, "split": table.split, "method": row.label}
            kind = {"kind": "run" if row.own else "published", "marks": " ".join(row.marks)}
            writer.writerow({**about, **kind, **scores, **row.fields})
    return text.getvalue()


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}


def escape_markdown(text: str) -> str:
    """Makes a text stand for itself in a table's cell or in a list; line breaks become spaces."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*|<\[\]~&#])", r"\\\1", text)
    # at the beginning these would open a quotation or another list
    text = re.sub(r"^([>+-])", r"\\\1", text)
    text = re.sub(r"^(\d+)([.)])", r"\1\\\2", text)
    # between letters and digits an underscore is plain
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def escape_latex(text: str) -> str:
    """Makes a text stand for itself in LaTeX; line breaks become spaces."""
    text = " ".join(text.split())
    # two hyphens in a row would be drawn as a dash
    return "".join(
        "-{}" if text.startswith("--", index) else _LATEX.get(character, character)
        for index, character in enumerate(text)
    )


def _markdown(table: Table) -> str:
    body, sources, header = [], _sources(table), _header(table)
    for row in table.rows:
        label = escape_markdown(row.label)
        name = f"**{label}**" if row.own else label
        cells = _numbers(table, row, "{}±{}")
        body.append([f"{name} {row.symbols}".rstrip(), *cells, row.source if row.own else sources[row.source]])
    widths = [max(cell_len(cells[i]) for cells in (header, *body)) for i in range(len(header))]
    rule = [
        ":" + "-" * (widths[0] - 1),
        *("-" * (width - 1) + ":" for width in widths[1:-1]),
        ":" + "-" * (widths[-1] - 1),
    ]
    lines = [_padded(header, widths), f"| {' | '.join(rule)} |", *(_padded(cells, widths) for cells in body)]
    notes = [f"- {escape_markdown(f'{symbol} {text}')}" for symbol, text in [*table.notes, *_source_notes(sources)]]
    return "\n".join([f"### {escape_markdown(table.title)}", "", *lines, "", *notes, ""])


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    space = [" " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
    middle = [blank + cell for cell, blank in zip(cells[1:-1], space[1:-1], strict=True)]
    return f"| {' | '.join([cells[0] + space[0], *middle, cells[-1] + space[-1]])} |"


def _latex(table: Table) -> str:
    body, sources = [], _sources(table)
    for row in table.rows:
        name = rf"\textbf{{{escape_latex(row.label)}}}" if row.own else escape_latex(row.label)
        marks = rf"\textsuperscript{{{escape_latex(row.symbols)}}}" if row.symbols else ""
        cells = [cell.replace(MISSING, "--") for cell in _numbers(table, row, r"{}{{\scriptsize$\pm${}}}")]
        body.append(" & ".join([name + marks, *cells, row.source if row.own else sources[row.source]]) + r" \\")
    notes = [
        (rf"\textsuperscript{{{escape_latex(symbol)}}}" if symbol else "") + escape_latex(text)
        for symbol, text in [*table.notes, *_source_notes(sources)]
    ]
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{escape_latex(table.title)}.}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{4pt}",
            rf"\begin{{tabular}}{{l{'r' * (len(_header(table)) - 2)}l}}",
            r"\toprule",
            " & ".join(escape_latex(name) for name in _header(table)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\smallskip",
            r"\begin{minipage}{\textwidth}",
            r"\scriptsize\raggedright",
            *(rf"{note}\par" for note in notes),
            r"\end{minipage}",
            r"\end{table*}",
            "",
        ]
    )


def _sources(table: Table) -> dict[str, str]:
    """Numbers the sources of the published rows from the first row down, as `(1)`."""
    named = dict.fromkeys(row.source for row in table.rows if not row.own)
    return {source: f"({number})" for number, source in enumerate(named, 1)}


def _source_notes(sources: dict[str, str]) -> list[tuple[str, str]]:
    listed = "; ".join(f"{number} {source}" for source, number in sources.items())
    return [("", f"Sources: {listed}.")] if listed else []


def _header(table: Table) -> list[str]:
    costs = (COSTS[key] for key in table.costs)
    rate = ["lr"] if table.rates else []
    return ["method", *rate, *costs, *(name.replace("0.", ".") for name in table.scores), "source"]


def _numbers(table: Table, row: Row, spread: str) -> list[str]:
    """Returns the cells of a row between its name and its source."""
    costs = (row.costs.get(key) for key in table.costs)
    cells = [row.rate or MISSING] if table.rates else []
    cells += [MISSING if cost is None else format_cost(*cost, spread) for cost in costs]
    for name in table.scores:
        mean, deviation = row.scores[name] or (None, None)
        if mean is None:
            cells.append(MISSING)
        else:
            cells.append(f"{mean:.2f}" if deviation is None else spread.format(f"{mean:.2f}", f"{deviation:.2f}"))
    return cells
