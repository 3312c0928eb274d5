"""Two workers on one PostgreSQL study, one of them killed in mid-trial: nothing is lost.

The server is a throw-away one, see postgres.py. The workers are real `s4eca sweep` processes that really train.
"""

import re
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import psycopg2
import pytest
from optuna.trial import TrialState

from forked import start_script
from runs import ROOT, TINY, environment
from s4eca.errors import S4ecaError
from s4eca.sweep.storage import open_storage, retried_from
from sweep.made_sweep import SPACE
from sweep.postgres import REQUIRED, need_binaries, server

N_TRIALS, HEARTBEAT = 3, 3  # seconds; on a busy machine a thread may not get its turn for one
OVERRIDES = [
    *(item for item in TINY if not item.startswith("tuning.visual.width")),
    "data.train=8", "data.val=2", "data.test=2", "data.scene_size=64", "data.batch_size=2", "data.num_workers=0",
    "trainer.max_steps=8", "trainer.val_check_interval=1", "callbacks.pictures=null", "callbacks.cost=null",
    "callbacks.progress_bar=null", "trainer.enable_progress_bar=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def socket():
    with server(need_binaries()) as place:
        yield place


def start(url: str, folder: Path, name: str) -> BaseProcess:
    words = ["study=shared", f"n_trials={N_TRIALS}", "sweep=space.yaml", f"storage={url}", f"heartbeat={HEARTBEAT}"]
    command = ["sweep", *words, *OVERRIDES, f"data.root={folder}/data"]
    place = folder / f"{name}.log"
    return start_script(ROOT / "s4eca" / "__main__.py", command, cwd=folder, printed=place, env=environment())


def test_a_worker_that_is_killed_costs_no_trial(socket, tmp_path):
    url = f"postgresql://postgres@/postgres?host={socket}"
    (tmp_path / "space.yaml").write_text(re.sub("pruner: .*", "pruner: {name: none}", SPACE))
    workers = {process.pid: process for process in (start(url, tmp_path, "one"), start(url, tmp_path, "two"))}

    def logs() -> str:
        return "\n".join((tmp_path / f"{name}.log").read_text() for name in ("one", "two"))

    try:
        storage = open_storage(url, heartbeat=HEARTBEAT, max_retry=3)
        victim, deadline = None, time.monotonic() + 240
        while victim is None:
            assert time.monotonic() < deadline, logs()
            assert all(process.is_alive() for process in workers.values()), logs()
            time.sleep(0.05)
            if "shared" in optuna.get_all_study_names(storage):
                study = optuna.load_study(study_name="shared", storage=storage)
                trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
                victim = next((trial for trial in trials if trial.intermediate_values), None)
        pid = int(victim.user_attrs["worker"].rpartition(":")[2])
        killed = workers.pop(pid)
        killed.kill()
        killed.join(timeout=60)
        assert killed.exitcode == -signal.SIGKILL
        assert study.trials[victim.number].state == TrialState.RUNNING, "in mid-trial, and nobody knows of it yet"
        (survivor,) = workers.values()
        survivor.join(timeout=240)
        assert survivor.exitcode == 0, logs()
    finally:
        for process in workers.values():
            process.kill()
            process.join()

    trials = study.get_trials()
    states = [trial.state for trial in trials]
    assert states.count(TrialState.COMPLETE) == N_TRIALS, logs()
    assert states.count(TrialState.FAIL) == len(trials) - N_TRIALS, "nothing runs or waits any more"
    lost = trials[victim.number]
    assert lost.state == TrialState.FAIL
    (again,) = [trial for trial in trials if retried_from(trial) == lost.number]
    assert again.state == TrialState.COMPLETE
    assert again.params == lost.params
    assert set(again.params) == {"model.lr", "tuning.visual.width", "tuning.visual.kernels", "fusion"}
    # a worker that began one trial more than was needed, in the same moment as the other, has said so
    assert all("not needed" in t.user_attrs["error"] for t in trials if t.state == TrialState.FAIL and t != lost)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len({trial.params["model.lr"] for trial in complete}) == N_TRIALS, "workers with one seed draw other values"
    assert again.user_attrs["worker"].endswith(f":{survivor.pid}")
    for trial in complete:
        assert (tmp_path / trial.user_attrs["folder"] / "checkpoints" / "best.ckpt").is_file()
        assert len(trial.intermediate_values) == 8


def test_where_ci_promises_a_server_its_absence_is_a_failure(monkeypatch):
    monkeypatch.setattr("sweep.postgres.binaries", lambda: None)
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install postgresql"):
        need_binaries()
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(AssertionError, match=REQUIRED):
        need_binaries()
    assert f"export {REQUIRED}=1" in (ROOT / ".ci" / "run").read_text()


def test_a_wrong_password_is_named_and_not_shown(socket):
    with psycopg2.connect(host=socket, user="postgres", dbname="postgres") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    message = r'cannot be used: .*password authentication failed for user "locked"'
    with pytest.raises(S4ecaError, match=message) as refused:
        open_storage(f"postgresql://locked:s3cret@/postgres?host={socket}", heartbeat=60, max_retry=3)
    assert "s3cret" not in str(refused.value)
