"""`s4eca table`: runs beside published results."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s4eca.errors import S4ecaError

if TYPE_CHECKING:
    from s4eca.evaluation.tables.build import Table
    from s4eca.evaluation.tables.published import PublishedResult
    from s4eca.evaluation.tables.runs import Run


def table(
    runs: Annotated[
        list[Path],
        typer.Argument(help="run folders, folders of these, evaluation folders, or files of `s4eca score --out`"),
    ],
    dataset: Annotated[str | None, typer.Option(help="only evaluations of this one, e.g. rrsis_d")] = None,
    split: Annotated[str | None, typer.Option(help="only evaluations of this one: val or test")] = None,
    protocol: Annotated[str, typer.Option(help="lavt, original or detris")] = "lavt",
    form: Annotated[str, typer.Option("--format", help="markdown, latex or csv")] = "markdown",
    out: Annotated[Path | None, typer.Option(help="file to write instead of printing")] = None,
    published: Annotated[
        str | None,
        typer.Option(help="all, none, or methods: lavt,rmsin; all unless --cost is given, then none"),
    ] = None,
    sort: Annotated[str, typer.Option(help="mIoU, oIoU or Pr@0.5 … Pr@0.9; best first")] = "mIoU",
    group: Annotated[
        bool, typer.Option("--group/--no-group", help="runs that differ by their seed alone as mean ± deviation")
    ] = True,
    cost: Annotated[
        bool,
        typer.Option(
            "--cost",
            help="learned parameters, memory and step time of the runs beside mIoU, oIoU and the score of --sort;"
            " published rows, if asked for, have a dash there",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="file to draw the score of --sort in against the runs' budget and memory: .png, .svg or .pdf"
        ),
    ] = None,
) -> None:
    """Put runs beside published results, in percent, with marks where protocols differ or are not known."""
    from s4eca.evaluation.tables.build import build_tables
    from s4eca.evaluation.tables.formats import FORMATS
    from s4eca.evaluation.tables.runs import find_runs
    from s4eca.files import check_writable, write_text

    if form not in FORMATS:
        raise S4ecaError(f"There is no format {form!r}: choose one of {', '.join(FORMATS)}.")
    if out is not None:
        check_writable(out)
    if plot is not None:
        _check_plot(plot, out)
    if published is None:
        published = "none" if cost else "all"
    chosen = _choose_published(published)
    evaluations = _choose_runs(find_runs(runs), dataset, split)
    tables = build_tables(evaluations, chosen, protocol, _score(sort), group, cost)
    text = FORMATS[form](tables)
    if plot is not None:
        _plot(tables, _score(sort), plot)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_text(out, text)
    typer.echo(str(out))


def _check_plot(plot: Path, out: Path | None) -> None:
    from s4eca.evaluation.tables.plot import check_ending
    from s4eca.files import check_writable

    check_ending(plot)
    check_writable(plot)
    if out is not None and out.resolve() == plot.resolve():
        raise S4ecaError(f"--out and --plot both name {plot}: give them different files.")


def _plot(tables: "Sequence[Table]", score: str, plot: Path) -> None:
    """Draws the one table and says on standard error, apart from the table, where it is and what it lacks."""
    from s4eca.evaluation.tables.plot import draw_plot, plot_notes, write_plot

    if len(tables) > 1:
        there = ", ".join(f"{table.dataset} {table.split}" for table in tables)
        raise S4ecaError(f"A plot shows one dataset and split, and there are {there}: choose by --dataset and --split.")
    write_plot(draw_plot(tables[0], score), plot)
    for sentence in plot_notes(tables[0], score):
        typer.echo(sentence, err=True)
    typer.echo(str(plot), err=True)


def _choose_runs(runs: "Sequence[Run]", dataset: str | None, split: str | None) -> "list[Run]":
    chosen = [run for run in runs if dataset in (None, run.dataset) and split in (None, run.split)]
    if not chosen:
        wanted = ", ".join(filter(None, (dataset, split)))
        there = ", ".join(sorted({f"{run.dataset} {run.split}" for run in runs}))
        raise S4ecaError(f"None of the {len(runs)} evaluations is of {wanted}; there are {there}.")
    return chosen


def _choose_published(choice: str) -> "list[PublishedResult]":
    """Returns the published results that `--published` names; letter case and signs in a method's name do not count."""
    from s4eca.evaluation.tables.published import load_published

    if choice.strip().lower() == "none":
        return []
    results = load_published()
    if choice.strip().lower() == "all":
        return results
    methods = {_plain(result.method): result.method for result in results}
    wanted = {_plain(name): name for name in choice.split(",") if name.strip()}
    missing = [name.strip() for plain, name in wanted.items() if plain not in methods]
    if missing or not wanted:
        raise S4ecaError(
            f"--published {choice!r} names no published method ({', '.join(missing) or 'it is empty'}): use all, none,"
            f" or some of {', '.join(methods.values())}."
        )
    return [result for result in results if _plain(result.method) in wanted]


def _score(name: str) -> str:
    from s4eca.evaluation.tables.published import SCORES

    known = {score.lower(): score for score in SCORES} | {score.lower().replace("0.", "."): score for score in SCORES}
    return known.get(name.lower(), name)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
