"""`s4eca dgl fill|recall|sweep`: the training-free method's stages, the ceiling of its proposals, its settings."""

import sys
from collections.abc import Callable

import typer

HYDRA = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

dgl = typer.Typer(help="The training-free method DGL-RSIS, step by step.", no_args_is_help=True)


@dgl.command(context_settings=HYDRA)
def fill(context: typer.Context) -> None:
    """Fill the cache: s4eca dgl fill data=rrsis_d data.root=PATH model.cache=FOLDER shard=0/4."""
    from s4eca.cli.dgl_fill import main

    _hand_over(main, context)


@dgl.command(context_settings=HYDRA)
def recall(context: typer.Context) -> None:
    """Measure the ceiling of proposals: s4eca dgl recall proposer=sam data=rrsis_d data.root=PATH."""
    from s4eca.cli.dgl_recall import main

    _hand_over(main, context)


@dgl.command(context_settings=HYDRA)
def sweep(context: typer.Context) -> None:
    """Try settings of the selector: s4eca dgl sweep data=rrsis_d data.root=PATH model.cache=FOLDER."""
    from s4eca.cli.dgl_sweep import main

    _hand_over(main, context)


def _hand_over(run: Callable[[], None], context: typer.Context) -> None:
    sys.argv = [f"s4eca dgl {context.command.name}", *context.args]
    run()
