"""Runs the benchmark of the training-free method in small."""

import json

import pytest


@pytest.fixture(scope="module")
def benchmark(script):
    return script("dgl_rsis")


def test_every_stage_of_every_variant_is_timed(benchmark, tmp_path, capsys):
    out = tmp_path / "dgl.json"
    data = [f"data.root={tmp_path / 'scenes'}", "data.test=3", "image_size=96"]
    assert benchmark.main(["--images", "2", "--out", str(out), *data]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["variant"], row["stage"]) for row in rows] == [
        (variant, stage) for variant in benchmark.VARIANTS for stage in benchmark.STAGES
    ]
    assert all(0 < row["q1"] <= row["median"] <= row["q3"] for row in rows)
    for variant in benchmark.VARIANTS:
        assert sum(row["share"] for row in rows if row["variant"] == variant) == pytest.approx(1)
    assert "| crops | proposals |" in capsys.readouterr().out


def test_quartiles_and_shares_by_hand(benchmark):
    seconds = {"a": {stage: [1.0, 2.0, 3.0] for stage in benchmark.STAGES[:-1]} | {"selection": [2.0, 12.0, 22.0]}}
    rows = benchmark.summarise(seconds)
    assert [row["share"] for row in rows] == [0.1, 0.1, 0.1, 0.1, 0.6]
    assert (rows[0]["q1"], rows[0]["median"], rows[0]["q3"]) == (1.5, 2.0, 2.5)


def test_an_unknown_variant_is_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--only", "nothing"])
    assert "single pass" in capsys.readouterr().err
