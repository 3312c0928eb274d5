"""Search spaces against train.yaml."""

from pathlib import Path

import pytest
import yaml

from runs import ROOT
from s4eca.errors import S4ecaError
from s4eca.overrides import override
from s4eca.sweep.composing import check_overrides, check_space, common, compose_train
from s4eca.sweep.sampling import build_pruner, build_sampler
from s4eca.sweep.space import load_space
from sweep.made_sweep import SPACE, compose_once, made_space

DEMO = ["experiment=demo"]


@pytest.fixture(autouse=True)
def composed_once(monkeypatch):
    compose_once(monkeypatch)


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_fits_the_experiment_in_its_first_line(path: Path):
    first, expect = path.read_text().splitlines()[0], path.read_text()
    assert first.startswith("# s4eca sweep study=")
    assert "# Expect:" in expect
    (experiment,) = [word for word in first.split() if word.startswith("experiment=")]
    space = load_space(path.stem)
    build_sampler(space)
    build_pruner(space)
    check_space(space, [experiment])


def test_a_trial_is_the_config_with_its_values(tmp_path):
    space = made_space(tmp_path)
    base = check_space(space, DEMO)
    config = compose_train([*DEMO, *(override(axis.key, axis.values[1]) for axis in space.axes)])
    assert config["model"]["lr"] == 0.01
    assert config["tuning"]["visual"]["kernels"] == [1, 3, 5]
    assert config["fusion"]["_target_"] == "s4eca.fusion.film.FiLM"
    assert config["name"] == base["name"] == "demo"
    demo = yaml.safe_load((ROOT / "conf" / "experiment" / "demo.yaml").read_text())
    assert base["trainer"]["max_steps"] == demo["trainer"]["max_steps"]


@pytest.mark.parametrize(
    ("space", "overrides", "message"),
    [
        (SPACE.replace("model.lr", "model.lrr"), DEMO, r"train\.yaml has no key model\.lrr; did you mean model\.lr\?"),
        (SPACE.replace("model.lr", "modle.lr"), DEMO, r"train\.yaml has no key modle\.lr; did you mean model\.lr\?"),
        (SPACE.replace("tuning.visual.kernels", "tuning.visual"), DEMO, r"holds other keys.*tuning\.visual\.kernels"),
        (SPACE.replace("[none, film]", "[none, flim]"), DEMO, "fusion has no option flim; there are film, none, pwam"),
        # FiLM has no heads, so that the key depends on the other choice
        (
            SPACE.replace("[none, film]", "[pwam, film]").replace("model.lr:", "fusion.heads:"), DEMO,
            r"with fusion=film: train\.yaml has no key fusion\.heads",
        ),
        (
            SPACE.replace("[none, film]", "[pwam, film]"), [*DEMO, "++fusion.heads=2"],
            r"fusion=film: fusion\.heads=2 .*~fusion\.heads",
        ),
        (SPACE, ["experiment=dmeo"], "experiment=dmeo cannot be composed with train.yaml: .*experiment/dmeo"),
        (SPACE, [*DEMO, "modle.lr=1"], r"cannot be composed with train\.yaml: .*modle"),
        (SPACE, [*DEMO, "seed=1,2"], "stands for several values"),
        (SPACE, [*DEMO, "trainer.devices=2"], "start a worker per GPU"),
        (SPACE, [*DEMO, "trainer.strategy=ddp"], "start a worker per GPU"),
        (SPACE, [*DEMO, "evaluate=test"], "set evaluate=null"),
        (SPACE.replace("val/mIoU", "val/oIoU"), DEMO, r"set callbacks\.best\.monitor=val/oIoU callbacks\.best\.mode"),
        (SPACE.replace("maximize", "minimize"), DEMO, r"callbacks\.best\.mode=min"),
        (SPACE, [*DEMO, "callbacks.best=null"], r"the config has none"),
    ],
)  # fmt: skip
def test_what_cannot_be_tried_is_refused_by_name(tmp_path, space, overrides, message):
    with pytest.raises(S4ecaError, match=message):
        check_space(made_space(tmp_path, space), overrides)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model.lr=1", r"model\.lr=1 is given, and sweep=.* tries model\.lr"),
        ("+fusion=film", r"tries fusion"),
        ("resume=run", "resume=run has no meaning in a sweep"),
        ("hydra.run.dir=x", "has no meaning in a sweep"),
        ("hydra/launcher=submitit_slurm", "has no meaning in a sweep"),
        ("a=[1", r"a=\[1 has characters .*'a=\"\[1\"'"),
    ],
)
def test_overrides_that_all_trials_cannot_share_are_refused(tmp_path, given, message):
    with pytest.raises(S4ecaError, match=message):
        check_overrides([*DEMO, given], made_space(tmp_path))


def test_machines_may_differ_in_places_and_in_nothing_else():
    config = {"name": "a", "data": {"root": "/a", "batch_size": 2}, "logger": {"wandb": {"project": "p"}}, "seed": 1}
    assert common(config) == {"data.batch_size": 2, "seed": 1}


@pytest.mark.parametrize("decoder", ["fpn", "lavt"])
def test_the_shipped_space_fits_the_demo_with_every_decoder_that_it_draws(decoder):
    space = load_space("s4eca")
    check_space(space, DEMO)
    (axis,) = [axis for axis in space.axes if axis.key == "decoder"]
    assert decoder in axis.values
    assert compose_train([*DEMO, override("decoder", decoder)])["decoder"]["_target_"].startswith("s4eca.decoders.")
