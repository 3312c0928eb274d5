"""Every experiment and every option of every group, composed and run for one batch with tiny random towers."""

import copy
import re

import pytest
import yaml
from typer.testing import CliRunner

from runs import ROOT, composed, run, s4eca, train
from s4eca.budget import _learned, solve_budget
from s4eca.build import build_callbacks, build_data, build_loggers, build_module, build_towers, build_trainer
from s4eca.cli.main import app
from s4eca.data import Augmentation, ReferringDataModule, synthesize
from s4eca.errors import S4ecaError
from s4eca.fusion.pwam import PWAM
from s4eca.lit import CSVLog
from s4eca.parameters import method_share
from s4eca.tuning.base import Scope

pytestmark = pytest.mark.system
CONF = ROOT / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))

# towers small enough for one batch on a CPU, whatever the experiment asks for
SMALL_TOWERS = [
    "vision=swin_demo", "text=bert_demo", "image_size=64", "vision.options.embed_dim=16",
    "vision.options.num_heads=[1,2,4,8]", "text.options.hidden_size=32", "text.options.num_attention_heads=2",
]  # fmt: skip
ONE_BATCH = [
    "data.batch_size=2", "data.num_workers=0", "trainer.accelerator=cpu", "debug=fast", "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1", "trainer.accumulate_grad_batches=1", "callbacks.pictures.limit=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    for layout in ("rrsis_d", "refsegrs"):
        synthesize(root / layout, layout, 0, train=4, val=2, test=2, size=64)
    return root


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains_one_batch(name, datasets, tmp_path):
    # LAVT's text_layers=10 needs ten layers, which the tiny text tower is given
    config = composed(f"experiment={name}", *SMALL_TOWERS, "text.options.num_hidden_layers=10", *ONE_BATCH)
    source = config["data"]["_target_"]
    if "Synthetic" in source:
        config["data"].update(train=4, val=2, test=2, scene_size=64, root=str(tmp_path / "drawn"))
    else:
        config["data"]["root"] = str(datasets / ("refsegrs" if "RefSegRS" in source else "rrsis_d"))
    data = build_data(config)
    data.prepare_data()
    module = build_module(config)
    data.tokenizer = module.segmenter.text.load_tokenizer()
    loggers = [CSVLog(tmp_path), *build_loggers(config, tmp_path)]
    trainer = build_trainer(config, tmp_path, build_callbacks(config, tmp_path), loggers)
    trainer.fit(module, data)
    assert trainer.global_step == 1
    assert module.scores["lavt"]["n"] == 2


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_opens_with_its_command_and_what_to_expect(name):
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    header = text[: text.index("\ndefaults")]
    assert re.search(rf"# python train\.py (-m )?experiment={name}\b", header)
    assert "# Expect:" in header


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("group", "option"),
    [(g, o) for g in ("tuning", "fusion", "decoder", "refine", "loss", "vision", "text") for o in options(g)],
)
def test_every_option_says_what_it_is_and_builds(group, option):
    text = (CONF / group / f"{option}.yaml").read_text()
    assert text.startswith("# ")
    layers = "text.options.num_hidden_layers=10"  # what full_lavt trains
    overrides = [*SMALL_TOWERS, layers, "fusion=film"] if group not in ("vision", "text") else ["fusion=film"]
    overrides = [item for item in overrides if not item.startswith(f"{group}=")] + [f"{group}={option}"]
    config = composed(*overrides, "vision.weights=random", "text.weights=random")
    if group in ("vision", "text"):  # full size: composing is enough, tests/towers builds them small
        assert config[group]["_target_"].startswith("s4eca.towers.")
        return
    module = build_module(config)
    if group == "tuning":
        assert module.segmenter.method.name == option.partition("_")[0]


@pytest.fixture(scope="module")
def base_towers():
    return build_towers(composed("experiment=pet_comparison", "vision.weights=random", "text.weights=random"))


