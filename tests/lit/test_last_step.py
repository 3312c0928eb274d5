"""However a training is broken off, what it has saved leads to the same end as if it had not been."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from s4eca.lit import EMA
from s4eca.lit.last_step import LastStep
from s4eca.stopping import StopSignals
from toy import RandomState, fit, toy_data, toy_module, toy_trainer

STEPS = {"max_steps": 7, "max_epochs": -1, "val_check_interval": 2}  # epochs of 4 batches
EPOCHS = {"max_epochs": 2}
PARTS = {"max_epochs": 2, "val_check_interval": 2, "accumulate_grad_batches": 2}

WITHIN = {"max_epochs": 1, "val_check_interval": 1, "accumulate_grad_batches": 2}


class BrokenOff(Exception):  # noqa: N818
    pass


class At(Callback):
    """Does something at the nth call of a hook."""

    def __init__(self, hook, count, action):
        self.left, self.action = count, action
        setattr(self, hook, self.call)

    def call(self, *arguments):
        self.left -= 1
        if not self.left:
            self.action()


class Validations(Callback):
    def __init__(self):
        self.seen = []

    def on_validation_end(self, trainer, pl_module):
        self.seen.append((trainer.global_step, trainer.current_epoch, float(trainer.callback_metrics["val/loss"])))


def break_off():
    raise BrokenOff


def training(root, folder, options, *more, ema=False, resume=None, signals=None):
    """Trains; returns its validations and the score of its best checkpoint."""
    torch.manual_seed(0)
    validations = Validations()
    best = ModelCheckpoint(folder / "checkpoints", "best", "val/loss", enable_version_counter=False)
    average = [EMA(0.5)] if ema else []
    last = LastStep(folder / "checkpoints" / "last.ckpt", signals)
    trainer = toy_trainer(folder, RandomState(), validations, *average, best, *more, last, **options)
    fit(toy_module(), toy_data(root, train=16, val=5), trainer, resume)
    return validations.seen, float(best.best_model_score)


def read(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Returns a function that gives an unbroken training's data, validations, best score and end."""
    made, root = {}, tmp_path_factory.mktemp("data")

    def get(name, options, ema):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = (root, *training(root, folder, options, ema=ema), read(folder))
        return made[name]

    return get


@pytest.mark.parametrize(
    ("name", "options", "ema", "hook", "count", "reached"),
    [
        pytest.param("steps", STEPS, True, "on_before_backward", 4, 3, marks=pytest.mark.slow),
        ("steps", STEPS, True, "on_validation_batch_start", 3, 4),  # the average is in the weights' place
        pytest.param("steps", STEPS, True, "on_train_batch_start", 5, 4, marks=pytest.mark.slow),  # between two epochs
        ("epochs", EPOCHS, False, "on_validation_batch_start", 4, 8),  # the very last validation
        pytest.param("epochs", EPOCHS, False, "on_train_batch_start", 5, 4, marks=pytest.mark.slow),
        pytest.param("parts", PARTS, False, "on_before_backward", 4, 1, marks=pytest.mark.slow),
    ],
)
def test_an_exception_saves_the_last_complete_step(unbroken, tmp_path, name, options, ema, hook, count, reached):
    root, validations, best, end = unbroken(name, options, ema)
    seen = Validations()
    with pytest.raises(BrokenOff):
        training(root, tmp_path, options, seen, At(hook, count, break_off), ema=ema)
    assert read(tmp_path)["global_step"] == reached
    after, score = training(root, tmp_path, options, ema=ema, resume=tmp_path / "checkpoints" / "last.ckpt")
    assert seen.seen + after == validations, "no validation is left out and none is made twice"
    assert score == best
    found = read(tmp_path)
    assert found["global_step"] == end["global_step"]
    for part in ("state_dict", "raw_state_dict"):
        stored = end.get(part, {})
        assert [key for key, value in stored.items() if not torch.equal(value, found[part][key])] == []


def test_a_validation_within_a_step_does_not_complete_it(unbroken, tmp_path):
    """Broken off in the second batch of a step, after the validation between both, which is then made again."""
    root, _, _, end = unbroken("within", WITHIN, False)
    with pytest.raises(BrokenOff):
        training(root, tmp_path, WITHIN, At("on_before_backward", 4, break_off))
    assert read(tmp_path)["global_step"] == 1
    training(root, tmp_path, WITHIN, resume=tmp_path / "checkpoints" / "last.ckpt")
    found = read(tmp_path)["state_dict"]
    assert [key for key, value in end["state_dict"].items() if not torch.equal(value, found[key])] == []


def test_weights_that_have_moved_on_are_not_saved_with_an_older_state(unbroken, tmp_path):
    root = unbroken("steps", STEPS, True)[0]
    with pytest.raises(BrokenOff):
        training(root, tmp_path, STEPS, At("on_train_batch_end", 2, break_off))  # after the optimiser, before LastStep
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_what_cannot_be_saved_is_said_and_leaves_the_exception_as_it_is(unbroken, tmp_path, monkeypatch):
    root = unbroken("steps", STEPS, True)[0]
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    with (
        pytest.warns(UserWarning, match=r"the last step could not be saved: .*last\.ckpt needs"),
        pytest.raises(BrokenOff),
    ):
        training(root, tmp_path, {**STEPS, "limit_val_batches": 0}, At("on_before_backward", 3, break_off))


def test_a_signal_ends_the_run_after_its_step(unbroken, tmp_path):
    root, *_, end = unbroken("parts", PARTS, False)
    with StopSignals() as signals:
        ask = At("on_before_backward", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))  # the first half of step 2
        with pytest.raises(SIGTERMException):
            training(root, tmp_path, PARTS, ask, signals=signals)
        assert signals.step == 1
    assert read(tmp_path)["global_step"] == 1
    training(root, tmp_path, PARTS, resume=tmp_path / "checkpoints" / "last.ckpt")
    found = read(tmp_path)["state_dict"]
    assert [key for key, value in end["state_dict"].items() if not torch.equal(value, found[key])] == []
