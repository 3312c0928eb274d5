"""`eval.py model=dgl_rsis_tiny …` in this process, with tiny random models on drawn scenes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

import fake_isaid
from dgl_rsis.stand_ins import view
from runs import ROOT, evaluate_here
from s4eca.build import build_pipeline
from s4eca.cli.training_free import name_of, resolve
from s4eca.data.synthetic.module import synthesize
from s4eca.errors import S4ecaError

QUICK = ["model=dgl_rsis_tiny", "image_size=64", "data.num_workers=0", "trainer.accelerator=cpu", "bootstrap=50"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    synthesize(root, "rrsis_d", 0, train=3, val=6, test=4, size=64)
    return root


@pytest.fixture
def data(scenes):
    return ["data=synthetic", f"data.root={scenes}", "data.train=3", "data.val=6", "data.test=4", "data.scene_size=64"]


def test_an_evaluation_writes_what_a_checkpoints_does(data, tmp_path, capsys):
    out, cache = tmp_path / "out", tmp_path / "cache"
    evaluate_here(*QUICK, *data, f"out={out}", f"model.cache={cache}", "pictures=1", "predictions=rle")
    metrics = json.loads((out / "metrics.json").read_text())
    about = metrics["about"]
    assert about["name"] == "DGL-RSIS (our re-implementation), random weights"
    models = about["backbones"]
    assert [models[role]["source"] for role in ("CLIP", "grounding")] == ["random:0", "random:0"]
    assert models["CLIP"]["sha256"] == about["parts"]["regions"]["clip"]["weights"]
    assert models["grounding"]["sha256"] == about["parts"]["grounding"]["model"]["weights"]
    assert models["proposer"] == {"name": "Felzenszwalb + Slic"}, "which has no weights"
    assert about["parts"]["selector"]["alpha"] == 0.6
    assert about["parts"]["regions"]["eps"] == 0.1, "a default that is not written out"
    assert about["proposals_per_image"] > 1
    assert 0 < about["proposal_recall"]["mean_best_IoU"] <= 1
    assert metrics["protocols"]["lavt"]["mIoU"] <= about["proposal_recall"]["mean_best_IoU"] + 1e-9, "the ceiling"
    assert set(about["seconds"]) == {"proposals", "regions", "texts", "maps"}
    assert metrics["protocols"]["original"]["n"] == 4
    page = (out / "report.html").read_text()
    assert "our re-implementation" in page
    assert "tiny (random weights of seed 0), sha256 " + models["CLIP"]["sha256"][:12] in page
    assert "proposals" in page
    assert "activation" in page
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    assert len(pictures) == 6
    assert sum(name.endswith("_steps.png") for name in pictures) == 3
    steps = Image.open(out / "pictures" / next(name for name in pictures if name.endswith("_steps.png")))
    assert steps.width == 3 * (64 + 8) + 8, "three stages, with margins"
    assert "mIoU" in capsys.readouterr().out

    # the second run reads everything and gives the same masks
    evaluate_here(*QUICK, *data, f"out={tmp_path / 'again'}", f"model.cache={cache}", "pictures=0", "predictions=rle")
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["about"]["seconds"] == {}
    assert again["protocols"] == metrics["protocols"]
    predictions = next(out.glob("predictions*"))
    assert predictions.read_bytes() == (tmp_path / "again" / predictions.name).read_bytes()


def test_an_oracle_is_the_ceiling(data, tmp_path):
    evaluate_here(*QUICK, *data, f"out={tmp_path}", "ablation=oracle", "pictures=0")
    about = json.loads((tmp_path / "metrics.json").read_text())["about"]
    assert about["proposal_recall"]["mean_best_IoU"] == 1
    assert about["name"] == "DGL-RSIS (our re-implementation), random weights, oracle"


def test_label_maps(tmp_path, capsys):
    root, out = tmp_path / "isaid", tmp_path / "out"
    fake_isaid.write_scenes(root, {"P0001": (64, 64), "P0002": (64, 48)})
    given = ["data=isaid", f"data.root={root}", "split=val", f"out={out}", "pictures=2"]
    with pytest.warns(UserWarning, match="scenes"):
        evaluate_here("model=dgl_rsis_tiny", *given, "data.num_workers=0", "trainer.accelerator=cpu")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["task"] == "semantic"
    assert metrics["scores"]["images"] == 2
    assert metrics["scores"]["pixels"] == 64 * 64 + 64 * 48
    assert np.array(metrics["confusion"]).sum() == metrics["scores"]["pixels"]
    assert len(list((out / "pictures").iterdir())) == 2
    assert (out / "report.html").is_file()
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], r"nothing to evaluate; give ckpt=PATH of a run, or model=dgl_rsis"),
        (["model=dgl_rsis_tiny"], r"brings no data of its own; say which by data=NAME"),
        (["model=dgl_rsis_tiny", "data=synthetic", "ckpt=a.ckpt"], "has no checkpoint"),
        (["model=dgl_rsis_tiny", "data=synthetic", "vision.weights=hub"], "clip.weights"),
        (["model=dgl_rsis", "data=synthetic", "clip.weights=nowhere"], r"clip\.weights=nowhere does not exist"),
        (
            ["model=dgl_rsis", "clip=tiny", "data=synthetic", "grounding.blip.weights=nowhere"],
            r"grounding\.blip\.weights=nowhere does not exist",
        ),
        (["model=dgl_rsis_tiny", "data=synthetic", "model.knowledge=nowhere"], "knowledge=nowhere is none of"),
        (["model=dgl_rsis_tiny", "data=synthetic", "model.prompts=P9"], "P9"),
        (["model=dgl_rsis_tiny", "data=synthetic", "model.regions.crop=wide"], "adaptive"),
        (["model=dgl_rsis_tiny", "data=synthetic", "selector.alpha=2"], "alpha"),
        (["model=dgl_rsis_tiny", "data=synthetic", "trainer.precision=16-true"], "runs in fp32"),
        (["model=dgl_rsis_tiny", "data=synthetic", "trainer.accelerator=foo"], "under trainer cannot be had here"),
        (["model=dgl_rsis_tiny", "data=synthetic", "grounding.template=null"], "must hold {} once"),
        (["model=dgl_rsis_tiny", "data=synthetic", "model.regions.batch_size=2.5"], "no whole number"),
        (["model=referring", "data=synthetic"], "is trained; give ckpt"),
        (["ckpt=a.ckpt", "+variant=map_add"], "ablation=map_add is of the training-free model"),
        (["model=dgl_rsis_tiny", "data=isaid"], "has no labels to score against"),
        (["model=dgl_rsis_tiny", "data=isaid", "split=val", "data.root=nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_run_is_said_before_it_is_tried(given, said, scenes):
    place = [f"data.root={scenes}"] if "data=synthetic" in given else []
    counts = ["data.train=3", "data.val=6", "data.test=4", "data.scene_size=64"] if place else []
    with pytest.raises(S4ecaError, match=said):
        evaluate_here(*given, *place, *counts, "bootstrap=0")


def test_label_maps_have_no_use_for_expressions(tmp_path):
    fake_isaid.write_scenes(tmp_path, {"P0001": (64, 64)})
    with pytest.raises(S4ecaError, match="are for expressions"):
        evaluate_here("model=dgl_rsis_tiny", "data=isaid", f"data.root={tmp_path}", "shuffle_expressions=true")


@pytest.mark.parametrize("wrong", ["tau=-1", "tau=abc", "threshold=2"])
def test_settings_of_labels_are_checked(wrong, tmp_path):
    fake_isaid.write_scenes(tmp_path, {"P0001": (64, 64)})
    with pytest.raises(S4ecaError, match=f"model.labels.{wrong}"):
        evaluate_here(
            "model=dgl_rsis_tiny", "data=isaid", "split=val", f"data.root={tmp_path}", f"model.labels.{wrong}"
        )


def test_training_it_is_refused():
    from runs import composed
    from s4eca.cli.training import train

    with pytest.raises(S4ecaError, match=r"training-free; evaluate it with python eval\.py"):
        train(composed("model=dgl_rsis_tiny", "data=synthetic"), Path("nowhere"))


def compose_free(*overrides: str) -> dict:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return resolve(compose("eval", overrides=["data=synthetic", *overrides]))


def differences(one: dict, other: dict, path: str = "") -> set[str]:
    keys = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    found = set()
    for key in keys:
        both = one.get(key), other.get(key)
        inner = differences(*both, f"{path}{key}.") if all(isinstance(value, dict) for value in both) else {path + key}
        found |= inner
    return found


@pytest.fixture(scope="module")
def whole():
    return compose_free("model=dgl_rsis_tiny")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "ablation").glob("*.yaml")))
def test_every_ablation_changes_one_part_and_runs(name, whole):
    config = compose_free("model=dgl_rsis_tiny", f"ablation={name}")
    changed = differences(whole, config) - {"variant"}
    assert len({key.partition(".")[0] if not key.startswith("model.") else key for key in changed}) == 1, changed
    assert name_of(config)[0] == f"dgl_rsis_tiny_{name}"
    scene = view(size=(48, 64), truth=np.eye(48, 64, dtype=bool))
    (selection,) = build_pipeline(config, "synthetic").segment(scene, ["the red ship on the left of the windmill"])
    assert selection.mask.shape == (48, 64)


@pytest.mark.parametrize("model", ["dgl_rsis", "dgl_rsis_plus", "dgl_rsis_glclip", "dgl_rsis_iterprime", "activation"])
def test_every_preset_runs_with_tiny_weights(model):
    tiny = ["clip=tiny", "proposer=slic"]
    if model != "dgl_rsis_glclip":  # its map comes from its CLIP
        tiny.append("grounding=tiny")
    if model == "dgl_rsis_plus":
        tiny.append("grounding.input_sides=[96,192]")
    pipeline = build_pipeline(compose_free(f"model={model}", *tiny), "synthetic")
    (selection,) = pipeline.segment(view(size=(48, 64)), ["the red ship on the left of the windmill"])
    assert selection.mask.any()


def test_one_clip_is_loaded_once():
    pipeline = build_pipeline(compose_free("model=dgl_rsis_glclip", "clip=tiny"), "synthetic")
    assert pipeline.grounding.clip is pipeline.regions.clip