def documented_sizes() -> list[tuple[str, int]]:
    """Methods and their parameters in the table of docs/methods.md."""
    rows = re.findall(r"^\| `(\w+)`(, at the side)? \|.*?\| ([\d,]+) \| [\d.]+ % \|", METHODS_PAGE.read_text(), re.M)
    return [(name + "_side" * bool(side), int(count.replace(",", ""))) for name, side, count in rows]


METHODS_PAGE = ROOT / "docs" / "methods.md"


def test_the_page_of_methods_lists_all_of_them_with_their_sizes(base_towers):
    sizes = dict(documented_sizes())
    assert {name.removesuffix("_side") for name in sizes} == {
        name for name in options("tuning") if name not in ("full_lavt", "s4eca_demo", "s4eca_compare")
    }
    for name, count in sizes.items():
        tuning = composed(f"tuning={name.removesuffix('_side')}")["tuning"]
        scope = Scope("side" if name.endswith("_side") else "inside")
        assert _learned(tuning, *base_towers, scope) == count, name
        percent = f"| {100 * count / 195_768_184:.2f} % |".replace("100.00", "100").replace("| 0.00 %", "| 0 %")
        assert percent in METHODS_PAGE.read_text(), (name, percent)


COMPARED = sorted(path.stem for path in (CONF / "comparison").glob("*.yaml"))


def test_the_comparison_holds_every_method_and_runs_every_row():
    methods = {name.partition("_")[0] for name in options("tuning")}
    assert {name.partition("_")[0] for name in COMPARED} == methods
    for experiment in ("pet_comparison", "pet_comparison_demo"):
        text = (CONF / "experiment" / "pet_comparison.yaml").read_text()
        rows = yaml.safe_load(text)["hydra"]["sweeper"]["params"]["comparison"]
        assert sorted(name.strip() for name in rows.split(",")) == COMPARED, experiment


@pytest.fixture(scope="module")
def demo_towers():
    return build_towers(composed("experiment=pet_comparison_demo"))


@pytest.mark.parametrize("name", COMPARED)
def test_every_row_of_the_comparison_meets_its_budget_and_builds(name, demo_towers):
    config = composed("experiment=pet_comparison_demo", f"comparison={name}")
    assert config["name"] == name
    scope = Scope(config["model"]["segmenter"]["placement"])
    if config["budget"] is not None:
        tuning, solved = solve_budget(config["tuning"], *demo_towers, config["budget"], scope)
        assert solved.percent == pytest.approx(10.7, rel=0.05)
        config["tuning"] = tuning
    segmenter = build_module(config, copy.deepcopy(demo_towers)).segmenter
    assert isinstance(segmenter.fusion, PWAM), "all share one fusion"
    if config["budget"] is not None:
        assert 100 * method_share(segmenter) == pytest.approx(10.7, rel=0.05)


@pytest.mark.parametrize("name", [name for name in COMPARED if not name.startswith("s4eca_") or name == "s4eca_side"])
def test_every_method_meets_2_4_percent_of_swin_b_and_bert_base(name, base_towers):
    config = composed("experiment=pet_comparison", f"comparison={name}")
    if config["budget"] is None:
        pytest.skip("it has the size that it has")
    scope = Scope(config["model"]["segmenter"]["placement"])
    _, solved = solve_budget(config["tuning"], *base_towers, 2.4, scope)
    assert solved.percent == pytest.approx(2.4, rel=0.05)
    assert solved.towers == 108_891_648 + 86_876_536


ABLATIONS = sorted(path.stem for path in (CONF / "comparison" / "vhr").glob("*.yaml"))


def test_the_comparison_on_real_images_runs_every_row():
    text = (CONF / "experiment" / "vhr_comparison.yaml").read_text()
    rows = yaml.safe_load(text)["hydra"]["sweeper"]["params"]["comparison"]
    assert sorted(name.strip() for name in rows.split(",")) == [f"vhr/{name}" for name in ABLATIONS]


