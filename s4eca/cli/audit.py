"""`s4eca data audit`: what is in a dataset, and what is wrong with it."""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from s4eca.errors import S4ecaError
from s4eca.files import write_text

if TYPE_CHECKING:  # the data room imports torch, which `s4eca --help` need not wait for
    from s4eca.data.audit import Audit, Progress
    from s4eca.data.sheet import Section

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
COLOURS = {"error": (200, 30, 40), "warning": (230, 160, 0), "note": (0, 130, 170)}
FIRST = 5  # names printed per finding; the JSON has them all
PER_FINDING = 4  # samples drawn per finding
RANDOM = 8  # samples drawn besides


def audit(
    root: Annotated[Path, typer.Argument(help="a dataset's folder, or one annotation file such as refs(unc).p")],
    layout: Annotated[str | None, typer.Option(help="how the files are arranged; found out where not given")] = None,
    as_json: Annotated[
        str | None, typer.Option("--json", help="file to write everything to; - for standard output, and no report")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="contact sheet of the samples behind the findings: FILE.png or FILE.html")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="folder or hub id of a tokenizer, to count tokens; none counts words only")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=3, help="length of the token rows; default: that of the dataset's data module")
    ] = None,
    pixels: Annotated[
        bool,
        typer.Option("--pixels/--no-pixels", help="open image and mask files, or only what the annotations hold"),
    ] = True,
    tiny: Annotated[int, typer.Option(min=1, help="report masks of fewer pixels than this")] = 32,
    workers: Annotated[int, typer.Option(min=1, help="threads that decode")] = 4,
    depth: Annotated[int, typer.Option(min=8, max=16, help="bits in use of images, as data.depth in a training")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="of the random samples on the sheet")] = 0,
) -> None:
    """Check a dataset: counts, expressions, duplicates, leakage, masks, boxes, damaged files.

    Exit status 1 where there are errors: something that would fail, or make a score wrong.
    """
    if max_tokens is not None and tokenizer is None:
        raise S4ecaError("--max-tokens needs a tokenizer to count with: add --tokenizer PATH.")
    if as_json not in (None, "-"):
        _check_folder(Path(as_json))
    from s4eca.data.audit import audit as run
    from s4eca.data.sheet import check_sheet_path, write_sheet

    if sheet is not None:
        check_sheet_path(sheet)
    with _progress() as report:
        found = run(
            root,
            layout,
            tokenizer=_tokenizer(tokenizer) if tokenizer else None,
            tokenizer_name=tokenizer or "",
            max_tokens=max_tokens,
            pixels=pixels,
            tiny=tiny,
            workers=workers,
            depth=depth,
            progress=report,
        )
    text = json.dumps(found.plain(), indent=2, ensure_ascii=False) + "\n"
    console = Console(soft_wrap=False, highlight=False)
    if as_json == "-":
        typer.echo(text, nl=False)
    else:
        print_audit(found, console)
        if as_json is not None:
            write_text(Path(as_json), text)
            console.print(as_json, soft_wrap=True)
    if sheet is not None:
        write_sheet(sheet, sheet_sections(found, seed, depth))
        if as_json != "-":
            console.print(str(sheet), soft_wrap=True)
    if found.failed:
        raise typer.Exit(1)


def print_audit(audit: "Audit", console: Console) -> None:
    """Prints the facts, then the findings, errors first."""
    console.print(f"[bold]{escape(str(audit.root))}[/bold], layout {audit.layout}")
    console.print(_splits(audit.facts))
    console.print(_categories(audit.facts))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _fact_lines(audit.facts):
        facts.add_row(name, escape(value))
    console.print(facts)
    if audit.findings:
        console.print(_findings(audit))
    counts = ", ".join(f"{_number(count)} {name}{'' if count == 1 else 's'}" for name, count in audit.summary.items())
    console.print(f"[bold]{counts}[/bold]")


def sheet_sections(audit: "Audit", seed: int, depth: int = 8) -> "list[Section]":
    """Returns what the sheet shows: the first samples behind every finding, and some chosen at random."""
    from s4eca.data.sheet import Section

    convention = (audit.facts["boxes"] or {}).get("convention")
    sections = []
    for finding in audit.findings:
        if finding.records:
            title = f"{finding.severity} · {finding.code} · {_number(finding.count)}: {finding.text}"
            shown = [audit.records[i] for i in finding.records[:PER_FINDING]]
            drawn = convention if finding.code.startswith("box-") else None
            sections.append(Section(title, shown, COLOURS[finding.severity.value], drawn, depth))
    chosen = random.Random(seed).sample(range(len(audit.records)), min(RANDOM, len(audit.records)))
    if chosen:
        sections.append(Section("chosen at random", [audit.records[i] for i in sorted(chosen)], depth=depth))
    return sections


