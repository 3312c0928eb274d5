"""`s4eca data convert`: one layout becomes another."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[Path, typer.Argument(help="folder of the dataset")],
    out: Annotated[Path, typer.Argument(help="folder to write; it must not exist or be empty")],
    to: Annotated[str, typer.Option(help="rrsis_d, refer, refsegrs, risbench or jsonl")],
    layout: Annotated[
        str | None, typer.Option("--from", help="layout of the source; found out where it is left out")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="train, val or test; all three, repeat for several")] = None,
    images: Annotated[str, typer.Option(help="link: symbolic links to the source's images | copy")] = "link",
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the source's reader, such as dataset=rrsishr; repeat")
    ] = None,
) -> None:
    """Write a dataset in another layout without loss, or say what the layout cannot hold."""
    from s4eca.data.convert import convert as run
    from s4eca.data.readers.checks import SPLITS
    from s4eca.data.readers.layouts import detect_layout
    from s4eca.errors import S4ecaError

    options = {}
    for item in option or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise S4ecaError(f"--option {item} is no KEY=VALUE: write for example --option dataset=rrsishr.")
        options[key] = value
    layout = layout or detect_layout(source)
    written = run(source, out, to, layout, tuple(split or SPLITS), images, options)
    sizes = ", ".join(f"{len(items):,} {name}" for name, items in written.items())
    pictures = len({item.image for items in written.values() for item in items})
    nothing = sum(item.no_target for items in written.values() for item in items)
    typer.echo(f"{out}: {sizes} references to {pictures:,} images, from {layout} to {to}")
    if nothing:
        typer.echo(f"{nothing:,} of them have no target")
