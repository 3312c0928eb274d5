"""How a command that is Hydra's begins and ends."""

import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from s4eca.cli.config import conf_dir
from s4eca.cli.messages import end_sweep, guarded, show_warnings
from s4eca.overrides import check_overrides
from s4eca.stopping import ending_by_signals


def run_hydra(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Runs a task with the config that the command line asks for.

    Args:
        task: gets the composed config; an `S4ecaError` of it ends the command with one sentence and status 2.
        config_name: of a file in `conf`.
    """
    show_warnings()
    with ending_by_signals():
        guarded(_check_command_line)()
        hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)(guarded(task))()
        end_sweep()


def _check_command_line() -> None:
    given = get_args_parser().parse_args(sys.argv[1:])
    several = given.multirun or "hydra.mode=MULTIRUN" in given.overrides
    check_overrides(given.overrides, several)
