import csv
import io
import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from s4eca.cli.table import table
from s4eca.errors import S4ecaError
from s4eca.evaluation.tables.published import SCORES

APP = typer.Typer()
APP.command()(table)


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one method on RRSIS-D test, the second one evaluated on the validation split as well."""
    for seed, split, miou in ((0, "test", 0.5), (1, "test", 0.7), (1, "val", 0.6)):
        scores = {**dict.fromkeys(SCORES, 0.25), "mIoU": miou, "n": 3481 if split == "test" else 1740, "n_empty": 0}
        about = {"name": "mine", "dataset": "rrsis_d", "split": split, "seed": seed, "image_size": 480}
        folder = tmp_path / f"run{seed}" / "eval" / f"best_{split}"
        folder.mkdir(parents=True)
        content = {"about": about, "protocols": {"lavt": scores, "original": {**scores, "mIoU": 0.1}}}
        (folder / "metrics.json").write_text(json.dumps(content))
    return [str(tmp_path / "run0"), str(tmp_path / "run1")]


def call(*arguments: str) -> str:
    result = CliRunner().invoke(APP, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def rows(*arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(call(*arguments, "--format", "csv"))))


def test_runs_stand_among_all_published_rows_of_their_splits(runs):
    printed = rows(*runs)
    assert [(row["split"], row["method"]) for row in printed if row["kind"] == "run"] == [
        ("test", "mine"),
        ("val", "mine"),
    ]
    assert sum(row["split"] == "test" for row in printed) == 22 + 1
    assert sum(row["split"] == "val" for row in printed) == 7 + 1
    # 0.5 and 0.7: mean 0.6, sample deviation sqrt(0.02)
    (merged,) = (row for row in printed if row["kind"] == "run" and row["split"] == "test")
    assert (merged["mIoU"], merged["mIoU deviation"], merged["n_seeds"], merged["seeds"]) == (
        "60.00",
        "14.14",
        "2",
        "0 1",
    )


def test_filters(runs):
    assert {row["split"] for row in rows(*runs, "--split", "val")} == {"val"}
    assert [row["method"] for row in rows(*runs, "--split", "test", "--published", "none")] == ["mine"]
    chosen = rows(*runs, "--split", "test", "--published", "lavt, RSREFSEG-1")
    assert [row["method"] for row in chosen] == ["RSRefSeg-1", "LAVT", "mine"]
    apart = rows(*runs, "--split", "test", "--published", "none", "--no-group")
    assert [row["method"] for row in apart] == ["mine (seed 1)", "mine (seed 0)"]


def test_protocol_and_order(runs):
    other = rows(*runs, "--split", "test", "--protocol", "original", "--published", "lavt")
    assert [(row["method"], row["mIoU"], row["marks"]) for row in other] == [
        ("LAVT", "61.04", "other-protocol"),
        ("mine", "10.00", ""),
    ]
    # LAVT 69.52, LGCE 67.65 at 0.5, the run 25; LAVT 41.60, LGCE 39.62 at 0.8
    for score in ("Pr@0.5", "pr@.8", "oiou"):
        ordered = rows(*runs, "--split", "test", "--published", "lgce,lavt", "--sort", score)
        assert [row["method"] for row in ordered] == ["LAVT", "LGCE", "mine"]


def test_markdown_is_the_default_and_out_is_written_whole(runs, tmp_path):
    printed = call(*runs)
    assert printed.startswith("### RRSIS-D test, protocol lavt, in percent\n\n| method ")
    out = tmp_path / "new" / "table.md"
    assert call(*runs, "--out", str(out)) == f"{out}\n"
    assert out.read_text() == printed
    assert call(*runs, "--format", "latex").startswith("% needs \\usepackage{booktabs}\n\\begin{table*}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "html"], "There is no format 'html': choose one of markdown, latex, csv"),
        (["--protocol", "coco"], "There is no protocol 'coco'"),
        (["--protocol", "detris"], "has no scores of the protocol detris, only of lavt, original"),
        (["--sort", "IoU"], "Rows cannot be sorted by 'IoU'"),
        (["--dataset", "refsegrs"], "None of the 3 evaluations is of refsegrs; there are rrsis_d test, rrsis_d val."),
        (["--split", "train"], "None of the 3 evaluations is of train"),
        (["--published", "lavt,nobody"], "names no published method (nobody): use all, none, or some of LGCE, LAVT"),
        (["--published", ""], "names no published method (it is empty)"),
        (["--out", "."], ". is a folder: name a file"),
    ],
)
def test_mistakes_are_named(runs, arguments, message):
    with pytest.raises(S4ecaError, match=re.escape(message)):
        call(*runs, *arguments)


def test_a_folder_without_evaluation_and_a_damaged_file_are_named(runs, tmp_path):
    with pytest.raises(S4ecaError, match="holds neither metrics"):
        call(*runs, str(tmp_path))
    damaged = Path(runs[0]) / "eval" / "best_test" / "metrics.json"
    damaged.write_text(damaged.read_text()[:100])
    with pytest.raises(S4ecaError, match=re.escape(f"{damaged} is damaged, it is not JSON")):
        call(*runs)
