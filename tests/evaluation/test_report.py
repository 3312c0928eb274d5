import csv
import io
import json
import math

import pytest
from rich.console import Console

from s4eca.errors import S4ecaError
from s4eca.evaluation.report import dump_metrics, metrics_table, write_metrics

VALUES = {"mIoU": 0.65432, "oIoU": 0.7, "Pr@0.5": 0.9, "Pr@0.6": 0.8, "Pr@0.7": 0.75, "Pr@0.8": 0.5, "Pr@0.9": 0.123456}


def scores(n: int = 4, n_empty: int = 1, n_no_target: int = 0) -> dict[str, float]:
    nonempty = {f"nonempty/{name}": value / 2 for name, value in VALUES.items()}
    counts = {"n": n, "n_empty": n_empty, "n_no_target": n_no_target}
    accuracy = {"N-acc": 1 / 3 if n_no_target else math.nan, "T-acc": 0.975}
    return VALUES | counts | accuracy | nonempty | {"nonempty/n": n - n_empty}


def summary(protocols: dict[str, dict[str, float]], replicates: int = 0, **parts) -> dict:
    """What `summarise_evaluation` returns; intervals reach from a tenth below to a tenth above."""
    names = [*VALUES, "N-acc", "T-acc"]
    bounds = {}
    if replicates:
        for protocol, values in protocols.items():
            bounds[protocol] = {name: [values[name] - 0.1, values[name] + 0.1] for name in names}
    intervals = {"confidence": 0.95, "replicates": replicates, "seed": 0, "protocols": bounds}
    rest = {"categories": {}, "sizes": {"pixels": {}, "share": {}}}
    return {"about": {"dataset": "rrsis_d"}, "protocols": protocols, "intervals": intervals, **rest, **parts}


def text(table) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text().splitlines()


def printed(table) -> list[list[str]]:
    return [line.split() for line in text(table)]


def test_table_is_in_the_fields_order_and_percent():
    lines = printed(metrics_table(summary({"lavt": scores(n_empty=0)}), "RRSIS-D test"))
    assert lines[0] == ["RRSIS-D", "test"]
    assert ["protocol", "Pr@.5", "Pr@.6", "Pr@.7", "Pr@.8", "Pr@.9", "oIoU", "mIoU", "n"] in lines
    assert ["lavt", "90.00", "80.00", "75.00", "50.00", "12.35", "70.00", "65.43", "4"] in lines
    assert sum(line[:1] == ["lavt"] for line in lines) == 1
    words = {word for line in lines for word in line}
    assert not words & {"non-empty", "95%", "N-acc", "T-acc"}


def test_table_prints_both_counts_where_truths_are_empty():
    lines = printed(metrics_table(summary({"original": scores()}), ""))
    assert ["original", "90.00", "80.00", "75.00", "50.00", "12.35", "70.00", "65.43", "4"] in lines
    assert ["non-empty", "45.00", "40.00", "37.50", "25.00", "6.17", "35.00", "32.72", "3"] in lines


def test_table_prints_the_interval_of_every_score_below_it():
    lines = printed(metrics_table(summary({"original": scores(), "lavt": scores()}, replicates=100), ""))
    place = lines.index(["original", "90.00", "80.00", "75.00", "50.00", "12.35", "70.00", "65.43", "4"])
    assert lines[place + 1] == ["95%", "from", "80.00", "70.00", "65.00", "40.00", "2.35", "60.00", "55.43"]
    assert lines[place + 2] == ["95%", "to", "100.00", "90.00", "85.00", "60.00", "22.35", "80.00", "75.43"]
    assert sum(line[:2] == ["95%", "to"] for line in lines) == 2


def test_no_target_samples_add_a_table_of_their_own():
    with_some = {"original": scores(n=40, n_no_target=3), "lavt": scores(n=40, n_no_target=3)}
    lines = printed(metrics_table(summary(with_some, replicates=100), ""))
    assert ["protocol", "N-acc", "T-acc", "n", "no-target", "n", "target"] in lines
    place = lines.index(["original", "33.33", "97.50", "3", "40"])
    assert lines[place + 1] == ["95%", "from", "23.33", "87.50"]
    assert ["lavt", "33.33", "97.50", "3", "40"] in lines


def test_the_widest_table_fits_80_columns():
    widest = dict.fromkeys(VALUES, 1.0) | dict.fromkeys((f"nonempty/{name}" for name in VALUES), 1.0)
    full = scores(n=16_159, n_empty=1, n_no_target=5) | widest
    lines = text(metrics_table(summary({"original": full}, replicates=10), ""))
    assert not any("…" in line for line in lines)
    for name, count in (("original", "16159"), ("  non-empty", "16158")):
        (line,) = [line for line in lines if line.startswith(f"  {name} ") and "100.00" in line]
        assert line.split()[-8:] == ["100.00"] * 7 + [count]


