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
        (["--plot", "a.jpg"], "a.jpg does not end in .png, .svg, .pdf, which decides the plot's format"),
        (["--plot", "png"], "png does not end in .png, .svg, .pdf"),
        (["--plot", "/proc/none/a.png"], "/proc/none cannot be made"),
        (["--plot", "a.svg", "--out", "./a.svg"], "--out and --plot both name a.svg"),
        (["--plot", "a.svg"], "A plot shows one dataset and split, and there are rrsis_d test, rrsis_d val"),
        (["--plot", "a.svg", "--split", "test"], "There is nothing to plot: no run has mIoU and its method's share"),
    ],
)
def test_mistakes_are_named(runs, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(S4ecaError, match=re.escape(message)):
        call(*runs, *arguments)
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_ending_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(S4ecaError, match=re.escape("a.gif does not end in")):
        call(str(tmp_path / "nothing"), "--plot", "a.gif")


@pytest.fixture
def measured(runs):
    """The same evaluations of a method of 2.5 % with what their training cost: 4 samples keep 40 MiB."""
    for seed, file in enumerate(Path(run) / "eval" / "best_test" / "metrics.json" for run in runs):
        content = json.loads(file.read_text())
        content["about"] |= {
            "method_share": 0.025,
            "learned_parameters": {"method": 5_000_000, "decoder": 1_000_000},
            "cost": {
                "saved_bytes": {"towers_and_method": 2**20, "step": 40 * 2**20},
                "peak_bytes": None,
                "step_seconds": {"median": 0.1 + 0.02 * seed, "q1": 0.1, "q3": 0.2, "steps": 200},
                "batch_size": 4,
                "device": "cpu",
                "precision": "32-true",
            },
        }
        file.write_text(json.dumps(content))
    return [*runs, "--split", "test"]


def test_cost_shows_the_runs_alone_unless_published_results_are_asked_for(measured):
    (row,) = rows(*measured, "--cost")
    assert (row["% of towers"], row["learned M"], row["kept MiB/sample"]) == ("2.5", "6", "10")
    # 100 and 120 ms: mean 110, sample deviation sqrt(200)
    assert (row["step ms"], row["step ms deviation"], row["mIoU"]) == ("110", "14.1421", "60.00")
    both = rows(*measured, "--cost", "--published", "lavt")
    assert [(row["method"], row["% of towers"], row["step ms"]) for row in both] == [
        ("LAVT", "", ""),
        ("mine", "2.5", "110"),
    ]
    assert "% of towers" not in rows(*measured)[0]
    assert len(rows(*measured)) == 22 + 1


def test_plot_is_written_beside_the_table(measured, tmp_path):
    plot = tmp_path / "new" / "plot.svg"
    result = CliRunner().invoke(APP, [*measured, "--cost", "--plot", str(plot), "--sort", "oiou"])
    assert result.exit_code == 0
    assert result.stdout == call(*measured, "--cost", "--sort", "oIoU")
    assert result.stderr == f"{plot}\n"
    assert "oIoU (%)" in plot.read_text()


def test_runs_without_cost_are_named_when_plotting(measured, tmp_path):
    file = Path(measured[1]) / "eval" / "best_test" / "metrics.json"
    content = json.loads(file.read_text())
    content["about"] |= {"cost": None, "name": "other"}
    file.write_text(json.dumps(content))
    result = CliRunner().invoke(APP, [*measured, "--plot", str(tmp_path / "plot.png")])
    assert result.exit_code == 0
    message = "Not drawn against memory kept for the backward pass, as that or mIoU is not known: other."
    assert message in result.stderr
    assert "method's learned parameters" not in result.stderr


def test_a_folder_without_evaluation_and_a_damaged_file_are_named(runs, tmp_path):
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(S4ecaError, match="holds neither metrics"):
        call(*runs, str(tmp_path / "empty"))
    damaged = Path(runs[0]) / "eval" / "best_test" / "metrics.json"
    damaged.write_text(damaged.read_text()[:100])
    with pytest.raises(S4ecaError, match=re.escape(f"{damaged} is damaged, it is not JSON")):
        call(*runs)