def _splits(facts: Mapping[str, Any]) -> Table:
    table = Table("split", box=box.SIMPLE_HEAD)
    for name in ("references", "published", "images", "seen in train", "truncated"):
        table.add_column(name, justify="right")
    seen, tokens = facts["expressions"]["seen_in_train"], facts["tokens"]
    for split, row in facts["splits"].items():
        table.add_row(
            escape(split),
            _number(row["references"]),
            _number(row["published"]),
            _number(row["images"]),
            _number((seen or {}).get(split)),
            _number(tokens["truncated"].get(split, 0)) if tokens else "-",
        )
    return table


def _categories(facts: Mapping[str, Any]) -> Table:
    splits = list(facts["splits"])
    table = Table("category", box=box.SIMPLE_HEAD)
    for split in splits:
        table.add_column(escape(split), justify="right")
    for name, counts in facts["categories"].items():
        table.add_row(escape(name), *(_number(counts.get(split, 0)) for split in splits))
    return table


def _fact_lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns one line per fact, with what was not measured said to be so."""
    expressions, tokens, images, masks = (facts[name] for name in ("expressions", "tokens", "images", "masks"))
    boxes, areas = facts["boxes"], facts["areas"]
    lines = [
        (
            "expressions",
            f"{_number(expressions['distinct'])} distinct, vocabulary of {_number(expressions['vocabulary'])} words",
        ),
        ("words", _lengths(expressions["words"])),
    ]
    if tokens is None:
        lines.append(("tokens", "not counted: no --tokenizer given"))
    else:
        cut = sum(tokens["truncated"].values())
        lines.append(("tokens", f"{_lengths(tokens['tokens'])} ({tokens['tokenizer']}, special tokens included)"))
        lines.append(("truncated", f"{_number(cut)} at {tokens['max_tokens']} tokens"))
    if images is None:
        lines.append(("images", "not opened"))
    else:
        sizes = [f"{_number(count)} of {size}" for size, count in images["sizes"].items()]
        shown = "; ".join(sizes[:FIRST]) + (f"; {len(sizes) - FIRST} more sizes" if len(sizes) > FIRST else "")
        lines.append(("images", f"{_number(images['decoded'])} decoded: {shown}"))
    if masks is None:
        lines.append(("masks", "not opened"))
    else:
        lines.append(
            (
                "masks",
                f"{_number(masks['decoded'])} decoded, {_number(masks['empty'])} empty, {_number(masks['tiny'])} under"
                f" {_number(masks['tiny_below'])} pixels; median {_number(masks['median_pixels'])} pixels,"
                f" smallest {_number(masks['min_pixels'])}",
            )
        )
    if boxes is not None:
        lines.append(("boxes", f"{_number(boxes['boxes'])}, convention {boxes['convention'] or 'not recognised'}"))
    if areas is not None:
        lines.append(("areas", f"{_number(areas['areas'])}, {_number(areas['differing'])} of them unlike the mask"))
    return lines


def _findings(audit: "Audit") -> Table:
    table = Table("", box=box.SIMPLE_HEAD)
    table.add_column("count", justify="right")
    table.add_column("finding", overflow="fold")  # commands and paths stay whole
    for finding in audit.findings:
        severity = finding.severity.value
        names = ", ".join(finding.names[:FIRST]) + (", …" if len(finding.names) > FIRST else "")
        text = f"[bold]{finding.code}[/bold]: {escape(finding.text)}"
        if names:
            text += f"\n[dim]{escape(names)}[/dim]"
        table.add_row(f"[{STYLES[severity]}]{severity}[/]", _number(finding.count), text)
    return table


def _lengths(lengths: Mapping[str, Any]) -> str:
    if lengths["mean"] is None:
        return "none"
    return f"mean {lengths['mean']:.2f}, from {lengths['min']} to {lengths['max']}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def _tokenizer(source: str) -> Any:
    from s4eca.tokenizer import load_tokenizer

    try:
        return load_tokenizer(source)
    except S4ecaError as error:
        raise S4ecaError(
            f"The tokenizer in {source} could not be loaded ({error.__cause__}): give --tokenizer a folder that holds"
            " one, or the id of one on a hub that can be reached."
        ) from error


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise S4ecaError(f"There is no folder {path.parent} for {path.name}: make it first.")


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Shows a bar per kind of file on standard error, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"decoding {what}", total=total)
            bar.update(tasks[what], completed=done)

        yield report
