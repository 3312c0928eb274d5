from dataclasses import replace

import pytest

from s4eca.profiling.advice import _SWITCHES, advice
from s4eca.profiling.parts import BACKWARD, DECODER, LOADER, PARTS, REST, VISION
from s4eca.profiling.report import Report

EMPTY = {"parameters": {}, "gradients": {}, "optimiser": {}}
CONFIG = {
    "data": {"cache": None, "num_workers": 2, "resize": "pil", "pin_memory": False},
    "decoder": {"_target_": "s4eca.decoders.lavt.LAVTDecoder"},
    "trainer": {"precision": "32-true"},
    "vision": {"attention": "eager"},
    "model": {
        "feature_cache": None,
        "segmenter": {
            "compile": "none",
            "placement": "inside",
            "start_stage": 1,
            "grad_checkpointing": "block",
            "tower_dtype": "fp32",
        },
    },
}


def report(part, gpu=True, **values):
    settings = {
        "seconds": [{part: 0.3, REST: 0.1}, {part: 0.5, REST: 0.1}],
        "plain_seconds": [0.4], "wall_seconds": [0.4, 0.6], "batch_size": 4, "kept": {}, "macs": {}, "peaks": {},
        "resident": EMPTY, "device": "GPU", "threads": 1, "gpu_peak": 2**30 if gpu else None, "precision": "32-true",
        "accumulated": 1, "compiled": False, "grad_checkpointing": "block", "placement": "inside", "method": "lora",
        "feature_cache": False, "filling": 0,
    }  # fmt: skip
    return Report(**{**settings, **values})


def named(part, config=CONFIG, **values):
    said = advice(report(part, **values), config)
    assert said.startswith(f"The largest part is the {part}, 80 % of the step")
    return said.partition("is off: ")[2].partition(". Profile again")[0]


@pytest.mark.parametrize(
    ("part", "values", "switches"),
    [
        (LOADER, {}, "data.cache=FOLDER, data.num_workers=N, data.resize=torch"),
        (VISION, {}, "trainer.precision=bf16-mixed, vision.attention=sdpa, model.segmenter.compile=block"),
        (VISION, {"gpu": False}, "vision.attention=sdpa, model.segmenter.compile=block"),
        (VISION, {"gpu": False, "placement": "side"}, "vision.attention=sdpa, model.feature_cache=FOLDER"),
        (DECODER, {"gpu": False}, "decoder=fpn"),
        (
            BACKWARD,
            {"gpu": False},
            "model.segmenter.grad_checkpointing=none, decoder=fpn, model.segmenter.start_stage=3",
        ),
        (
            BACKWARD,
            {"gpu": False, "method": "s4eca"},
            "model.segmenter.grad_checkpointing=none, decoder=fpn, model.segmenter.placement=side, "
            "model.segmenter.start_stage=3",
        ),
    ],
)  # fmt: skip
def test_names_switches_that_are_off(part, values, switches):
    assert named(part, **values) == switches


def test_names_none_that_is_on_or_that_is_not_in_the_config():
    config = {**CONFIG, "decoder": {"_target_": "s4eca.decoders.fpn.FPNDecoder"}}
    assert named(DECODER, config, gpu=False) == ""
    said = advice(report(DECODER, gpu=False), config)
    assert said.endswith("no switch of this config acts on it that is not on already.")
    bf16 = {**CONFIG, "trainer": {"precision": "bf16-mixed"}}
    assert "tower_dtype=bf16" in named(VISION, bf16, precision="bf16-mixed")
    assert "attention" not in named(VISION, {**CONFIG, "vision": {"attention": "sdpa"}})


def test_every_part_has_an_entry():
    assert set(_SWITCHES) == set(PARTS)


def test_sentences_tell_what_was_measured():
    text = " ".join(report(VISION, accumulated=4, filling=1).sentences())
    assert "2 steps of batch 4, every 4th with the optimiser, device time by CUDA events, GPU, 32-true" in text
    # the median of 0.4 and 0.6 s
    assert ": 500.0 ms, 8.00 samples/s; without marks inside 400.0 ms (of 1 steps)" in text
    assert "peak was 1,024 MiB" in text
    assert "1 of 2 steps filled the feature cache" in text
    assert "not known of compiled blocks" in " ".join(replace(report(VISION), compiled=True).sentences())