def test_every_row_on_real_images_is_another_network():
    whole, built = composed("experiment=vhr_comparison", "comparison=vhr/s4eca"), {}
    for name in ABLATIONS:
        config = composed("experiment=vhr_comparison", f"comparison=vhr/{name}", *SMALL_TOWERS)
        assert config["evaluate"] == "val", "nothing is chosen on test"
        assert config["model"]["segmenter"] == whole["model"]["segmenter"]
        segmenter = build_module(config).segmenter
        built[name] = sorted((key, tuple(value.shape)) for key, value in segmenter.learned_state().items())
    without_parameters = {"visual_scale", "uniform_scale"}
    others = {str(learned) for name, learned in built.items() if name not in without_parameters}
    assert len(others) == len(ABLATIONS) - len(without_parameters)


@pytest.mark.parametrize("option", [o for o in options("data") if o not in ("checkpoint", "isaid")])
def test_every_dataset_builds_with_what_the_trainer_gives_it(option):
    overrides = ["data.dataset=rrsishr"] if option == "refer" else []
    data = build_data(composed("image_size=96", "seed=7", f"data={option}", *overrides))
    assert isinstance(data, ReferringDataModule)
    assert data.name == {"refer": "rrsishr", "joint": "rrsis_d+refsegrs"}.get(option, option)
    assert (data.image_size, data.seed) == (96, 7)
    assert data.cache is None
    assert data.augmentation == Augmentation()


def test_label_maps_are_not_for_training():
    with pytest.raises(S4ecaError, match="have label maps and no expressions"):
        build_data(composed("data=isaid"))


@pytest.mark.parametrize("option", options("augmentation"))
def test_every_augmentation_builds(option):
    data = build_data(composed(f"augmentation={option}"))
    assert isinstance(data.augmentation, Augmentation)
    assert data.augmentation.active == (option != "none")


def test_the_whole_default_config_is_documented_in_place():
    for path in CONF.rglob("*.yaml"):
        text = path.read_text()
        assert text.startswith("#"), f"{path.relative_to(ROOT)} does not say what it is"
        assert yaml.safe_load(text) is not None, path


def test_debug_overfit_composes():
    config = composed("experiment=demo", "debug=overfit")
    assert config["trainer"]["overfit_batches"] == 4


@pytest.mark.parametrize("extra", ["ema", "early_stopping"])
def test_callbacks_can_be_added(extra, datasets, tmp_path):
    config = composed("experiment=demo", f"callbacks=[default,{extra}]")
    names = [type(callback).__name__ for callback in build_callbacks(config, tmp_path)]
    assert {"ema": "EMA", "early_stopping": "EarlyStopping"}[extra] in names
    assert names.count("ModelCheckpoint") == 2


def test_help_and_the_ways_in(tmp_path):
    printed = CliRunner().invoke(app, ["--help"]).output
    for command in (
        "train",
        "eval",
        "sweep",
        "profile",
        "doctor",
        "weights",
        "score",
        "compare",
        "table",
        "share",
        "data",
    ):
        assert command in printed
    printed = CliRunner().invoke(app, ["data", "--help"]).output
    for command in ("audit", "show", "convert", "synthesize"):
        assert command in printed
    assert "_target_: s4eca.tuning.S4ECA" in s4eca("train", "--cfg", "job", cwd=tmp_path)
    assert "experiment: demo, " in " ".join(train("--help", cwd=tmp_path).split())


def test_the_wheel_carries_the_configs(tmp_path):
    import zipfile

    run(
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("s4eca-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in CONF.rglob("*.yaml"):
        assert f"s4eca/conf/{path.relative_to(CONF).as_posix()}" in names
    for name in ("page/page.html.jinja", "tables/published.csv", "tables/published_cost.csv"):
        assert f"s4eca/evaluation/{name}" in names
    assert not any(name.startswith(("tests/", "data/")) for name in names)
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "s4eca").rglob("*.py")} <= names
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    away = {"PYTHONPATH": str(tmp_path / "installed")}
    code = (
        "from hydra import compose, initialize_config_dir; from s4eca.cli.config import conf_dir\n"
        "with initialize_config_dir(conf_dir(), version_base='1.3'):\n"
        "    print(conf_dir(), compose('train', overrides=['experiment=demo']).name)"
    )
    printed = run("-c", code, cwd=tmp_path, env=away).splitlines()
    assert printed == [f"{tmp_path}/installed/s4eca/conf demo"]
