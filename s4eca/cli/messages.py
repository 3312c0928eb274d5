"""Errors and warnings are for the user: one sentence each, no traceback, no line of code."""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf.errors import InterpolationResolutionError

from s4eca.errors import S4ecaError

P = ParamSpec("P")
R = TypeVar("R")


_refused: list[str] = []


def guarded(task: Callable[P, R]) -> Callable[P, R | None]:
    """Makes an `S4ecaError` one sentence on standard error and exit status 2.

    A job of a multirun that is refused does not keep the others from running; `end_sweep` says so at the end. One that
    was submitted is a job of the cluster's, which learns by its exit status that it has failed.
    """

    def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return task(*args, **kwargs)
        except (S4ecaError, InterpolationResolutionError) as error:
            hydra = HydraConfig.get() if HydraConfig.initialized() else None
            if hydra is None or hydra.mode != RunMode.MULTIRUN or "submitit" in hydra.launcher["_target_"]:
                print(f"error: {sentence(error)}", file=sys.stderr)
                sys.exit(2)
            job = f"job {hydra.job.num} ({hydra.job.override_dirname})"
            if job not in _refused:  # else a resolver was refused, and what follows from that says no more
                print(f"error: {sentence(error)}", file=sys.stderr)
                _refused.append(job)
            return None

    return run


def sentence(error: Exception) -> str:
    """Returns what an error says, in one sentence."""
    if isinstance(error, InterpolationResolutionError):
        reason = str(error).splitlines()[0]
        return (
            f"{error.full_key} cannot be had ({reason}): a value with ${{…}} is taken from another key of the config."
        )
    return str(error)


def end_sweep() -> None:
    """Exits with status 2 where jobs of a multirun were refused, and names them."""
    if _refused:
        jobs = "1 job" if len(_refused) == 1 else f"{len(_refused)} jobs"
        print(f"error: {jobs} did not run through: {'; '.join(_refused)}.", file=sys.stderr)
        sys.exit(2)


def show_warnings() -> None:
    """Prints every later warning as a sentence on standard error, and leaves out what a user can do nothing about."""
    # libraries about one another
    for category in (DeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", message=r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*")
    # frozen towers are in eval mode on purpose
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode.*")
    # Lightning's account of its own settings, and advertising
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.showwarning = _one_line  # type: ignore[assignment]


def _one_line(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:  # noqa: ARG001
    print(f"warning: {message}", file=sys.stderr)
