"""`s4eca rates`: the learning rate of every row of a comparison, chosen on the validation split."""

from pathlib import Path
from typing import Annotated

import typer

from s4eca.errors import S4ecaError


def rates(
    runs: Annotated[
        list[Path], typer.Argument(help="folders of a multirun, as of experiment=pet_rates, or run folders")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="file to write, for lr_from=FILE.yaml; rows that it has already and that were not tried stay"
        ),
    ] = None,
) -> None:
    """Choose each row's learning rate by the best val/mIoU among at least three, and write what was tried."""
    from s4eca.files import check_writable, write_text
    from s4eca.sweep.choosing import choose_rates, find_tried
    from s4eca.sweep.rates import at_edge, read_rates, written

    if out is not None:
        if out.suffix != ".yaml":
            raise S4ecaError(f"--out {out}: lr_from takes a file that ends in .yaml.")
        check_writable(out)
    kept = read_rates(out) if out is not None and out.is_file() else {}
    tried, unended = find_tried(runs)
    for folder in unended:
        typer.echo(f"warning: {folder} has not ended with a score and is left out", err=True)
    chosen = choose_rates(tried)
    for row, entry in chosen.items():
        listed = ", ".join(f"{rate}: {score:.4f}" for rate, score in entry["val"].items())
        edge = at_edge(entry)
        hint = (
            f"; the {edge} that was tried: try {'smaller' if edge == 'smallest' else 'larger'} ones too" if edge else ""
        )
        typer.echo(f"{row}: {entry['lr']:g} of {listed} ({entry['by']}{hint})")
    if out is not None:
        write_text(out, written({**kept, **chosen}))
        typer.echo(str(out))
