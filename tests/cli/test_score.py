import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from layouts import HEIGHT, WIDTH, box_mask, write_rrsis_d
from s4eca.cli.score import compose, score, sort_arguments
from s4eca.errors import S4ecaError
from s4eca.evaluation.predictions import write_predictions
from s4eca.evaluation.results import read_evaluation

TEST_IDS = (119, 122, 125)  # 101 + 3 x position; the test split comes last

app = typer.Typer()
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(score)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_rrsis_d(tmp_path / "data", train=4, val=2, test=3)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """The truth of two test references, and nothing for the third."""
    masks = [(str(id), box_mask(id) if id != 125 else np.zeros((HEIGHT, WIDTH), bool)) for id in TEST_IDS]
    return write_predictions(tmp_path / "model.json", "rle", masks)


def run(*arguments: str | Path) -> str:
    with pytest.warns(UserWarning, match="references where"):  # fewer than RRSIS-D has
        result = CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str | Path) -> str:
    with pytest.raises(S4ecaError) as caught:
        CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False)
    return str(caught.value)


def test_the_command_writes_the_scores(tmp_path, root, predictions):
    out = tmp_path / "new" / "scores.json"
    printed = run(predictions, "data=rrsis_d", f"data.root={root}", "data.split=test", "--out", out)
    content = json.loads(out.read_text())
    assert list(content) == ["about", "protocols", "intervals", "categories", "sizes"]
    assert list(content["protocols"]) == ["lavt", "original", "detris"]
    scores = content["protocols"]["original"]
    assert scores["mIoU"] == 2 / 3
    assert scores["oIoU"] == 2 / 3  # the boxes are of one size
    assert [scores[f"Pr@0.{tenth}"] for tenth in (5, 6, 7, 8, 9)] == [2 / 3] * 5
    assert scores["n"] == 3
    low, high = content["intervals"]["protocols"]["original"]["mIoU"]
    assert 0 <= low <= 2 / 3 <= high <= 1
    about = content["about"]
    assert (about["dataset"], about["split"], about["name"], about["seed"]) == ("rrsis_d", "test", "scores", None)
    assert (about["predictions"], about["format"], about["at"], about["image_size"]) == (
        "model.json",
        "rle",
        "original",
        480,
    )
    assert list(about["notes"]) == ["lavt", "original", "detris"]
    assert "66.67" in printed
    assert "scores.json" in printed


def test_the_order_of_arguments_does_not_matter(tmp_path, root, predictions):
    out = tmp_path / "scores.json"
    groups = ([str(predictions)], ["data=rrsis_d", f"data.root={root}", "bootstrap=0"], ["--out", str(out)])
    written = set()
    for first in range(3):
        run(*itertools.chain(*groups[first:], *groups[:first]))
        written.add(out.read_text())
        out.unlink()
    assert len(written) == 1


def test_a_folder_gets_everything(tmp_path, root, predictions):
    folder = tmp_path / "eval"
    stated = ("made_by.tuning=lora", "made_by.vision=Swin-B", "made_by.text=BERT-base")
    data = ("data=rrsis_d", f"data.root={root}")
    run(predictions, *data, "bootstrap=0", "name=mine", "seed=3", *stated, "--folder", folder)
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "metrics.csv", "samples.parquet"}
    evaluation = read_evaluation(folder)
    assert [sample.id for sample in evaluation.samples] == [str(id) for id in TEST_IDS]
    assert [sample.size for sample in evaluation.samples] == [(HEIGHT, WIDTH)] * 3
    assert [sample.area for sample in evaluation.samples] == [54] * 3
    assert evaluation.rows["original"][:, 1].tolist() == [54, 54, 0]
    about = evaluation.about
    assert (about["name"], about["seed"], about["tuning"]) == ("mine", 3, "lora")
    assert about["backbones"] == {"vision": {"name": "Swin-B"}, "text": {"name": "BERT-base"}}
    assert about["predictions_sha256"] == hashlib.sha256(predictions.read_bytes()).hexdigest()


