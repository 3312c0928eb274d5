"""The database that the workers of a study share, and what is said where it cannot be reached."""

import copy
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, SQLAlchemyError

from s4eca.errors import S4ecaError

CONNECT_SECONDS = 5
SQLITE_WAIT = 60.0
"""Seconds that a worker waits for another one's write to an SQLite file."""

TRIES = 5
"""Several workers may make a new database's tables in the same moment; all but one of them then have to look again."""


def masked(storage: str) -> str:
    """Returns a storage's URL without its password, wherever it stands in it."""
    try:
        url = _parse(storage)
    except S4ecaError:
        return "***"
    shown = url.set(query={key: "hidden" if "pass" in key else value for key, value in url.query.items()})
    return shown.render_as_string(hide_password=True)


def open_storage(storage: str, heartbeat: int, max_retry: int) -> RDBStorage:
    """Connects to a storage, and makes its tables where there are none.

    Args:
        storage: URL as SQLAlchemy writes it, such as `postgresql://USER@HOST/DATABASE` or `sqlite:///FILE`.
        heartbeat: seconds between two signs of life of a running trial; without one for twice as long it counts as
            crashed, and whichever worker sees that first puts it into the queue again.
        max_retry: how often.

    Raises:
        S4ecaError: no such place, no way in, or a driver that is missing.
    """
    url = _parse(storage)
    arguments = _arguments(url, storage)
    if url.drivername == "postgresql":  # SQLAlchemy 2.1 takes psycopg 3 for it, which the extra does not bring
        url = url.set(drivername="postgresql+psycopg2")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for attempt in range(TRIES):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(
                    url.render_as_string(hide_password=False),
                    engine_kwargs={"connect_args": arguments, "pool_pre_ping": True},
                    heartbeat_interval=heartbeat,
                    heartbeat_stale_trial_callback=_Retry(max_retry),
                )
        except NoSuchModuleError as error:
            raise S4ecaError(
                f"storage={masked(storage)}: no database is called {url.drivername}; write postgresql://… or"
                " sqlite:///…"
            ) from error
        except ImportError as error:
            missing = str(error.__cause__ or error).rstrip(".")
            raise S4ecaError(
                f"storage={masked(storage)} needs a driver that is missing ({missing}); for postgresql: pip install"
                " 's4eca[sweep]'."
            ) from error
        except (SQLAlchemyError, RuntimeError, UnicodeError) as error:  # RuntimeError: tables of another Optuna
            if _is_race(error) and attempt < TRIES - 1:
                time.sleep(0.5 * (attempt + 1))
                continue
            raise S4ecaError(
                f"storage={masked(storage)} cannot be used: {_first_line(getattr(error, 'orig', None) or error, url)}"
            ) from None  # the error's own text and frames hold the URL
    raise AssertionError("unreachable")


class _Retry:
    """Puts a copy of a trial whose worker has died into the queue, with its parameters.

    What it reported and where it ran stay with the trial that has failed.
    """

    def __init__(self, max_retry: int | None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._enqueue = RetryHeartbeatStaleTrialCallback(max_retry)

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        trial = copy.deepcopy(trial)
        trial.user_attrs = {}
        self._enqueue(study, trial)


def enqueue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Puts a trial that was stopped from outside into the queue; that is no fault of its own, and has no limit."""
    _Retry(None)(study, trial)


def fail_stale(study: optuna.Study) -> None:
    """Marks running trials without a sign of life as failed and puts them into the queue again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def retried_from(trial: FrozenTrial) -> int | None:
    """Returns the number of the trial that this one repeats, where it repeats one."""
    history = trial.system_attrs.get("retry_history", [])
    return history[-1] if history else None


def _parse(storage: str) -> URL:
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):  # whose text has the URL in it, and so the password
        raise S4ecaError(
            "storage is no URL that SQLAlchemy can read; write postgresql://USER@HOST/DATABASE or sqlite:///FILE."
        ) from None
    rest = storage.partition("://")[2]
    if "@" in rest.partition("?")[0].partition("@")[2]:
        raise S4ecaError("storage has two @ signs, so that the password cannot be told from the host; write %40 in it.")
    return url


def _arguments(url: URL, storage: str) -> dict[str, Any]:
    """Returns what the driver needs to give up in time; looks for an SQLite file's folder."""
    if url.get_backend_name() != "sqlite":
        return {"connect_timeout": CONNECT_SECONDS} if url.get_backend_name() in ("postgresql", "mysql") else {}
    if url.database in (None, "", ":memory:"):
        raise S4ecaError(f"storage={storage} keeps nothing; name a file, as in sqlite:///study.db.")
    folder = Path(str(url.database)).parent
    if not folder.is_dir():
        raise S4ecaError(f"storage={storage}: there is no folder {folder}; make it first.")
    return {"timeout": SQLITE_WAIT}


def _is_race(error: Exception) -> bool:
    """Whether another worker was faster in making the tables or their first rows."""
    text = str(error).lower()
    return isinstance(error, DatabaseError) and ("already exists" in text or "unique" in text)


def _first_line(error: BaseException | None, url: URL) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[0]
    for secret in [url.password, *(value for key, value in url.query.items() if "pass" in key)]:
        if secret:
            text = text.replace(str(secret), "***")
    return text.rstrip(".") + "."
