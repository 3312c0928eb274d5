"""`s4eca sweep` and `s4eca sweep status` as they are typed; no trial trains here."""

import sys

import pytest
from optuna.trial import TrialState

import s4eca.cli.sweep
import s4eca.sweep.status
import s4eca.sweep.storage
import s4eca.sweep.worker
from runs import TINY
from s4eca.cli.sweep import main
from s4eca.errors import S4ecaError
from sweep.made_sweep import SPACE, compose_once

GIVEN = [item for item in TINY if not item.startswith("tuning.visual.width")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a search space, where trainings are a formula."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["s4eca"])
    compose_once(monkeypatch)
    monkeypatch.setattr(s4eca.sweep.worker, "free_memory", lambda: None)
    monkeypatch.setattr(s4eca.sweep.worker, "train_trial", lambda trial, *_: 1 - trial.params["model.lr"])
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def test_a_sweep_is_begun_gone_on_with_and_looked_at(here, capsys, monkeypatch):
    monkeypatch.setattr(s4eca.sweep.status, "FEWEST", 3)
    main(["study=first", "n_trials=2", "sweep=space.yaml", *GIVEN])
    where = "study first in sqlite:///outputs/sweeps/first/study.db"
    assert f"{where}, 2 trials asked for; none yet" in capsys.readouterr().out
    main(["study=first", "n_trials=3", "sweep=space.yaml", "data.root=elsewhere", *GIVEN])
    assert "3 trials asked for; 2 complete" in capsys.readouterr().out
    main(["status", "study=first", "out=pictures/importance.svg"])
    printed = capsys.readouterr().out
    assert "3 trials: 3 complete, 0 pruned, 0 running, 0 waiting, 0 fail" in printed
    assert "repeat it with: python train.py experiment=demo image_size=64" in printed
    assert (here / "pictures" / "importance.svg").read_text().startswith("<?xml")
    with pytest.raises(S4ecaError, match=r"study=first was begun with other settings.*decoder\.width was 8 and is 9"):
        main(["study=first", "n_trials=4", "sweep=space.yaml", *GIVEN, "decoder.width=9"])


def test_a_password_is_neither_printed_nor_kept(here, capsys, monkeypatch):
    opened, real = [], s4eca.sweep.storage.open_storage

    def fake(url, heartbeat, max_retry):
        opened.append(url)
        return real(f"sqlite:///{here}/study.db", heartbeat, max_retry)

    monkeypatch.setattr(s4eca.sweep.storage, "open_storage", fake)
    main(["study=a", "n_trials=1", "sweep=space.yaml", "storage=postgresql://me:secret@host/s4eca", *GIVEN])
    assert opened == ["postgresql://me:secret@host/s4eca"]
    printed = capsys.readouterr()
    assert "secret" not in printed.out + printed.err
    assert "postgresql://me:***@host/s4eca" in printed.out
    assert "storage=postgresql://me:***@host/s4eca" in sys.argv, "what a run writes into its environment.json"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["n_trials=3"], "study= is no name for a study"),
        (["study=a/b", "n_trials=3"], "study=a/b is no name"),
        (["study=a"], "n_trials=N is needed"),
        (["study=a", "n_trials=many"], "n_trials=many is no whole number"),
        (["study=a", "n_trials=0"], "n_trials=0 is no whole number of 1 or more"),
        (["study=a", "n_trials=2", "heartbeat=0.5"], r"heartbeat=0\.5 is no whole number"),
        (["study=a", "n_trials=2", "wait=1"], "wait=1 is neither true nor false"),
        (["study=a", "study=b", "n_trials=2"], "study is given twice"),
        (["study=a", "n_trials="], "n_trials needs a value"),
        (["study=a", "n_trials=2", "--dry"], "knows no --dry"),
        (["study=a", "n_trials=2", "sweep=nowhere"], "sweep=nowhere is no search space"),
        (["study=a", "n_trials=2", "sweep=space.yaml", "experiment=nowhere"], "experiment=nowhere cannot be composed"),
        (["study=a", "n_trials=2", "sweep=space.yaml", "storage=sqlite:///no/study.db"], "no folder no; make it"),
        (["study=a", "n_trials=2", "sweep=space.yaml", "storage=postgresql://me@127.0.0.1:1/a"], "cannot be used"),
        (["status", "study=a"], r"no study in outputs/sweeps/a/study\.db"),
        (["status", "study=a", "experiment=demo"], "s4eca sweep status knows no experiment=demo"),
        (["status", "study=a", "out=picture.txt"], r"out=picture\.txt does not end in"),
    ],
)
def test_what_is_mistyped_is_one_sentence_and_nothing_starts(here, arguments, message):
    with pytest.raises(S4ecaError, match=message):
        main(arguments)
    assert not list(here.glob("outputs/sweeps/*/trial_*"))
    assert not [path for path in here.rglob("study.db") if "sweep=space.yaml" not in arguments]


def test_a_study_that_is_not_there_names_those_that_are(here):
    main(["study=first", "n_trials=1", "sweep=space.yaml", *GIVEN])
    with pytest.raises(S4ecaError, match="there is no study=second in this storage; it has first"):
        main(["status", "study=second", "storage=sqlite:///outputs/sweeps/first/study.db"])


def test_trials_of_a_study_that_was_deleted_are_not_mixed_with_new_ones(here):
    (here / "outputs" / "sweeps" / "first" / "trial_00000").mkdir(parents=True)
    with pytest.raises(S4ecaError, match="holds trials, and study=first has none"):
        main(["study=first", "n_trials=1", "sweep=space.yaml", *GIVEN])


def test_without_optuna_the_extra_is_named(here, monkeypatch):
    monkeypatch.setattr(s4eca.cli.sweep, "find_spec", lambda name: None)
    for arguments in (["study=a", "n_trials=1"], ["status", "study=a"]):
        with pytest.raises(S4ecaError, match=r"pip install 's4eca\[sweep\]'"):
            main(arguments)


def test_help_names_every_key(capsys):
    main(["--help"])
    printed = capsys.readouterr().out
    for key in (*s4eca.cli.sweep.KEYS, *s4eca.cli.sweep.STATUS_KEYS):
        assert f"{key}=" in printed


def test_states_are_all_counted():
    assert set(s4eca.sweep.status.STATES) == set(TrialState)
