"""Runs the benchmark of a training step in small; its times are checked for order only."""

import json

import pytest
import torch


@pytest.fixture(scope="module")
def bench(script):
    return script("train_step")


def test_switches_and_methods(bench, tmp_path, capsys):
    out = tmp_path / "step.json"
    only = "bf16 autocast,tower_dtype,s4eca-side"
    assert bench.main(["--only", only, "--speed", "exact", "--rounds", "1", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    switches = {row["name"]: row for row in result["switches"]}
    methods = {row["name"]: row for row in result["methods"]}
    assert list(switches) == ["plain", "bf16 autocast", "tower_dtype"]
    assert list(methods) == ["full", "s4eca-side"]
    for row in [*switches.values(), *methods.values()]:
        low, middle, high = row["speedup"]
        assert 0 < low <= middle <= high
        assert row["images_per_s"] > 0
        assert row["largest"] is None
    assert switches["plain"]["speedup"] == methods["full"]["speedup"] == [1, 1, 1]
    # frozen weights in half the bytes are fewer bytes; what is not back-propagated through is not kept
    assert switches["tower_dtype"]["peak"] < switches["bf16 autocast"]["peak"]
    assert methods["s4eca-side"]["peak"] < methods["full"]["peak"]
    printed = capsys.readouterr().out
    assert "| tower_dtype |" in printed
    assert "(100 %)" in printed
    known = {"preset": None, "batch_size": 2, "rounds": 1, "seed": 0, "speed": "exact", "gpu": None}
    assert {name: result["about"].get(name) for name in known} == known
    assert "--only " + only in result["about"]["command"]
    assert str(tmp_path) not in out.read_text(), "no paths"


def test_what_is_refused_is_shown_with_its_reason(bench, tmp_path):
    options = bench.parse(["--rounds", "1"])
    options.scenes = str(tmp_path)
    # the same switch together with a method that freezes nothing
    table = {"plain": bench.OFF, "both": [*bench.SWITCHES["tower_dtype"], "tuning=full", bench.PWAM]}
    rows = bench.compare(table, "plain", [], options)
    assert rows[0].refused is None
    assert "tuning=full leaves no weight" in rows[1].refused
    assert bench.table(rows, "plain").endswith(f"both: refused: {rows[1].refused}")


def test_a_larger_batch_repeats_the_samples(bench, tmp_path):
    options = bench.parse(["--rounds", "1"])
    options.scenes = str(tmp_path)
    batch = next(bench.build([*bench.OFF, "tuning=s4eca"], options).batches)
    larger = bench.repeat(batch, 5)
    assert len(larger) == 5
    assert larger.shared is None
    assert torch.equal(larger.image, batch.image[[0, 1, 0, 1, 0]])
    assert larger.ids == [batch.ids[place] for place in (0, 1, 0, 1, 0)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--only", "plane"], "--only plane is none of plain; "),
        (["--rounds", "0"], "--rounds 0 is less than 1"),
        (["--largest"], "--largest needs --device cuda"),
    ],
)
def test_wrong_arguments(bench, capsys, given, said):
    with pytest.raises(SystemExit):
        bench.main(given)
    assert said in capsys.readouterr().err
