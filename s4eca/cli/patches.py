"""`s4eca data patches`: iSAID's scenes become the patches that papers score."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def patches(
    root: Annotated[Path, typer.Argument(help="folder of iSAID, with train/images, val/images, …")],
    out: Annotated[Path, typer.Argument(help="folder to write; whole patches in it are kept")],
    size: Annotated[int, typer.Option(help="side of the patches in pixels")] = 896,
    overlap: Annotated[int, typer.Option(help="of neighbouring patches in pixels")] = 384,
    split: Annotated[
        list[str] | None, typer.Option(help="train, val or test; default: val, repeat for several")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="threads, one scene each")] = 4,
) -> None:
    """Cut iSAID's scenes into overlapping patches, 896 pixels with overlap 384 as mmsegmentation does."""
    from s4eca.data.readers.checks import check_split
    from s4eca.data.semantic.patches import cut_patches

    chosen = list(dict.fromkeys(split or ["val"]))
    for name in chosen:
        check_split(name)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    for name in chosen:
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"cutting {name} scenes", total=None)
            cut = cut_patches(
                root,
                out,
                name,
                size,
                overlap,
                workers,
                lambda done, total: bar.update(task, completed=done, total=total),  # noqa: B023
            )
        typer.echo(
            f"{out}: {cut.patches:,} {name} patches of {cut.scenes:,} scenes, {cut.written:,} written and"
            f" {cut.patches - cut.written:,} kept"
        )
