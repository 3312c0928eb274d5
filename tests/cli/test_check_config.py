"""Settings that their option does not have, in every way that a config is put together."""

import pytest

from runs import ROOT, composed
from s4eca.cli.check_config import check_config
from s4eca.cli.doctor import examine
from s4eca.cli.profile import profile_training
from s4eca.cli.train_config import compose_train
from s4eca.cli.training import train
from s4eca.errors import S4ecaError
from s4eca.sweep.composing import compose_train as compose_trial

RECIPE = ["experiment=lavt_recipe", "data.root=x"]
LEFT_OVER = [*RECIPE, "fusion=film"]
SAID = r"FiLM, fusion=film: fusion\.feedback=true .*leave that out with ~fusion\.feedback, or choose fusion=pwam"


def options(group: str) -> list[str]:
    return sorted(
        path.stem for path in (ROOT / "conf" / group).glob("*.yaml") if path.stem not in ("checkpoint", "isaid")
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (LEFT_OVER, SAID),
        (
            ["experiment=demo", "decoder=lavt", "+decoder.width=48"],
            r"LAVTDecoder, decoder=lavt: decoder\.width=48 .*\(factor\).*~decoder\.width, or choose decoder=fpn or",
        ),
        ([*RECIPE, "loss=bce_dice"], r"loss\.reduction=batch.*or choose loss=ce or loss=ce_dice, which have it"),
        (["experiment=demo", "+tuning.visual.depth=1"], r"tuning\.visual\.depth=1 is not among"),
        (["experiment=demo", "+data.augmentation.rotate=0.5"], r"augmentation=none: data\.augmentation\.rotate=0\.5"),
        (["experiment=demo", "+model.segmenter.depth=1"], r"model\.segmenter\.depth=1"),
        (["experiment=demo", "+model.optimizer=sgd"], r"model\.optimizer=sgd"),
        (["experiment=demo", "callbacks=[ema]"], r"callbacks\.last\.every.*callbacks=default.*~callbacks\.last"),
        (["experiment=demo", "+logger.wandb.project=x"], r"logger\.wandb\.project .*logger=wandb"),
        ([*RECIPE, "~fusion"], r"no fusion is chosen, to which fusion\.feedback.*choose fusion=film\|none\|pwam"),
        (["experiment=demo", "~decoder"], r"no decoder is chosen; choose decoder="),
        (["experiment=demo", "decoder.width=abc"], r"decoder\.width=abc is no whole number"),
        (["data=isaid", "data.root=x"], "label maps and no expressions"),
    ],
)  # fmt: skip
def test_what_an_option_does_not_have_is_named_when_it_is_composed(overrides, said):
    with pytest.raises(S4ecaError, match=said):
        compose_train(overrides)


def test_the_remedies_work():
    assert "feedback" not in compose_train([*LEFT_OVER, "~fusion.feedback"])[0]["fusion"]
    assert compose_train([*LEFT_OVER[:-1], "fusion=pwam"])[0]["fusion"]["feedback"]


@pytest.mark.parametrize("decoder", ["fpn", "fpn_demo", "lavt"])
@pytest.mark.parametrize("experiment", ["demo", "pet_comparison_demo"])
def test_the_demos_take_any_decoder(experiment, decoder):
    config, _ = compose_train([f"experiment={experiment}", f"decoder={decoder}"])
    assert config["decoder"].get("width") == {"fpn": 224, "fpn_demo": 48, "lavt": None}[decoder]


def test_every_option_takes_its_own_settings():
    names = (
        "tuning",
        "vision",
        "text",
        "fusion",
        "decoder",
        "loss",
        "augmentation",
        "data",
        "speed",
        "trainer",
        "logger",
    )
    found = {name: options(name) for name in names}
    for place in range(max(map(len, found.values()))):
        chosen = [f"{name}={there[place % len(there)]}" for name, there in found.items()]
        compose_train([*chosen, "++data.root=x", "callbacks=[default,ema,early_stopping]"])
    for name in options("experiment"):
        compose_train(["++data.root=x", f"experiment={name}"])


def test_every_way_of_composing_refuses_alike(tmp_path):
    for compose in (compose_train, compose_trial, profile_training):
        with pytest.raises(S4ecaError, match=SAID):
            compose(LEFT_OVER)
    (finding,) = [one for one in examine(LEFT_OVER)["findings"] if one["about"] == "config"]
    assert "fusion.feedback=true" in finding["says"]
    with pytest.raises(S4ecaError, match=r"FiLM: fusion\.feedback=true"):
        train(composed(*LEFT_OVER), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_doctor_says_what_could_not_be_built():
    findings = examine(["experiment=demo", "tuning=lora", "fusion=none"])["findings"]
    assert any(one["level"] == "fail" and "brings no language into the image" in one["says"] for one in findings)
    findings = examine(["experiment=demo"])["findings"]
    assert not any(one["level"] == "fail" and one["about"] == "config" for one in findings)


def test_a_training_free_method_has_its_own_parts():
    config = composed("model=dgl_rsis_tiny", "data=synthetic")
    check_config(config)
    config["selector"]["depth"] = 3
    with pytest.raises(S4ecaError, match=r"selector\.depth=3 is not among its settings"):
        check_config(config)
