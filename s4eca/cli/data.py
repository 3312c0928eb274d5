"""`s4eca data …`: looking at what is there, bringing it into another layout, making expressions, drawing scenes."""

from pathlib import Path
from typing import Annotated

import typer

from s4eca.cli.audit import audit
from s4eca.cli.convert import convert
from s4eca.cli.expressions import expressions
from s4eca.cli.patches import patches
from s4eca.cli.show import show

data = typer.Typer(help="Datasets on disk.", no_args_is_help=True)
data.command()(audit)
data.command()(show)
data.command()(convert)
data.command()(patches)
data.command()(expressions)


@data.command()
def synthesize(
    out: Annotated[Path, typer.Argument(help="folder to write; it must not exist or hold the same scenes")],
    layout: Annotated[str, typer.Option(help="rrsis_d or refsegrs")] = "rrsis_d",
    seed: Annotated[int, typer.Option(help="of the drawings")] = 0,
    train: Annotated[int, typer.Option(help="number of training images")] = 200,
    val: Annotated[int, typer.Option(help="number of validation images")] = 40,
    test: Annotated[int, typer.Option(help="number of test images")] = 40,
    size: Annotated[int, typer.Option(help="side of the images in pixels")] = 160,
) -> None:
    """Draw aerial-like scenes with expressions and masks, in a real dataset's layout."""
    from s4eca.data.synthetic.module import synthesize as write

    write(out, layout, seed, train=train, val=val, test=test, size=size)
    typer.echo(f"{out}: {train} training, {val} validation and {test} test images in the layout of {layout}")
