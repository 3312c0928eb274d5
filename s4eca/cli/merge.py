"""`s4eca merge CKPT OUT`: a LoRA run becomes a plain network."""

from pathlib import Path
from typing import Annotated

import typer

from s4eca.folders import visible


def merge(
    ckpt: Annotated[
        str, typer.Argument(help="a run with tuning=lora: PATH of its checkpoint or shared folder, wandb:… or hf:…")
    ],
    out: Annotated[Path, typer.Argument(help="folder to write; it must not exist or be empty")],
    vision_weights: Annotated[
        str | None, typer.Option(help="where the frozen weights are now: hub or a path; default: as in training")
    ] = None,
    text_weights: Annotated[str | None, typer.Option(help="the same for the text tower")] = None,
) -> None:
    """Fold a LoRA run into its towers' weights: same scores, nothing left to add at run time."""
    from s4eca.checkpoint import read_checkpoint
    from s4eca.checkpoint_source import locate_checkpoint
    from s4eca.merge import merge as run
    from s4eca.overrides import shell_word

    folder = run(read_checkpoint(locate_checkpoint(ckpt)), out, vision_weights, text_weights)
    for path in (path for path in visible(folder, "**/*") if path.is_file()):
        typer.echo(f"{out / path.relative_to(folder)}  {path.stat().st_size / 2**20:.1f} MiB")
    typer.echo(f"evaluate with: python eval.py {shell_word('ckpt', out)}")
