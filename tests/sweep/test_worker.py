"""Workers: how many trials they run, what they do about errors, signals and one another. No trial trains here."""

import os
import signal
import time

import optuna
import pytest
import torch
from optuna.trial import TrialState

import s4eca.sweep.trial
import s4eca.sweep.worker
from s4eca.errors import S4ecaError
from s4eca.sweep.storage import retried_from
from s4eca.sweep.study import count, is_one_too_many
from sweep.made_sweep import SPACE, made_space, made_worker

COMPLETE, PRUNED, FAIL, WAITING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING


@pytest.fixture
def train_as(monkeypatch):
    """Puts a function of the trial in the place of a training."""

    def put(result) -> None:
        monkeypatch.setattr(s4eca.sweep.worker, "train_trial", lambda trial, space, overrides, folder: result(trial))
        monkeypatch.setattr(s4eca.sweep.worker, "free_memory", lambda: None)  # a second each, and nothing to free

    return put


def states(study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def test_pruned_trials_count_and_failed_ones_do_not(tmp_path, train_as, capsys):
    def result(trial):
        if trial.number == 1:
            raise optuna.TrialPruned
        if trial.number == 2:
            raise S4ecaError("budget=3 cannot be met.")
        if trial.number == 3:
            raise torch.OutOfMemoryError("the batch does not fit")
        return trial.number / 10

    train_as(result)
    worker = made_worker(tmp_path)
    worker.work(4)
    assert states(worker.study) == [COMPLETE, PRUNED, FAIL, FAIL, COMPLETE, COMPLETE]
    assert worker.study.trials[2].user_attrs["error"] == "budget=3 cannot be met."
    assert worker.study.trials[5].user_attrs["folder"].endswith("runs/trial_00005")
    worker.work(4)
    assert len(worker.study.trials) == 6, "nothing is left to do"
    worker.work(5)
    assert len(worker.study.trials) == 7, "a study can be made longer"
    assert "trial 6 complete: val/mIoU 0.6000; best 0.6000 of trial 6" in capsys.readouterr().out


def test_a_trial_gets_its_values_as_overrides_of_the_common_ones(tmp_path, monkeypatch):
    seen = []

    def record(trial, space, overrides, folder):
        seen.append((overrides, folder))
        return 0.5

    monkeypatch.setattr(s4eca.sweep.worker, "train_trial", record)
    worker = made_worker(tmp_path)
    worker.overrides = ["experiment=demo"]
    worker.work(1)
    (overrides, folder), params = seen[0], worker.study.trials[0].params
    assert folder == tmp_path / "runs" / "trial_00000"
    assert overrides == [
        "experiment=demo",
        f"model.lr={params['model.lr']!r}",
        f"tuning.visual.width={params['tuning.visual.width']}",
        f"tuning.visual.kernels={params['tuning.visual.kernels']}",
        f"fusion={params['fusion']}",
        "name=made_trial_00000",
    ]


def test_one_sentence_three_times_in_a_row_stops_the_worker(tmp_path, train_as):
    def always(trial):
        raise S4ecaError("data.root=nowhere is no folder.")

    train_as(always)
    worker = made_worker(tmp_path)
    with pytest.raises(S4ecaError, match=r"3 trials in a row failed alike.*data\.root=nowhere"):
        worker.work(5)
    assert states(worker.study) == [FAIL] * 3


def test_errors_of_many_kinds_stop_the_worker_too(tmp_path, train_as, monkeypatch):
    def always(trial):
        raise S4ecaError(f"budget={trial.number} cannot be met.")

    train_as(always)
    monkeypatch.setattr(s4eca.sweep.worker, "ERRORS", 4)  # for time
    worker = made_worker(tmp_path)
    with pytest.raises(S4ecaError, match=r"4 trials in a row failed.*budget=3 "):
        worker.work(5)


def test_what_nobody_expected_is_written_down_and_goes_on_up(tmp_path, train_as):
    def broken(trial):
        raise RuntimeError("CUDA error: device-side assert")

    train_as(broken)
    worker = made_worker(tmp_path)
    with pytest.raises(RuntimeError, match="device-side"):
        worker.work(5)
    assert states(worker.study) == [FAIL]
    assert worker.study.trials[0].user_attrs["error"] == "RuntimeError: CUDA error: device-side assert"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_puts_the_trial_back_and_leaves(tmp_path, train_as, number, capsys):
    def killed(trial):
        os.kill(os.getpid(), number)
        time.sleep(5)  # a signal is handled before that

    train_as(killed)
    caught = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    worker, handlers = made_worker(tmp_path), [signal.getsignal(n) for n in caught]
    with pytest.raises(SystemExit) as ended:
        worker.work(2)
    assert ended.value.code == {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130}[number]
    assert ("SLURM" in capsys.readouterr().out) == (number == signal.SIGUSR1)
    assert [signal.getsignal(n) for n in caught] == handlers
    assert states(worker.study) == [FAIL, WAITING]
    assert worker.study.trials[0].user_attrs["error"] == "stopped from outside"
    train_as(lambda trial: 0.5)
    worker.work(2)
    trials = worker.study.trials
    assert [trial.state for trial in trials] == [FAIL, COMPLETE, COMPLETE]
    assert trials[1].params == trials[0].params
    assert retried_from(trials[1]) == 0
    assert "error" not in trials[1].user_attrs


def test_trials_of_dead_workers_are_repeated_and_awaited(tmp_path, train_as, capsys):
    """One died in mid-trial; one before its first sign of life, which Optuna by itself never notices."""
    worker = made_worker(tmp_path, heartbeat=1)
    first, second = worker._ask(), worker._ask()
    first.set_user_attr("worker", "elsewhere:1")
    first.suggest_float("model.lr", 1e-4, 1e-2, log=True)
    worker.storage.record_heartbeat(first._trial_id)
    assert second.number == 1
    train_as(lambda trial: 0.5)
    began = time.monotonic()
    worker.work(2)
    assert time.monotonic() - began > 2, "both may live until then"
    trials = worker.study.trials
    assert [trial.state for trial in trials] == [FAIL, FAIL, COMPLETE, COMPLETE]
    assert {retried_from(trial) for trial in trials[2:]} == {0, 1}
    again = next(trial for trial in trials if retried_from(trial) == 0)
    assert again.params["model.lr"] == trials[0].params["model.lr"]
    assert "waiting for 2 trials of other workers" in capsys.readouterr().out


def test_a_worker_need_not_wait(tmp_path, train_as, capsys):
    worker = made_worker(tmp_path)
    worker._ask().set_user_attr("worker", "elsewhere:1")
    train_as(lambda trial: 0.5)
    worker.work(2, wait=False)
    assert states(worker.study) == [TrialState.RUNNING, COMPLETE]
    assert "others run the last 1 trials" in capsys.readouterr().out


def test_of_trials_that_begin_in_one_moment_those_beyond_the_total_give_way(tmp_path, train_as):
    worker = made_worker(tmp_path)
    for _ in range(3):
        worker._ask()
    assert [is_one_too_many(worker.study, number, 2) for number in range(3)] == [False, False, True]
    train_as(lambda trial: 0.5)
    worker._run_next(3)
    assert count(worker.study.trials) == {TrialState.RUNNING: 3, FAIL: 1}
    assert "not needed" in worker.study.trials[3].user_attrs["error"]


def test_a_trial_that_others_took_for_dead_does_not_count(tmp_path, train_as, capsys):
    worker = made_worker(tmp_path)

    def slow(trial):
        if trial.number == 0:  # another worker sees no heartbeat
            worker.storage.set_trial_state_values(trial._trial_id, FAIL)
        return 0.5

    train_as(slow)
    worker.work(1)
    assert states(worker.study) == [FAIL, COMPLETE]
    assert "trial 0 fail: it gave no sign of life for too long" in capsys.readouterr().out


def test_a_trial_that_was_taken_and_is_stopped_then_is_queued_once(tmp_path, train_as):
    worker = made_worker(tmp_path)

    def killed(trial):
        worker.storage.set_trial_state_values(trial._trial_id, FAIL)
        worker.storage.get_heartbeat_stale_trial_callback()(worker.study, worker.study.trials[0])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    train_as(killed)
    with pytest.raises(SystemExit):
        worker.work(1)
    assert states(worker.study) == [FAIL, WAITING]


def test_a_storage_that_comes_back_costs_no_trial(tmp_path, train_as, monkeypatch):
    worker, tell, failures = made_worker(tmp_path), optuna.Study.tell, iter([True, True, False])

    def gone(self, *arguments, **options):
        if next(failures):
            raise optuna.exceptions.StorageInternalError("connection refused")
        return tell(self, *arguments, **options)

    monkeypatch.setattr(optuna.Study, "tell", gone)
    monkeypatch.setattr(s4eca.sweep.worker, "PAUSES", (0.0, 0.0))
    train_as(lambda trial: 0.5)
    worker.work(1)
    assert states(worker.study) == [COMPLETE]


def test_a_storage_that_comes_back_costs_no_trial_at_its_beginning(tmp_path, train_as, monkeypatch):
    worker, away = made_worker(tmp_path), iter([True, False, True, False, True])
    monkeypatch.setattr(s4eca.sweep.worker, "PAUSES", (0.0, 0.0, 0.0))

    def flickers(action):
        def act(self, *arguments, **options):
            if next(away, False):
                raise optuna.exceptions.StorageInternalError("connection refused")
            return action(self, *arguments, **options)

        return act

    for name in ("set_user_attr", "suggest_float"):
        monkeypatch.setattr(optuna.Trial, name, flickers(getattr(optuna.Trial, name)))
    beats = iter([True])
    record = type(worker.storage).record_heartbeat

    def beat(self, *arguments):
        if next(beats, False):
            raise optuna.exceptions.StorageInternalError("connection refused")
        return record(self, *arguments)

    monkeypatch.setattr(type(worker.storage), "record_heartbeat", beat)
    train_as(lambda trial: 0.5)
    worker.work(1)
    assert states(worker.study) == [COMPLETE]
    assert list(away) == list(beats) == [], "all of it happened"


def test_a_storage_that_stays_away_is_one_sentence(tmp_path, train_as, monkeypatch):
    def gone(self, *arguments, **options):
        raise optuna.exceptions.StorageInternalError("connection refused")

    monkeypatch.setattr(optuna.Study, "tell", gone)
    monkeypatch.setattr(s4eca.sweep.worker, "PAUSES", (0.0, 0.0))
    train_as(lambda trial: 0.5)
    with pytest.raises(S4ecaError, match=r"storage is lost \(connection refused\).*same command again"):
        made_worker(tmp_path).work(1)


def test_a_study_is_the_same_again_and_its_trials_differ(tmp_path, train_as):
    def values(folder):
        folder.mkdir()
        worker = made_worker(folder)
        worker.work(4)  # two at random, then the model's
        return [trial.params for trial in worker.study.trials]

    train_as(lambda trial: -abs(trial.params["model.lr"] - 1e-3))
    first = values(tmp_path / "a")
    assert values(tmp_path / "b") == first
    assert len({params["model.lr"] for params in first}) == 4


def test_two_workers_with_one_seed_do_not_begin_alike(tmp_path):
    one, other = made_worker(tmp_path), made_worker(tmp_path)
    values = [worker._ask().suggest_float("x", 0, 1) for worker in (one, other, one, other)]
    assert len(set(values)) == 4


def test_a_study_is_not_mixed_with_another_search(tmp_path):
    made_worker(tmp_path)
    made_worker(tmp_path)  # the same joins
    for changed, message in [
        (SPACE.replace("high: 1.0e-2", "high: 1.0e-1"), r"space's space\.model\.lr\.high was 0\.01 and is 0\.1 now"),
        (SPACE.replace("median", "hyperband").replace(", n_startup_trials: 2, n_warmup_steps: 1", ""), r"pruner\.name"),
        (SPACE.replace("seed: 3", "seed: 4"), r"sampler\.seed was 3 and is 4 now"),
        (SPACE.replace("maximize", "minimize"), "direction was maximize and is minimize now"),
    ]:
        with pytest.raises(S4ecaError, match=f"study=made was begun with other settings.*{message}"):
            made_worker(tmp_path, made_space(tmp_path, changed))


def test_a_study_is_not_mixed_with_other_settings(tmp_path, monkeypatch):
    made_worker(tmp_path)
    here = {"seed": 0, "trainer": {"max_steps": 6}, "data": {"root": "elsewhere"}}
    monkeypatch.setattr("sweep.made_sweep.CONFIG", here)
    made_worker(tmp_path)  # another place of the same data
    monkeypatch.setattr("sweep.made_sweep.CONFIG", {**here, "trainer": {"max_steps": 7}})
    with pytest.raises(S4ecaError, match=r"trainer\.max_steps was 6 and is 7 now"):
        made_worker(tmp_path)


def test_a_study_of_something_else_is_left_alone(tmp_path):
    study = optuna.create_study(study_name="made", storage=f"sqlite:///{tmp_path}/study.db", direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(S4ecaError, match="study=made was not made by s4eca sweep"):
        made_worker(tmp_path)


def test_a_trial_whose_config_does_not_fit_is_a_failed_trial(tmp_path, monkeypatch):
    """The training itself is left out, its composing and checks are not."""
    monkeypatch.setattr(s4eca.sweep.trial, "train", lambda config, folder, resume, more: 0.5)
    monkeypatch.setattr(s4eca.sweep.worker, "free_memory", lambda: None)
    space = made_space(tmp_path, SPACE.replace("fusion: {choices: [none, film]}", "fusion: {choices: [pwam, film]}"))
    worker = made_worker(tmp_path, space)
    worker.overrides = ["experiment=demo", "++fusion.heads=2"]  # which film has none of
    for fusion in ("film", "pwam", "film"):
        worker.study.enqueue_trial({"fusion": fusion})
    worker.work(2)
    states_of = {trial.number: (trial.params["fusion"], trial.state) for trial in worker.study.trials[:3]}
    assert states_of == {0: ("film", FAIL), 1: ("pwam", COMPLETE), 2: ("film", FAIL)}
    assert "fusion=film: fusion.heads=2 is not among its settings" in worker.study.trials[0].user_attrs["error"]
