"""`s4eca compare A B`: the paired difference of two evaluations on the same samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from s4eca.evaluation.compare import Comparison, Difference, Paired


def compare(
    a: Annotated[Path, typer.Argument(help="folder of an evaluation, or its samples.parquet", metavar="A")],
    b: Annotated[Path, typer.Argument(help="another one on the same samples", metavar="B")],
    protocol: Annotated[list[str] | None, typer.Option(help="lavt, original or detris; may be given again")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write everything to this file")] = None,
    replicates: Annotated[int, typer.Option(help="of the bootstrap over images")] = 2000,
    seed: Annotated[int, typer.Option(help="of the bootstrap")] = 0,
    confidence: Annotated[float, typer.Option(help="share of the replicates inside an interval")] = 0.95,
) -> None:
    """Compare two evaluations on the same samples: every score of B less that of A, with a paired interval."""
    from rich.console import Console

    from s4eca.evaluation.bootstrap import Bootstrap
    from s4eca.evaluation.compare import compare as pair
    from s4eca.evaluation.report import dump_metrics
    from s4eca.evaluation.results import read_evaluation
    from s4eca.files import check_writable

    if json_file is not None:
        check_writable(json_file)
    settings = Bootstrap(replicates, seed, confidence)
    comparison = pair(read_evaluation(a), read_evaluation(b), protocol or None, settings)
    console = Console(soft_wrap=True, highlight=False)
    for letter, about, path in (("A", comparison.a, a), ("B", comparison.b, b)):
        console.print(f"{letter}: {_run(about, path)}", markup=False)
    console.print(_told(comparison), markup=False)
    console.print(_drawn(comparison))
    for name, paired in comparison.protocols.items():
        console.print(_table(name, paired, confidence))
    console.print("≤ 0: share of the replicates. p: two-sided bootstrap p of no difference.")
    if json_file is not None:
        dump_metrics(json_file, comparison.as_dict())
        console.print(str(json_file), markup=False)


def _drawn(comparison: "Comparison") -> str:
    settings = comparison.settings
    return (
        f"{comparison.samples:,} samples on {comparison.images:,} images; {settings.replicates:,} bootstrap replicates"
        f" over images, seed {settings.seed}"
    )


def _table(protocol: str, paired: "Paired", confidence: float) -> "Table":
    from rich import box
    from rich.table import Table

    title = f"{protocol}: B better on {paired.wins:,} samples, equal on {paired.ties:,}, worse on {paired.losses:,}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("%", no_wrap=True)
    for name in ("A", "B", "B - A", f"{100 * confidence:g}% from", "to", "≤ 0", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for score, difference in paired.scores.items():
        table.add_row(score, *_cells(difference))
    return table


def _cells(score: "Difference") -> list[str]:
    percent = [f"{100 * value:.2f}" for value in (score.a, score.b)]
    signed = [f"{100 * value:+.2f}" for value in (score.difference, score.low, score.high)]
    shares = [f"{value:.4f}" for value in (score.not_positive, score.p)]
    return ["-" if "nan" in cell else cell for cell in (*percent, *signed, *shares)]


def _run(about: Mapping[str, Any], path: Path) -> str:
    from s4eca.evaluation.about import name_backbones

    words = [str(about[entry]) for entry in ("name", "tuning") if about.get(entry)]
    words.append(name_backbones(about))
    words += [f"seed {about['seed']}"] if about.get("seed") is not None else []
    return f"{', '.join(words)} ({path})"


def _told(comparison: "Comparison") -> str:
    from s4eca.evaluation.about import lacks_identity, tell_differences

    old = any(lacks_identity(about) for about in (comparison.a, comparison.b))
    told = tell_differences(comparison.differences)
    differ = f"They differ in {told}." if told else "They state no difference."
    return f"{differ} Results of an earlier version do not state all that made them." if old else differ
