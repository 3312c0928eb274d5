"""`s4eca sweep`: a search for the best settings of a training, by any number of workers, and what became of it.

    s4eca sweep study=NAME n_trials=N [sweep=SPACE] [storage=URL] [KEY=VALUE] [experiment=NAME] [OVERRIDE ...]
    s4eca sweep status study=NAME [storage=URL] [folder=FOLDER] [out=PICTURE]

The same command on any number of machines joins the same study. Its own keys:

    study=NAME       letters, digits, . _ -
    n_trials=N       trials of the whole study that are to end, complete or pruned, whoever runs them
    sweep=SPACE      a name in conf/sweep, or the path of a .yaml file (default: s4eca)
    storage=URL      postgresql://USER@HOST/DATABASE or sqlite:///FILE (default: FOLDER/study.db)
    folder=FOLDER    of the trials' runs (default: outputs/sweeps/NAME)
    heartbeat=60     seconds between signs of life; a trial without one for twice as long is repeated
    max_retry=3      times that a trial whose worker crashed is repeated
    wait=true        stay while others run the last trials, to repeat one whose worker crashes

Everything else is an override of train.yaml that all trials have in common. docs/sweeps.md has more.
"""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from s4eca.errors import S4ecaError
from s4eca.files import check_writable, make_folder
from s4eca.overrides import plain_text, shell_word

KEYS = ("study", "n_trials", "sweep", "storage", "folder", "heartbeat", "max_retry", "wait")
STATUS_KEYS = ("study", "storage", "folder", "out")


@dataclass(frozen=True)
class Settings:
    """The command line: the keys above, and what is left of it."""

    study: str
    n_trials: int | None = None
    sweep: str = "s4eca"
    storage: str | None = None
    folder: Path | None = None
    heartbeat: int = 60
    max_retry: int = 3
    wait: bool = True
    out: Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def place(self) -> Path:
        """The study's folder."""
        return self.folder or Path("outputs") / "sweeps" / self.study

    @property
    def url(self) -> str:
        """The study's storage."""
        return self.storage or f"sqlite:///{self.place / 'study.db'}"


def parse(arguments: Sequence[str], status: bool) -> Settings:
    """Reads the command line.

    Raises:
        S4ecaError: a key without a value, a value of another kind, or no study.
    """
    given: dict[str, str] = {}
    overrides = []
    known = STATUS_KEYS if status else KEYS
    for item in arguments:
        key, equals, value = item.partition("=")
        if key in known:
            if not value:
                raise S4ecaError(f"{key} needs a value: {key}=…")
            if key in given:
                raise S4ecaError(f"{key} is given twice.")
            given[key] = plain_text(value)
        elif status or not (equals or item.startswith("~")):
            raise S4ecaError(f"s4eca sweep{' status' if status else ''} knows no {item}; see s4eca sweep --help.")
        else:
            overrides.append(item)
    study = given.pop("study", "")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", study, flags=re.ASCII):
        raise S4ecaError(f"study={study} is no name for a study; give study=NAME of letters, digits, dots, _ and -.")
    settings = Settings(study, overrides=tuple(overrides))
    for key, value in given.items():
        settings = replace(settings, **{key: _typed(key, value)})  # type: ignore[arg-type]
    return settings


