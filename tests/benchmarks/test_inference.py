"""Runs the benchmark of inference in small; its times are checked for order only."""

import json

import pytest
import torch


@pytest.fixture(scope="module")
def bench(script):
    return script("inference")


def test_it_measures_counts_and_writes(bench, tmp_path, capsys):
    out = tmp_path / "inference.json"
    assert bench.main(["--rounds", "1", "--batch-size", "4", "--seed", "3", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert list(result) == ["about", "decoders", "batches", "sharing"]
    assert [row["name"] for row in result["decoders"]] == ["lavt", "fpn"]
    assert [row["name"] for row in result["batches"]] == ["1 at a time", "2 at a time", "4 at a time"]
    assert [row["name"] for row in result["sharing"]][:2] == ["s4eca, each", "s4eca, once"]
    for row in (row for title in ("decoders", "batches", "sharing") for row in result[title]):
        low, middle, high = row["speedup"]
        assert 0 < low <= middle <= high
        assert row["samples_per_s"] > 0
        assert (row["macs"] is None) == (row["name"] not in ("lavt", "fpn"))
    # the networks differ in their decoders alone, which work on the grids of 64 pixels; 1 x 1 and 3 x 3 convolutions
    grids, widths = (16, 8, 4, 2), (32, 64, 128, 256)
    fpn_head = 16**2 * (9 * 224**2 + 224)
    fpn = fpn_head + sum(side**2 * (width * 224 + 9 * 224**2) for side, width in zip(grids, widths, strict=True))
    levels = ((4, 256 + 128), (8, 128 + 64), (16, 128 + 32))
    lavt = 16**2 * 128 + sum(side**2 * 9 * 128 * (joined + 128) for side, joined in levels)
    assert result["decoders"][1]["macs"] - result["decoders"][0]["macs"] == fpn - lavt
    printed = capsys.readouterr().out
    assert "| fpn |" in printed
    assert "| s4eca at the side, once |" in printed
    known = {"preset": None, "batch_size": 4, "rounds": 1, "seed": 3, "precision": "fp32", "gpu": None}
    assert {name: result["about"].get(name) for name in known} == known
    assert str(tmp_path) not in out.read_text(), "no paths"


def test_an_image_is_walked_once_for_its_expressions(bench, monkeypatch):
    options = bench.Bench("tiny", 3, 1, 0, torch.device("cpu"), False)
    network = options.network(["tuning=s4eca", "model.segmenter.placement=side"])
    walked = []
    first = network.vision.embed
    monkeypatch.setattr(network.vision, "embed", lambda image: walked.append(len(image)) or first(image))
    options.forward(network, options.samples(2, 3, 6))()
    options.forward(network, options.samples(2, 3, 6, once=True))()
    options.forward(network, options.samples(2, 3, 2, once=True))()  # the second of three batches holds both images
    assert walked == [6, 2, 1, 2, 1]


def test_in_bf16_only_what_is_frozen_is_held_in_it(bench):
    network = bench.Bench("tiny", 2, 1, 0, torch.device("cpu"), True).network(bench.SHARING["s4eca"])
    assert {parameter.dtype for parameter in network.parameters() if parameter.requires_grad} == {torch.float32}
    assert torch.bfloat16 in {parameter.dtype for parameter in network.parameters()}
    assert bench.main(["--rounds", "1", "--batch-size", "2", "--precision", "bf16", "--only", "batches"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "--rounds 0 is less than 1"),
        (["--batch-size", "1"], "--batch-size 1 leaves nothing to share"),
        (["--only", "decoder"], "invalid choice: 'decoder'"),
    ],
)
def test_refusals(bench, arguments, said, capsys):
    with pytest.raises(SystemExit):
        bench.main(arguments)
    assert said in capsys.readouterr().err
