import re

import typer
from typer.testing import CliRunner

from coco_scenes import write_coco
from s4eca.cli.expressions import expressions
from s4eca.data import detect_layout
from s4eca.data.readers.refer import read_refer

app = typer.Typer()
app.command()(expressions)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_prints_kinds_splits_and_what_was_left_out(tmp_path):
    path, folder = write_coco(tmp_path, edit=lambda content: content["annotations"][0].update(iscrowd=1))
    result = run(path, folder, tmp_path / "boxes", "--block", 2, "--per-kind", 1, "--seed", 4)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    found = re.match(r".*boxes: (\d+) expressions about (\d+) of (\d+) instances in (\d+) images, read by", lines[0])
    total, targets, instances, images = map(int, found.groups())
    rows = {line.split()[0]: list(map(int, line.split()[1:])) for line in lines[2:9]}
    assert lines[1].split() == ["train", "val", "test"]
    assert list(rows) == ["class", "place", "extreme", "size", "ordinal", "relation", "images"]
    assert sum(rows.pop("images")) == images <= 20
    assert targets <= instances
    assert detect_layout(tmp_path / "boxes") == "refer"
    sizes = [len(read_refer(tmp_path / "boxes", split, expected={})) for split in ("train", "val", "test")]
    assert [sum(column) for column in zip(*rows.values(), strict=True)] == sizes
    assert sum(sizes) == total
    assert "left out: 1 crowds, of which no instance can be told (the first: annotation 1)" in lines


def test_options(tmp_path):
    path, folder = write_coco(tmp_path)
    (folder / "3.png").unlink()
    result = run(
        path, folder, tmp_path / "out", "--layout", "jsonl", "--name", "boxes", "--block", 1, "--val", 0.2,
        "--test", 0.3, "--images", "copy", "--skip-missing",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "read by data=jsonl" in result.output
    images = next(line for line in result.output.splitlines() if line.startswith("images"))
    assert list(map(int, images.split()[1:])) == [9, 4, 6]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "boxes_train.jsonl", "boxes_val.jsonl", "boxes_test.jsonl", "images", "expressions.json",
    }  # fmt: skip
    assert not any(path.is_symlink() for path in (tmp_path / "out/images").iterdir())
