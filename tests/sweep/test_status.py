"""What is said of a study, and the picture of its keys' importance."""

import io

import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console

from s4eca.errors import S4ecaError
from s4eca.sweep.picture import draw_importance, write_picture
from s4eca.sweep.status import Importance, importance, sentences, short_names, tabulate
from s4eca.sweep.storage import enqueue_again
from sweep.made_sweep import made_space, made_worker


def add(study, space, value, lr, width=8, state=TrialState.COMPLETE, **attrs):
    given = {"model.lr": lr, "tuning.visual.width": width, "tuning.visual.kernels": "[1,3]", "fusion": "none"}
    distributions = {axis.key: axis.distribution for axis in space.axes}
    study.add_trial(create_trial(state=state, value=value, params=given, distributions=distributions, user_attrs=attrs))


@pytest.fixture
def made(tmp_path):
    space = made_space(tmp_path)
    return made_worker(tmp_path, space).study, space


def printed(table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


def test_every_trial_has_a_row_and_failed_ones_a_reason(made):
    study, space = made
    about = {"worker": "node7:12", "overrides": ["model.lr=0.001", "tuning.visual.kernels=[1,3]"]}
    add(study, space, 0.25, 1e-3, folder="outputs/sweeps/made/trial_00000", **about)
    add(study, space, None, 2e-3, state=TrialState.FAIL, error="budget=3 cannot be met.")
    add(study, space, None, 3e-3, state=TrialState.FAIL)
    enqueue_again(study, study.trials[2])
    header, *rows = [line.split() for line in printed(tabulate(study)).splitlines() if line.strip(" ─")]
    assert header == [
        "trial",
        "state",
        "val/mIoU",
        "lr",
        "width",
        "kernels",
        "fusion",
        "worker",
        "folder",
        "retry",
        "of",
    ]
    assert rows == [
        ["0", "complete", "0.2500", "0.001", "8", "[1,3]", "none", "node7:12", "outputs/sweeps/made/trial_00000"],
        ["1", "fail", "0.002", "8", "[1,3]", "none"],
        ["2", "fail", "0.003", "8", "[1,3]", "none"],
        ["3", "waiting", "0.003", "8", "[1,3]", "none", "2"],
    ]
    assert sentences(study) == [
        "4 trials: 1 complete, 0 pruned, 0 running, 1 waiting, 2 fail",
        "trial 1 failed: budget=3 cannot be met.",
        "trial 2 failed: its worker gave no sign of life (repeated as trial 3)",
        "best: trial 0, val/mIoU 0.2500",
        "repeat it with: python train.py model.lr=0.001 'tuning.visual.kernels=[1,3]'",
    ]


def test_the_key_that_decides_is_the_most_important(made, tmp_path):
    study, space = made
    for place in range(24):  # the value depends on lr alone, and width takes turns
        add(study, space, 1 - place / 24, 1e-4 * 10 ** (2 * place / 23), width=8 + 8 * (place % 2))
    found = importance(study)
    assert isinstance(found, Importance)
    assert next(iter(found.shares)) == "model.lr"
    assert found.shares["model.lr"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.trials == 24
    figure = draw_importance(found, "made", "val/mIoU")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == list(found.shares.values())
    assert [label.get_text() for label in axes.get_yticklabels()] == list(found.shares)
    write_picture(figure, tmp_path / "importance.png")
    assert (tmp_path / "importance.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.glob("*importance*")] == ["importance.png"]


def test_too_few_or_equal_trials_are_said_to_be_so(made):
    study, space = made
    for _ in range(9):
        add(study, space, 0.5, 1e-3)
    add(study, space, 0.9, 1e-3, state=TrialState.PRUNED)
    assert importance(study) == "no picture of importances: they need 10 complete trials, and there are 9"
    add(study, space, 0.5, 1e-3)
    assert importance(study) == "no picture of importances: all 10 complete trials have the same value"


def test_names_are_as_short_as_they_can_be():
    assert short_names(["model.lr", "tuning.text.width", "tuning.visual.width", "fusion"]) == [
        "lr", "text.width", "visual.width", "fusion",
    ]  # fmt: skip


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    figure = draw_importance(Importance({"a": 1.0}, 10), "made", "val/mIoU")
    with pytest.raises(S4ecaError, match=r"out=.*importance\.txt does not end in \.png"):
        write_picture(figure, tmp_path / "importance.txt")
    with pytest.raises(S4ecaError, match="cannot be written"):
        write_picture(figure, tmp_path / "nowhere" / "importance.png")