def sweep(arguments: Sequence[str]) -> None:
    """Runs a worker.

    Raises:
        S4ecaError: anything the user can mend, before any compute wherever it can be known by then.
    """
    settings = parse(arguments, status=False)
    if settings.n_trials is None:
        raise S4ecaError("n_trials=N is needed: how many trials the study is to have in the end.")
    need_optuna()
    from s4eca.sweep.composing import check_overrides, check_space
    from s4eca.sweep.space import load_space
    from s4eca.sweep.storage import masked, open_storage
    from s4eca.sweep.study import count, join_study

    space = load_space(settings.sweep)
    check_overrides(settings.overrides, space)
    if settings.storage is None:
        make_folder(settings.place)
    storage = open_storage(settings.url, settings.heartbeat, settings.max_retry)
    # a run writes its command into its folder, where the password has no business
    shown = [f"storage={masked(settings.storage or '')}" if a.startswith("storage=") else a for a in arguments]
    sys.argv = ["s4eca", "sweep", *shown]
    config = check_space(space, settings.overrides)
    study = join_study(settings.study, storage, space, config, settings.overrides)
    trials = study.get_trials(deepcopy=False)
    if not trials and any(settings.place.glob("trial_*")):
        raise S4ecaError(
            f"{settings.place} holds trials, and study={settings.study} has none: they are of another study of that"
            " name. Move them away, or choose another study=NAME."
        )
    states = ", ".join(f"{number} {state.name.lower()}" for state, number in count(trials).items()) or "none yet"
    print(f"study {settings.study} in {masked(settings.url)}, {settings.n_trials} trials asked for; {states}")
    print(f"run folders: {os.path.relpath(settings.place)}/trial_…", flush=True)
    from s4eca.sweep.worker import Worker  # imports torch, which a mistyped key need not wait for

    Worker(study, storage, space, list(settings.overrides), settings.place).work(settings.n_trials, settings.wait)
    places = {"storage": settings.storage and masked(settings.storage), "folder": settings.folder}
    again = [shell_word(key, place) for key, place in places.items() if place is not None]
    print(" ".join((f"done; s4eca sweep status study={settings.study}", *again)))


def show_status(arguments: Sequence[str]) -> None:
    """Prints a study's trials, and draws the importance of its keys.

    Raises:
        S4ecaError: no such study, a storage that cannot be reached, a picture that cannot be written.
    """
    settings = parse(arguments, status=True)
    need_optuna()
    from rich.console import Console

    from s4eca.sweep.picture import check_ending, draw_importance, write_picture
    from s4eca.sweep.status import Importance, importance, sentences, tabulate
    from s4eca.sweep.storage import open_storage
    from s4eca.sweep.study import RECORD, load_study

    out = settings.out or settings.place / "importance.png"
    check_ending(out)
    file = settings.url.removeprefix("sqlite:///")
    if settings.url.startswith("sqlite:///") and not Path(file).is_file():  # SQLite would make an empty one
        raise S4ecaError(f"there is no study in {file}; give the storage=URL of the sweep.")
    study = load_study(settings.study, open_storage(settings.url, settings.heartbeat, settings.max_retry))
    if RECORD not in study.user_attrs:
        raise S4ecaError(f"study={settings.study} was not made by s4eca sweep.")
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # a file has room for the whole table
        console.width = 240
    console.print(tabulate(study))
    for line in sentences(study):
        console.print(line, markup=False)
    found = importance(study)
    if isinstance(found, Importance):
        check_writable(out)
        metric = study.user_attrs[RECORD]["search"]["metric"]
        write_picture(draw_importance(found, settings.study, metric), out)
        console.print(f"importance of the keys: {os.path.relpath(out)}", markup=False)
    else:
        console.print(found, markup=False)


def need_optuna() -> None:
    """Raises `S4ecaError` where the extra is missing."""
    if find_spec("optuna") is None:
        raise S4ecaError("s4eca sweep needs Optuna, which is missing; pip install 's4eca[sweep]'.")


def main(arguments: Sequence[str]) -> None:
    """Entry point of `s4eca sweep` and `s4eca sweep status`."""
    if not arguments or {"--help", "-h"} & set(arguments):
        print(__doc__)
    elif arguments[0] == "status":
        show_status(arguments[1:])
    else:
        sweep(arguments)


def _typed(key: str, value: str) -> object:
    if key in ("n_trials", "heartbeat", "max_retry"):
        least = 0 if key == "max_retry" else 1
        if not re.fullmatch(r"\d+", value, flags=re.ASCII) or int(value) < least:
            raise S4ecaError(f"{key}={value} is no whole number of {least} or more.")
        return int(value)
    if key == "wait":
        if value not in ("true", "false"):
            raise S4ecaError(f"wait={value} is neither true nor false.")
        return value == "true"
    return Path(value) if key in ("folder", "out") else value
