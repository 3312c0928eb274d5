"""Data and frozen weights that a study's workers only name must be the same ones."""

from types import SimpleNamespace

import optuna
import pytest

from s4eca.errors import S4ecaError
from s4eca.sweep.inputs import SameInputs

optuna.logging.set_verbosity(optuna.logging.ERROR)


def start(study, params=None, **found):
    """Begins a trial on a machine where these hashes are found."""
    found = {"vision": "a", "text": "b", "train": "c", **found}
    vision = {"name": "swin", "weights": found.get("place")}
    config = {"vision": vision, "text": {"name": "bert"}, "data": {"root": found.get("place")}}
    meta = {
        "config": config,
        "method": {"name": "s4eca"},
        "base": {tower: {"name": tower, "source": "hub", "sha256": found[tower]} for tower in ("vision", "text")},
        "data": {"name": "rrsis_d", "train": {"count": 3, "sha256": found["train"]}},
    }
    study.enqueue_trial(params or {})
    trial = study.ask({key: optuna.distributions.CategoricalDistribution(["one", "two"]) for key in params or {}})
    module = SimpleNamespace(describe=lambda data: meta, config=config)
    SameInputs(trial).on_fit_start(SimpleNamespace(datamodule=None), module)


@pytest.mark.parametrize(
    ("what", "remedy"), [("vision", "vision.weights"), ("text", "text.weights"), ("train", "data.root")]
)
def test_other_content_under_the_same_config_is_refused(what, remedy):
    study = optuna.create_study(study_name="mine")
    start(study)
    start(study, place="/elsewhere")  # the same weights from another place
    with pytest.raises(S4ecaError, match=rf"study=mine was begun .*{remedy}=PATH"):
        start(study, **{what: "z"})
    start(study)


def test_backbones_that_the_space_tries_are_compared_among_themselves():
    study = optuna.create_study()
    start(study, {"vision.weights": "one"}, vision="a")
    start(study, {"vision.weights": "two"}, vision="z")
    with pytest.raises(S4ecaError, match="vision"):
        start(study, {"vision.weights": "two"}, vision="a")
