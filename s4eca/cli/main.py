"""The `s4eca` command: `train`, `eval`, `sweep`, `score`, `profile` and `doctor` take Hydra overrides."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from s4eca.cli.compare import compare
from s4eca.cli.data import data
from s4eca.cli.dgl import dgl
from s4eca.cli.doctor import doctor
from s4eca.cli.merge import merge
from s4eca.cli.messages import guarded, show_warnings
from s4eca.cli.profile import profile
from s4eca.cli.rates import rates
from s4eca.cli.score import score
from s4eca.cli.table import table
from s4eca.cli.weights import weights
from s4eca.folders import visible

app = typer.Typer(
    name="s4eca",
    help="Parameter-efficient referring remote-sensing image segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data, name="data")
app.add_typer(dgl, name="dgl")
app.add_typer(weights, name="weights")
HYDRA = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=HYDRA)
def train(context: typer.Context) -> None:
    """Train by a Hydra config: s4eca train experiment=demo seed=1 (the same as python train.py ...)."""
    from s4eca.cli.train import main as run

    _hand_over(run, context)


@app.command("eval", context_settings=HYDRA)
def evaluate(context: typer.Context) -> None:
    """Evaluate a checkpoint: s4eca eval ckpt=PATH data.root=PATH (the same as python eval.py ...)."""
    from s4eca.cli.eval import main as run

    _hand_over(run, context)


@app.command(context_settings=HYDRA)
def sweep(context: typer.Context) -> None:
    """Search a training's settings, beside other workers: s4eca sweep study=NAME n_trials=N ...; s4eca sweep --help."""
    from s4eca.cli.sweep import main as run

    run(context.args)


for takes_overrides in (score, profile, doctor):
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(takes_overrides)
app.command()(compare)
app.command()(merge)
app.command()(rates)
app.command()(table)


@app.command()
def share(
    ckpt: Annotated[str, typer.Argument(help="checkpoint of a run: PATH, wandb:… or hf:…")],
    out: Annotated[Path, typer.Argument(help="folder to write")],
) -> None:
    """Write the folder that people share: method.safetensors, head.safetensors and s4eca.json."""
    from s4eca.checkpoint import read_checkpoint
    from s4eca.checkpoint import share as write
    from s4eca.checkpoint_source import locate_checkpoint

    folder = write(read_checkpoint(locate_checkpoint(ckpt)), out)
    for path in visible(folder):
        typer.echo(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")


def main() -> None:
    """Entry point of the `s4eca` command."""
    show_warnings()
    try:
        guarded(app)()
    except SystemExit as ended:
        if _is_interrupted(ended):  # of which typer makes status 1
            sys.exit(128 + signal.SIGINT)
        raise


def _is_interrupted(ended: BaseException | None) -> bool:
    return ended is not None and (isinstance(ended, KeyboardInterrupt) or _is_interrupted(ended.__context__))


def _hand_over(run: Callable[[], None], context: typer.Context) -> None:
    sys.argv = [f"s4eca {context.command.name}", *context.args]
    run()
