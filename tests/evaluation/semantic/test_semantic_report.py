import csv
import io
import json
import math

import pytest
from rich.console import Console

from made_semantic import make_semantic
from s4eca.data.semantic.palette import ISAID_LABELS
from s4eca.errors import S4ecaError
from s4eca.evaluation.page.wording import NOTHING
from s4eca.evaluation.semantic.report import semantic_tables, write_semantic_metrics
from s4eca.evaluation.tables.runs import find_runs

SUBSET = {"images": 3, "of": 11644, "seed": 4}


def printed(summary, title: str = "iSAID val") -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(semantic_tables(summary, title))
    return console.export_text().splitlines()


def test_the_tables_have_every_score_in_percent_within_80_columns():
    summary, _ = make_semantic()
    lines = printed(summary)
    assert all(len(line) <= 80 for line in lines)
    words = [line.split() for line in lines]
    assert ["mIoU16", "mIoU15", "pixel", "acc.", "mAcc", "images"] in words
    scores = summary["scores"]
    wanted = [f"{100 * scores[name]:.2f}" for name in ("mIoU16", "mIoU15", "pixel_accuracy", "mAcc")]
    assert [*wanted, "3"] in words
    for label in ISAID_LABELS:
        assert sum(line.split()[:-4] == label.split() for line in lines) == 1, label
    assert ["harbor", *[NOTHING] * 3, "0.00"] in words
    ship = summary["classes"]["ship"]
    share = ship["truth_pixels"] / scores["pixels"]
    assert [
        "ship",
        *(f"{100 * value:.2f}" for value in (ship["IoU"], ship["recall"], ship["precision"], share)),
    ] in words
    assert "Only" not in " ".join(lines)


def test_a_part_of_a_split_is_flagged():
    summary, _ = make_semantic(subset=SUBSET)
    assert "Only 3 of 11,644 images were scored, drawn with seed 4." in " ".join(printed(summary))


def test_the_files_hold_the_fractions(tmp_path):
    summary, _ = make_semantic()
    as_json, as_csv = write_semantic_metrics(tmp_path / "new", summary)
    read = json.loads(as_json.read_text())
    assert read["classes"]["harbor"]["IoU"] is None
    assert read["scores"] == summary["scores"]
    assert read["about"] == summary["about"]
    with as_csv.open(newline="") as stream:
        lines = {line.pop("group"): line for line in csv.DictReader(stream)}
    assert list(lines) == ["all", *(f"class:{label}" for label in ISAID_LABELS)]
    assert float(lines["all"]["mIoU15"]) == summary["scores"]["mIoU15"]
    assert (lines["all"]["IoU"], lines["class:harbor"]["IoU"], lines["class:ship"]["mIoU15"]) == ("", "", "")
    assert float(lines["class:ship"]["precision"]) == summary["classes"]["ship"]["precision"]
    assert math.isnan(summary["classes"]["harbor"]["IoU"])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["metrics.csv", "metrics.json"]


def test_a_table_of_referring_runs_refuses_it_with_a_sentence(tmp_path):
    summary, _ = make_semantic()
    write_semantic_metrics(tmp_path, summary)
    with (
        pytest.warns(UserWarning, match="1 evaluations of label maps are left out"),
        pytest.raises(S4ecaError, match="There is no evaluation of expressions in"),
    ):
        find_runs([tmp_path])
