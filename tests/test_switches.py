"""Every advice that a shipped experiment can print, with every method: it composes, and the network builds."""

import pytest

from runs import ROOT
from s4eca.build import build_data, build_module
from s4eca.cli.train_config import compose_train
from s4eca.dry_build import dry_build
from s4eca.errors import S4ecaError
from s4eca.features import check_cacheable
from s4eca.frozen_dtype import check_precision
from s4eca.switches import EVALUATION_MEMORY, TIME, TRAINING_MEMORY, offered

pytestmark = pytest.mark.filterwarnings("ignore:data.pin_memory=true does nothing here")

# small towers with the depth that full_lavt's text_layers=10 asks for
SMALL = [
    "vision=swin_demo", "text=bert_demo", "image_size=64", "vision.options.embed_dim=16", "data.root=x",
    "vision.options.num_heads=[1,2,4,8]", "text.options.hidden_size=32", "text.options.num_attention_heads=2",
    "text.options.num_hidden_layers=10", "text.options.intermediate_size=64", "budget=null",
]  # fmt: skip


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def advices(config: dict) -> list[str]:
    """Returns what is advised when memory ends, and for whichever part of a step is the largest."""
    switches = {id(switch): switch for switch in (*TRAINING_MEMORY, *EVALUATION_MEMORY, *TIME)}
    return [offer.setting for offer in offered(config, switches.values())]


def build(config: dict) -> None:
    """As a training does it, with values."""
    data, module = build_data(config), build_module(config)
    check_precision(module.segmenter, config["trainer"]["precision"])
    check_cacheable(module.features, data, config["trainer"]["precision"])


def check_advices(*overrides: str) -> list[str]:
    config, _ = compose_train([*overrides, *SMALL])
    found = advices(config)
    for setting in found:
        try:
            build(compose_train([*overrides, *SMALL, *setting.split(" ")])[0])
        except S4ecaError as error:
            pytest.fail(f"{' '.join(overrides)} is advised {setting}, which is refused: {error}")
    return found


@pytest.mark.parametrize(
    ("overrides", "not_offered"),
    [
        (["experiment=lavt_recipe"], "model.segmenter.start_stage=3"),
        (
            ["experiment=s4eca_rrsis_d", "trainer=gpu", "comparison=full", "+full_lr=1e-4", "fusion=film"],
            "model.segmenter.tower_dtype=bf16",
        ),
    ],
)
def test_what_is_advised_builds(overrides, not_offered):
    found = check_advices(*overrides)
    assert len(found) >= 5
    assert not_offered not in found


EVERY = [
    *(("trainer=default", experiment, tuning) for experiment in options("experiment") for tuning in options("tuning")),
    *(("trainer=gpu", "s4eca_rrsis_d", tuning) for tuning in options("tuning")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "experiment", "tuning"), EVERY)
def test_everything_that_is_advised_builds(trainer, experiment, tuning):
    recipe = [f"experiment={experiment}", f"tuning={tuning}", trainer]
    if tuning in ("full", "full_lavt"):
        recipe.append("model.segmenter.tower_dtype=fp32")
    if "fusion" not in (ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text():
        recipe.append("fusion=film")  # most methods bring no language
    if tuning in ("etris", "cola") and experiment.endswith("_recipe"):
        recipe.append("fusion.feedback=false")  # they walk both towers in turn
    dry_build({**compose_train([*recipe, *SMALL])[0], "budget": None})
    assert check_advices(*recipe)
