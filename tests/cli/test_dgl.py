"""`s4eca dgl fill|recall|sweep` in this process, with tiny random models on drawn scenes."""

import csv
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from typer.testing import CliRunner

import fake_isaid
from runs import ROOT
from s4eca.cli.dgl_fill import fill_stages
from s4eca.cli.dgl_recall import measure_recall
from s4eca.cli.dgl_scenes import parse_shard
from s4eca.cli.dgl_sweep import sweep_settings
from s4eca.cli.main import app
from s4eca.data.synthetic.module import synthesize
from s4eca.errors import S4ecaError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("data") / "scenes"
    synthesize(root, "rrsis_d", 0, train=2, val=5, test=3, size=64)
    counts = ["data.train=2", "data.val=5", "data.test=3", "data.scene_size=64"]
    return ["data=synthetic", f"data.root={root}", *counts]


def composed(name: str, *overrides: str):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides=[*overrides])


def fill(*overrides: str) -> None:
    fill_stages(composed("dgl_fill", "model=dgl_rsis_tiny", "image_size=64", "accelerator=cpu", *overrides))


def entries(folder: Path) -> dict[str, int]:
    return {path.name: len(list(path.rglob("*.cached"))) for path in sorted(folder.iterdir())}


def test_shards_together_are_the_whole(data, tmp_path, capsys):
    fill(*data, f"model.cache={tmp_path / 'whole'}")
    whole = entries(tmp_path / "whole")
    assert whole["proposals"] == whole["regions"] == 5
    assert whole["maps"] == 5
    for shard in ("0/2", "1/2"):
        fill(*data, f"model.cache={tmp_path / 'parts'}", f"shard={shard}")
    assert entries(tmp_path / "parts") == whole
    names = [{path.name for path in (tmp_path / part).rglob("*.cached")} for part in ("whole", "parts")]
    assert names[0] == names[1], "the same keys"
    capsys.readouterr()
    fill(*data, f"model.cache={tmp_path / 'parts'}")
    said = capsys.readouterr().out
    assert "proposals: 0 made, 5 read" in said
    assert "maps: 0 made, 5 read" in said


def test_stages_can_be_filled_one_by_one(data, tmp_path):
    fill(*data, f"model.cache={tmp_path}", "stages=[proposals]", "shard=0/5")
    assert entries(tmp_path) == {"proposals": 1}


def test_label_maps_need_no_maps(tmp_path):
    fake_isaid.write_scenes(tmp_path / "isaid", {"P0001": (64, 64), "P0002": (64, 48)})
    with pytest.warns(UserWarning, match="scenes"):
        fill("data=isaid", f"data.root={tmp_path / 'isaid'}", f"model.cache={tmp_path / 'cache'}")
    found = entries(tmp_path / "cache")
    assert (found["proposals"], found["regions"]) == (2, 2)
    assert "maps" not in found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["model.cache=null"], "give one with model.cache=FOLDER"),
        (["model.cache=x", "stages=[pictures]"], "choose of proposals, regions, texts, maps"),
        (["model.cache=x", "stages=[]"], "choose of proposals, regions, texts, maps"),
        (["model.cache=x", "shard=2/2"], "shard=2/2 is no part"),
        (["model.cache=x", "accelerator=tpu"], "none of auto, cpu, cuda"),
    ],
)
def test_what_cannot_be_filled_is_refused(given, said, data):
    with pytest.raises(S4ecaError, match=said):
        fill_stages(composed("dgl_fill", "model=dgl_rsis_tiny", "image_size=64", *data, *given))


def test_shards():
    assert parse_shard("3/8") == (3, 8)
    for wrong in ("8/8", "1", "-1/2", "a/b", "1/0", "1/2/3"):
        with pytest.raises(S4ecaError, match="shard="):
            parse_shard(wrong)


def test_recall_of_the_oracle_is_whole(data, tmp_path):
    out = tmp_path / "recall.json"
    measure_recall(composed("dgl_recall", "proposer=oracle", "image_size=64", *data, "accelerator=cpu", f"out={out}"))
    assert json.loads(out.read_text())["mean_best_iou"] == 1
    found = measure_recall(composed("dgl_recall", "proposer=slic", "image_size=64", *data, "accelerator=cpu"))
    assert 0.05 < found < 1


def test_a_sweep_finds_the_best_setting(data, tmp_path, capsys):
    cache, out = tmp_path / "cache", tmp_path / "sweep.csv"
    given = ["model=dgl_rsis_tiny", "image_size=64", *data, f"model.cache={cache}", "accelerator=cpu", f"out={out}"]
    fill(*data, f"model.cache={cache}")
    space = ["~space.coverage_weight", "~space.normalise", "~space.map", "space.lam=[1.0]", "space.alpha=[0.0,1.0]"]
    best = sweep_settings(composed("dgl_sweep", *given, *space))
    rows = list(csv.DictReader(out.open()))
    assert [set(row) for row in rows] == [{"alpha", "lam", "mIoU", "oIoU", "fallbacks"}] * 2
    assert float(rows[0]["mIoU"]) == pytest.approx(best)
    assert float(rows[0]["mIoU"]) >= float(rows[1]["mIoU"])
    said = capsys.readouterr().out
    assert f"selector.alpha={rows[0]['alpha']}" in said
    assert "2 settings on 5 samples" in said

    # the same number as an evaluation with that setting
    from runs import evaluate_here

    fixed = [f"selector.alpha={rows[0]['alpha']}", "selector.lam=1.0", "split=val", "pictures=0", "bootstrap=0"]
    evaluate_here(
        "model=dgl_rsis_tiny",
        "image_size=64",
        *data,
        "data.num_workers=0",
        "trainer.accelerator=cpu",
        *fixed,
        f"model.cache={cache}",
        f"out={tmp_path / 'eval'}",
    )
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["protocols"]["lavt"]["mIoU"] == pytest.approx(best)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["split=test"], "never on what is reported"),
        (["+space.beta=[1]"], "space.beta is no setting of the selector"),
        (["space.alpha=[2.0]"], "alpha"),
    ],
)
def test_what_cannot_be_swept_is_refused(given, said, data):
    with pytest.raises(S4ecaError, match=said):
        sweep_settings(composed("dgl_sweep", "model=dgl_rsis_tiny", "image_size=64", *data, *given))


def test_every_space_fits_its_selector(data):
    from s4eca.build import instantiate
    from s4eca.cli.config import plain
    from s4eca.dgl_rsis.sweep import combine

    for path in (ROOT / "conf" / "space").glob("*.yaml"):
        config = plain(composed("dgl_sweep", f"selector={path.stem}", f"space={path.stem}"))
        assert combine(config["space"], instantiate(config["selector"], "selector"))


def test_the_commands_are_listed():
    said = CliRunner().invoke(app, ["dgl", "--help"]).output
    assert all(name in said for name in ("fill", "recall", "sweep"))
