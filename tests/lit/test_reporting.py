import csv

import pytest
from rich.console import Console

from s4eca.fusion.pwam import PWAM
from s4eca.lit import ParameterReport, Throughput, ValidationPictures
from s4eca.parameters import count_parameters, method_share, parameter_table
from s4eca.tuning import Frozen, FullFineTuning, LoRA
from tiny import tiny_segmenter, tiny_text, tiny_vision
from toy import fit, toy_data, toy_module, toy_trainer


def test_counts_by_hand():
    text = sum(p.numel() for p in tiny_text().parameters())
    vision = sum(p.numel() for p in tiny_vision().parameters())
    lora = tiny_segmenter(LoRA(rank=2, text_layers=["query", "value"], vision_layers=["qkv"]), PWAM)
    counts = count_parameters(lora)
    # query and value of 4 layers of width 32; qkv of blocks 2+2+3+2 of widths 16 to 128
    expected = 4 * 2 * 2 * (32 + 32) + sum(
        n * 2 * (c + 3 * c) for n, c in zip((2, 2, 3, 2), (16, 32, 64, 128), strict=True)
    )
    assert counts["method"].learned == counts["method"].total == expected
    assert (counts["text tower"].total, counts["vision tower"].total) == (text, vision)
    assert (counts["text tower"].learned, counts["vision tower"].learned) == (0, 0)
    assert method_share(lora) == pytest.approx(expected / (text + vision))
    assert method_share(tiny_segmenter(FullFineTuning(), PWAM)) == 1
    assert method_share(tiny_segmenter(Frozen(), PWAM)) == 0


def test_table_shows_share_and_effective_batch():
    console = Console(record=True, width=100)
    console.print(parameter_table(tiny_segmenter(FullFineTuning(), PWAM), effective_batch=32))
    text = console.export_text()
    assert "100.00 %" in text
    assert "effective batch" in text
    assert "32" in text


def test_a_run_reports_itself(tmp_path, capsys):
    data = toy_data(tmp_path / "data")
    callbacks = [ParameterReport(), Throughput(), ValidationPictures(limit=5)]
    fit(toy_module(), data, toy_trainer(tmp_path, *callbacks, max_epochs=1, accumulate_grad_batches=2))
    printed = capsys.readouterr().out
    assert "effective batch" in printed
    assert " 8 " in printed, "4 samples x 2 accumulated"
    assert "step 3" in printed
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert any(float(row["samples/s"] or 0) > 0 for row in rows)
    assert any(0.1 < float(row["memory GiB"] or 0) < 24 for row in rows)
    assert len(list((tmp_path / "pictures" / "step_000003").glob("*.png"))) == 5
