"""Runs the benchmark of methods in small; what it counts is checked, its times only for order."""

import json
from pathlib import Path

import pytest

from s4eca.cost import saved_bytes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def methods(script):
    return script("methods")


def test_every_config_of_a_method_is_a_row(methods):
    named = {override.removeprefix("tuning=") for overrides in methods.ROWS.values() for override in overrides[:1]}
    # sizes and recipes of methods that are there already
    others = {"s4eca_demo", "s4eca_compare", "full_lavt"}
    assert {path.stem for path in (ROOT / "conf" / "tuning").glob("*.yaml")} - others <= named


def test_counts_times_and_refusals(methods, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(methods.ROWS, "wrong", ["tuning=lora", methods.NONE])
    monkeypatch.setitem(methods.ROWS, "absent", ["tuning=unheard_of"])
    monkeypatch.setitem(methods.GROUP, "tiny", 3)
    only = ["full", "s4eca-side", "s4eca-cached", "lora", "wrong", "absent"]
    out = tmp_path / "methods.json"
    assert methods.main(["--only", ",".join(only), "--rounds", "2", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == only

    full, side, cached, lora = (rows[name]["cost"] for name in only[:4])
    assert full["percent"] == 100
    assert full["method"] == full["towers"]
    assert side["saved"]["towers_and_method"] < full["saved"]["towers_and_method"]
    assert side["saved"] == cached["saved"], "the towers keep nothing either way"
    assert cached["forward_macs"] < side["forward_macs"]
    # the backward pass is the same: what the towers take is gone from both, once
    assert side["step_macs"] - cached["step_macs"] == side["forward_macs"] - cached["forward_macs"]
    assert lora["state"]["method"] == 12 * lora["method"]
    assert 0 < lora["percent"] < 100
    assert lora["file"]["method"] == pytest.approx(4 * lora["method"], rel=0.05)
    for name in only[:4]:
        seconds = rows[name]["seconds"]
        assert 0 < seconds["q1"] <= seconds["median"] <= seconds["q3"]
        assert 0 < seconds["ratio_q1"] <= seconds["ratio"] <= seconds["ratio_q3"]
    assert rows["full"]["seconds"]["ratio"] == 1

    assert rows["wrong"]["cost"] is None
    assert "brings no language" in rows["wrong"]["refused"]
    assert "unheard_of" in rows["absent"]["refused"]
    printed = capsys.readouterr().out
    assert "| s4eca-side |" in printed
    assert "wrong: refused: tuning=lora brings no language" in printed
    assert f"{side['percent']:.2f} %" in printed

    known = {"preset": "tiny", "image_size": 64, "batch_size": 1, "rounds": 2, "seed": 0, "reference": "full"}
    assert known.items() <= result["about"].items()
    assert str(tmp_path) not in out.read_text(), "no paths"


def test_counts_alone_and_less_kept(methods, capsys):
    options = methods.parse(["--rounds", "0"])
    rows = {row.name: row for row in methods.run(["full", "s4eca-block"], options)}
    assert all(row.seconds is None for row in rows.values())
    inside = methods.build("s4eca", options)
    saved = saved_bytes(inside.segmenter, inside.forward, inside.batch())
    assert 0 < rows["s4eca-block"].cost.saved.towers_and_method < saved.towers_and_method
    assert "| - | - |" in methods.tables(list(rows.values()))


def test_unknown_rows(methods, capsys):
    with pytest.raises(SystemExit):
        methods.main(["--only", "loras"])
    assert "--only loras is none of full, " in capsys.readouterr().err
