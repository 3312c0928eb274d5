"""How a command that is Hydra's begins and ends."""

import os
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError

from s4eca.cli.config import conf_dir
from s4eca.cli.messages import end_sweep, guarded, sentence, show_warnings
from s4eca.errors import S4ecaError
from s4eca.overrides import check_overrides, composing_reason
from s4eca.stopping import ending_by_signals


def run_hydra(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Runs a task with the config that the command line asks for.

    Args:
        task: gets the composed config; an `S4ecaError` of it ends the command with one sentence and status 2.
        config_name: of a file in `conf`.

    Raises:
        SystemExit: see `guarded` and `ending_by_signals`; status 2 also where no config can be composed.
    """
    show_warnings()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print errors itself, with the frames that it takes for its own
    with ending_by_signals():
        try:
            _check_command_line()
            hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)(guarded(task))()
        except Exception as error:
            said = _explain(error, config_name)
            if said is None:
                raise
            print(f"error: {said}", file=sys.stderr)
            sys.exit(2)
        end_sweep()


def _check_command_line() -> None:
    given = get_args_parser().parse_args(sys.argv[1:])
    several = given.multirun or "hydra.mode=MULTIRUN" in given.overrides
    check_overrides(given.overrides, several)


def _explain(error: Exception, config_name: str) -> str | None:
    """Returns what an error says that came before a task, or from a task of another process; None for a bug."""
    if isinstance(error, S4ecaError | InterpolationResolutionError):
        return sentence(error)
    # what Hydra says of GROUP=null is a ValueError
    if isinstance(error, HydraException) or str(error).startswith("Config group override"):
        return f"the config cannot be composed, {composing_reason(error)}: see conf/{config_name}.yaml."
    if type(error).__module__.startswith("submitit."):  # with what the job printed
        lines = [line for line in str(error).splitlines() if line.startswith("error: ")]
        return f"a job that was submitted did not run through: {lines[-1].removeprefix('error: ')}" if lines else None
    return None
