import csv
import io
import json
import math

import pytest
from rich.console import Console

from s4eca.evaluation.report import metrics_table, write_metrics

VALUES = {"mIoU": 0.65432, "oIoU": 0.7, "Pr@0.5": 0.9, "Pr@0.6": 0.8, "Pr@0.7": 0.75, "Pr@0.8": 0.5, "Pr@0.9": 0.123456}


def scores(n: int = 4, n_empty: int = 1) -> dict[str, float]:
    nonempty = {f"nonempty/{name}": value / 2 for name, value in VALUES.items()}
    return VALUES | {"n": n, "n_empty": n_empty} | nonempty | {"nonempty/n": n - n_empty}


def printed(table):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return [line.split() for line in console.export_text().splitlines()]


def test_table_is_in_the_fields_order_and_percent():
    lines = printed(metrics_table({"lavt": scores(n_empty=0)}, "RRSIS-D test"))
    assert lines[0] == ["RRSIS-D", "test"]
    assert ["protocol", "Pr@.5", "Pr@.6", "Pr@.7", "Pr@.8", "Pr@.9", "oIoU", "mIoU", "n"] in lines
    assert ["lavt", "90.00", "80.00", "75.00", "50.00", "12.35", "70.00", "65.43", "4"] in lines
    assert sum(line[:1] == ["lavt"] for line in lines) == 1
    assert ["non-empty"] not in [line[:1] for line in lines]


def test_table_prints_both_counts_where_truths_are_empty():
    lines = printed(metrics_table({"original": scores()}, ""))
    assert ["original", "90.00", "80.00", "75.00", "50.00", "12.35", "70.00", "65.43", "4"] in lines
    assert ["non-empty", "45.00", "40.00", "37.50", "25.00", "6.17", "35.00", "32.72", "3"] in lines


def test_table_of_no_samples():
    nothing = dict.fromkeys(scores(), math.nan) | {"n": 0, "n_empty": 0}
    assert ["lavt", *["-"] * 7, "0"] in printed(metrics_table({"lavt": nothing}, ""))


def test_files_hold_fractions_of_every_protocol(tmp_path):
    results = {"original": scores(), "detris": scores(n=9)}
    as_json, as_csv = write_metrics(tmp_path / "run" / "eval", results)
    assert as_json == tmp_path / "run" / "eval" / "metrics.json"
    stored = json.loads(as_json.read_text())
    assert list(stored) == ["protocols"]
    assert stored["protocols"] == results
    with as_csv.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["protocol"] for line in lines] == ["original", "detris"]
    assert [{name: float(line[name]) for name in scores()} for line in lines] == list(results.values())


def test_values_that_are_missing_are_null_and_blank(tmp_path):
    as_json, as_csv = write_metrics(tmp_path, {"lavt": {"mIoU": math.nan, "n": 0}})
    assert json.loads(as_json.read_text()) == {"protocols": {"lavt": {"mIoU": None, "n": 0}}}
    assert as_csv.read_text() == "protocol,mIoU,n\nlavt,,0\n"


def test_files_are_replaced_as_a_whole(tmp_path, monkeypatch):
    write_metrics(tmp_path, {"lavt": scores()})
    before = (tmp_path / "metrics.json").read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_metrics(tmp_path, {"lavt": scores(n=5)})
    assert (tmp_path / "metrics.json").read_bytes() == before
    monkeypatch.undo()
    write_metrics(tmp_path, {"lavt": scores(n=6)})
    assert json.loads((tmp_path / "metrics.json").read_text())["protocols"]["lavt"]["n"] == 6
