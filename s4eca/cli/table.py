"""`s4eca table`: runs beside published results."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s4eca.errors import S4ecaError

if TYPE_CHECKING:
    from s4eca.evaluation.tables.published import PublishedResult
    from s4eca.evaluation.tables.runs import Run


def table(
    runs: Annotated[
        list[Path], typer.Argument(help="run folders, evaluation folders, or files of `s4eca score --out`")
    ],
    dataset: Annotated[str | None, typer.Option(help="only evaluations of this one, e.g. rrsis_d")] = None,
    split: Annotated[str | None, typer.Option(help="only evaluations of this one: val or test")] = None,
    protocol: Annotated[str, typer.Option(help="lavt, original or detris")] = "lavt",
    form: Annotated[str, typer.Option("--format", help="markdown, latex or csv")] = "markdown",
    out: Annotated[Path | None, typer.Option(help="file to write instead of printing")] = None,
    published: Annotated[str, typer.Option(help="all, none, or methods: lavt,rmsin")] = "all",
    sort: Annotated[str, typer.Option(help="mIoU, oIoU or Pr@0.5 … Pr@0.9; best first")] = "mIoU",
    group: Annotated[
        bool, typer.Option("--group/--no-group", help="runs that differ by their seed alone as mean ± deviation")
    ] = True,
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
    chosen = _choose_published(published)
    evaluations = _choose_runs(find_runs(runs), dataset, split)
    text = FORMATS[form](build_tables(evaluations, chosen, protocol, _score(sort), group))
    if out is None:
        typer.echo(text, nl=False)
        return
    write_text(out, text)
    typer.echo(str(out))


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