def test_table_of_no_samples():
    nothing = dict.fromkeys(scores(), math.nan) | {"n": 0, "n_empty": 0, "n_no_target": 0}
    assert ["lavt", *["-"] * 7, "0"] in printed(metrics_table(summary({"lavt": nothing}), ""))


def test_files_hold_fractions_of_every_protocol(tmp_path):
    content = summary({"original": scores(n_no_target=2), "detris": scores(n=9, n_no_target=2)}, replicates=5)
    as_json, as_csv = write_metrics(tmp_path / "run" / "eval", content)
    assert as_json == tmp_path / "run" / "eval" / "metrics.json"
    assert json.loads(as_json.read_text()) == content
    lines = read(as_csv)
    assert [(line["protocol"], line["group"]) for line in lines] == [
        ("original", "all"),
        ("original", "nonempty"),
        ("detris", "all"),
        ("detris", "nonempty"),
    ]
    for line, protocol in zip(lines[::2], content["protocols"], strict=True):
        values = content["protocols"][protocol]
        for name in (*VALUES, "n", "n_empty", "n_no_target", "N-acc", "T-acc"):
            assert float(line[name]) == values[name]
        low, high = content["intervals"]["protocols"][protocol]["oIoU"]
        assert (float(line["oIoU low"]), float(line["oIoU high"])) == (low, high)
    assert float(lines[1]["mIoU"]) == VALUES["mIoU"] / 2
    assert (lines[1]["n"], lines[1]["n_empty"], lines[1]["oIoU low"]) == ("3", "", "")


def test_groups_are_lines_of_the_csv(tmp_path):
    group = {"mIoU": 0.5, "n": 2, "N-acc": math.nan}
    content = summary(
        {"lavt": scores()},
        categories={"lavt": {"ship": group, "dam, large": group}},
        sizes={"pixels": {"lavt": {"small": group}}, "share": {"lavt": {"below 0.1%": group}}},
    )
    lines = read(write_metrics(tmp_path, content)[1])
    assert [line["group"] for line in lines] == [
        "all",
        "nonempty",
        "category:ship",
        "category:dam, large",
        "pixels:small",
        "share:below 0.1%",
    ]
    for line in lines[2:]:
        assert (line["protocol"], line["mIoU"], line["n"], line["N-acc"], line["oIoU"]) == ("lavt", "0.5", "2", "", "")


def test_values_that_are_missing_are_null_and_blank(tmp_path):
    content = summary({"lavt": {"mIoU": math.nan, "n": 0}})
    content["intervals"]["protocols"] = {"lavt": {"mIoU": [math.nan, math.nan]}}
    as_json, as_csv = write_metrics(tmp_path, content)
    stored = json.loads(as_json.read_text())
    assert stored["protocols"] == {"lavt": {"mIoU": None, "n": 0}}
    assert stored["intervals"]["protocols"]["lavt"]["mIoU"] == [None, None]
    line = read(as_csv)[0]
    assert (line["n"], line["mIoU"], line["mIoU low"]) == ("0", "", "")


def test_a_single_file_holds_the_same(tmp_path):
    content = summary({"lavt": scores()})
    dump_metrics(tmp_path / "scores.json", content)
    write_metrics(tmp_path, content)
    assert (tmp_path / "scores.json").read_bytes() == (tmp_path / "metrics.json").read_bytes()


def test_files_are_replaced_as_a_whole(tmp_path, monkeypatch):
    write_metrics(tmp_path, summary({"lavt": scores()}))
    before = (tmp_path / "metrics.json").read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(S4ecaError, match="disk full"):
        write_metrics(tmp_path, summary({"lavt": scores(n=5)}))
    assert (tmp_path / "metrics.json").read_bytes() == before
    monkeypatch.undo()
    write_metrics(tmp_path, summary({"lavt": scores(n=6)}))
    assert json.loads((tmp_path / "metrics.json").read_text())["protocols"]["lavt"]["n"] == 6


def read(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_kinds_of_expressions_have_a_table_and_lines_in_csv(tmp_path):
    protocols = {"lavt": scores(), "original": scores()}
    kinds = {"lavt": {"place": scores(3) | {"mIoU": 0.25}}, "original": {"place": scores(3) | {"mIoU": 0.5}}}
    content = summary(protocols, kinds=kinds)
    lines = printed(metrics_table(content, ""))
    assert ["kind", "mIoU", "lavt", "mIoU", "original", "n"] in lines
    assert ["place", "25.00", "50.00", "3"] in lines
    _, path = write_metrics(tmp_path, content)
    rows = {(row["protocol"], row["group"]): row for row in csv.DictReader(path.open())}
    assert rows["original", "kind:place"]["mIoU"] == "0.5"
