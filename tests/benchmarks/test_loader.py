"""Runs the loader benchmark in small; its claims about tensors are checked, its times are not."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from layouts import SAMPLES

SMALL = [
    "--samples",
    "6",
    "--images",
    "3",
    "--size",
    "100",
    "--image-size",
    "60",
    "--batch-size",
    "2",
    "--repeats",
    "2",
]


@pytest.fixture(scope="module")
def loader(script):
    return script("loader")


def test_it_compares_measures_and_writes(loader, tmp_path, capsys):
    assert loader.main([*SMALL, "--workers", "0", "2", "--json", str(tmp_path / "loader.json")]) == 0
    result = json.loads((tmp_path / "loader.json").read_text())
    comparison = result["comparison"]
    assert comparison["samples"] == 3
    for exact in ("pil_image_values", "mask_pixels", "tokens", "cached_values", "torch_levels", "torch_share"):
        assert comparison[exact] == 0, exact
    assert comparison["pil_normalised"] < 1e-5
    assert [(row["loader"], row["workers"]) for row in result["rows"]] == [
        (name, workers) for workers in (0, 2) for name in ("REFER-style loop", "resize: pil", "resize: torch", "cached")
    ]
    for row in result["rows"]:
        assert row["samples_per_second"] > 0
        assert row["lowest_ratio"] <= row["ratio"] <= row["highest_ratio"]
    assert {key: result["about"][key] for key in ("samples", "images", "size")} == {
        "samples": 6,
        "images": "drawn",
        "size": 100,
    }
    printed = capsys.readouterr().out
    assert "lowest-highest" in printed
    assert f"{result['rows'][3]['samples_per_second']:.1f}" in printed


def test_nothing_is_timed_where_the_tensors_differ(loader, monkeypatch, capsys):
    right = loader.ReferStyle.resized

    def darker(self, index):
        image, mask = right(self, index)
        return image.point(lambda level: max(0, level - 1)), mask

    monkeypatch.setattr(loader.ReferStyle, "resized", darker)
    assert loader.main([*SMALL, "--workers", "0"]) == 1
    assert "samples/s" not in capsys.readouterr().out


def test_what_the_comparison_accepts(loader):
    right = loader.Comparison(
        samples=3,
        pil_image_values=0,
        pil_normalised=1e-6,
        mask_pixels=0,
        tokens=0,
        torch_levels=1,
        torch_share=1e-4,
        cached_values=0,
    )
    assert right.exact
    assert right.close
    for name in ("pil_image_values", "mask_pixels", "tokens", "cached_values"):
        assert not replace(right, **{name: 1}).exact, name
    assert not replace(right, pil_normalised=1e-3).exact
    assert not replace(right, torch_levels=2).close
    assert not replace(right, torch_share=2e-4).close


def test_sizes_at_which_torch_is_further_off_are_said_and_timed(loader, capsys):
    """100 to 80 pixels: sums that lie in the middle between two levels."""
    assert loader.main([*SMALL, "--image-size", "80", "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert "at these sizes resize: torch differs" in printed
    assert "samples/s" in printed


def test_the_baseline_is_the_plain_loop(loader, tmp_path):
    """One sample worked out with PIL and numpy alone; at half the size, NEAREST keeps every second pixel."""
    options = loader.parse([*SMALL, "--image-size", "50"])
    root = loader.synthesize(tmp_path / "scenes", train=2, val=1, test=1, size=100)
    data = loader.data_module(root, options)
    assert len(data.references("train")) == 6
    item = data.references("train")[0]
    image, mask, input_ids, attention = loader.ReferStyle(data.references("train"), data.tokenizer, 50)[0]
    expected = np.array(Image.open(item.image).resize((50, 50), Image.Resampling.BILINEAR)) / 255
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert np.array_equal(mask.numpy(), item.mask.decode()[1::2, 1::2])
    assert mask.dtype == torch.int64
    assert input_ids.shape == attention.shape == (22,)
    assert data.tokenizer.decode(input_ids, skip_special_tokens=True) == item.expression.lower()


def test_on_real_images(loader, tmp_path, capsys):
    root = SAMPLES / "rrsisd_mini"
    if not root.is_dir():
        pytest.skip("the RRSIS-D sample is not in ../shared/data")
    arguments = ["--root", str(root), "--samples", "4", "--batch-size", "2", "--repeats", "1", "--workers", "0"]
    assert loader.main([*arguments, "--json", str(tmp_path / "loader.json")]) == 0
    about = json.loads((tmp_path / "loader.json").read_text())["about"]
    assert about["images"] == "given"
    assert "size" not in about  # of drawn scenes only
    assert '"torch_share": 0.0' in capsys.readouterr().out


def test_fewer_samples_than_a_batch(loader, capsys):
    with pytest.raises(SystemExit):
        loader.main(["--samples", "3"])
    assert "less than a batch of 8" in capsys.readouterr().err