def test_at_input_size(tmp_path, root):
    masks = write_predictions(tmp_path / "p.npz", "npz", [(str(id), np.ones((10, 10), bool)) for id in TEST_IDS])
    out = tmp_path / "scores.json"
    data = ("data=rrsis_d", f"data.root={root}", "bootstrap=0", "image_size=10")
    run(masks, *data, "at=input", "--out", out)
    assert list(json.loads(out.read_text())["protocols"]) == ["lavt"]
    with pytest.warns(UserWarning, match="references where"):
        assert "at=input image_size=10" in refused(masks, *data, "--out", out)


def test_another_split_has_other_ids(root, predictions, tmp_path):
    out = tmp_path / "scores.json"
    with pytest.warns(UserWarning, match="references where"):
        message = refused(
            predictions, "data=rrsis_d", f"data.root={root}", "data.split=val", "bootstrap=0", "--out", out
        )
    assert "2 of 2 references have no prediction (113, 116)" in message
    assert "3 of 3 predictions are for no reference (119, 122, 125)" in message
    assert not out.exists()


def test_paths_are_told_from_overrides(tmp_path):
    swept = tmp_path / "lr=0.1" / "p.json"
    swept.parent.mkdir()
    swept.touch()
    assert sort_arguments([str(swept), "data=rrsis_d"]) == (swept, ["data=rrsis_d"])
    assert sort_arguments(["data=rrsis_d", str(swept), "seed=1"]) == (swept, ["data=rrsis_d", "seed=1"])
    assert sort_arguments(["absent.json"]) == (Path("absent.json"), [])
    with pytest.raises(S4ecaError, match=r"2 were given \(a.json, b.json\)"):
        sort_arguments(["a.json", "b.json", "data=rrsis_d"])
    with pytest.raises(S4ecaError, match="0 were given"):
        sort_arguments(["data=rrsis_d"])
    with pytest.raises(S4ecaError, match="no option --split"):
        sort_arguments(["a.json", "--split", "val"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=absent"], "absent"),
        ([], "You must specify 'data'"),
        (["data=rrsis_d", "data.roots=x"], "roots"),
        (["data=rrsis_d", "data.root=[x"], "root=.x has characters"),
        (["data=checkpoint"], "data=checkpoint belongs to eval.py"),
        (["data=rrsis_d", "image_size=0"], "image_size=0"),
        (["data=rrsis_d", "image_size=large"], "image_size=large"),
        (["data=rrsis_d", "bootstrap=-1"], "bootstrap=-1"),
        (["data=rrsis_d", "seed=first"], "seed=first"),
    ],
)
def test_overrides_that_cannot_be(overrides, message):
    with pytest.raises(S4ecaError, match=message) as caught:
        compose(overrides)
    assert "\n" not in str(caught.value)


def test_every_dataset_can_hold_the_truth():
    for name in ("rrsis_d", "refsegrs", "synthetic"):
        config, split, seed = compose([f"data={name}", "data.split=val", "image_size=64"])
        assert (split, seed) == ("val", None)
        assert config["data"]["image_size"] == 64
        assert "split" not in config["data"]


def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, root, predictions):
    data = ("data=rrsis_d", f"data.root={root}")
    assert "There are no predictions" in refused(tmp_path / "absent", *data)
    assert "is a folder" in refused(predictions, *data, "--out", tmp_path)
    assert "cannot be made" in refused(predictions, *data, "--out", predictions / "scores.json")
    assert "cannot be made" in refused(predictions, *data, "--folder", predictions)
    assert "data.root" in refused(predictions, "data=rrsis_d", f"data.root={tmp_path / 'absent'}")
    with pytest.warns(UserWarning, match="references where"):
        assert "at=model" in refused(predictions, *data, "at=model")
    assert "There is no split 'dev'" in refused(predictions, *data, "data.split=dev")
