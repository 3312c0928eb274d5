"""Errors and warnings are for the user: one sentence each, no traceback, no line of code."""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from s4eca.errors import S4ecaError

P = ParamSpec("P")
R = TypeVar("R")


def guarded(task: Callable[P, R]) -> Callable[P, R]:
    """Makes an `S4ecaError` one sentence on standard error and exit status 2."""

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return task(*args, **kwargs)
        except S4ecaError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return run


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
