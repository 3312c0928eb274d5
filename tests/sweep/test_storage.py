"""Storages that cannot be used are one sentence, within seconds and without the password."""

import sys
import time

import pytest
from optuna.trial import TrialState

from s4eca.errors import S4ecaError
from s4eca.sweep.storage import masked, open_storage, retried_from
from sweep.made_sweep import made_worker


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("postgresql://me:secret@127.0.0.1:1/s4eca", "cannot be used: .*(refused|failed)"),
        ("postgresql://me:secret@host.invalid/s4eca", r"cannot be used: .*host\.invalid"),
        ("postgresql:///s4eca?host=/nowhere&password=secret", "cannot be used: .*/nowhere"),
        ("postgres://me:secret@localhost/s4eca", "no database is called postgres; write postgresql://"),
        ("postgresql://me:sec@secret@localhost/s4eca", "two @ signs.*%40"),
        ("localhost:5432/secret", "storage is no URL"),
        ("sqlite:////nowhere/secret/study.db", "there is no folder /nowhere/secret; make it first"),
        ("sqlite://", "keeps nothing; name a file"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_named(storage, message):
    began = time.monotonic()
    with pytest.raises(S4ecaError, match=message) as refused:
        open_storage(storage, heartbeat=60, max_retry=3)
    assert time.monotonic() - began < 20
    if not storage.startswith("sqlite"):
        assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None or "secret" not in str(refused.value.__cause__)


@pytest.mark.parametrize(
    ("module", "storage", "message"),
    [
        ("psycopg2", "postgresql://me:secret@localhost/s4eca", r"needs a driver that is missing .*s4eca\[sweep\]"),
        ("MySQLdb", "mysql://me:secret@localhost/s4eca", "needs a driver that is missing .*MySQLdb"),
    ],
)
def test_a_driver_that_is_missing_is_named(monkeypatch, module, storage, message):
    monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    with pytest.raises(S4ecaError, match=message) as refused:
        open_storage(storage, heartbeat=60, max_retry=3)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "study.db").write_text("not a database, and long enough to be looked at " * 30)
    with pytest.raises(S4ecaError, match=r"study\.db cannot be used: file is not a database"):
        open_storage(f"sqlite:///{tmp_path}/study.db", heartbeat=60, max_retry=3)


def test_the_password_is_masked_wherever_it_stands():
    assert masked("postgresql://me:secret@host:5432/s4eca") == "postgresql://me:***@host:5432/s4eca"
    assert "secret" not in masked("postgresql:///s4eca?host=/tmp&password=secret")
    assert masked("secret") == "***"
    assert masked("sqlite:///a/study.db") == "sqlite:///a/study.db"


def test_a_trial_is_repeated_as_often_as_was_asked_for(tmp_path):
    worker = made_worker(tmp_path)
    study, retry = worker.study, worker.storage.get_heartbeat_stale_trial_callback()
    for number in (0, 1):
        trial = worker._ask()
        assert trial.number == number
        trial.suggest_float("x", 0, 1)
        retry(study, study.tell(trial, state=TrialState.FAIL))
    assert len(study.trials) == 2, "max_retry=1"
    assert study.trials[1].params == study.trials[0].params
    assert [retried_from(trial) for trial in study.trials] == [None, 0]
