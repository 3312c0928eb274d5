from dataclasses import replace
from functools import cache

import pytest

from runs import composed
from s4eca.profiling.advice import advice
from s4eca.profiling.parts import (
    BACKWARD,
    CALLBACKS,
    DECODER,
    LOADER,
    OPTIMIZER,
    PARTS,
    REST,
    TRANSFER,
    VISION,
)
from s4eca.profiling.report import Report
from s4eca.switches import TIME

EMPTY = {"parameters": {}, "gradients": {}, "optimiser": {}}


@cache
def config(*overrides):
    """A run with nothing switched on that makes a step faster, and blocks recomputed."""
    block = "model.segmenter.grad_checkpointing=block"
    return composed("experiment=demo", "decoder=lavt", "data.batch_size=4", block, *overrides)


def report(part, gpu=True, **values):
    settings = {
        "seconds": [{part: 0.3, REST: 0.1}, {part: 0.5, REST: 0.1}],
        "plain_seconds": [0.4], "wall_seconds": [0.4, 0.6], "batch_size": 4, "kept": {}, "macs": {}, "peaks": {},
        "resident": EMPTY, "device": "GPU", "threads": 1, "gpu_peak": 2**30 if gpu else None, "precision": "32-true",
        "accumulated": 1, "compiled": False, "grad_checkpointing": "block", "placement": "inside", "method": "lora",
        "feature_cache": False, "filling": 0,
    }  # fmt: skip
    return Report(**{**settings, **values})


def named(part, *overrides, **values):
    said = advice(report(part, **values), config(*overrides))
    assert said.startswith(f"The largest part is the {part}, 80 % of the step")
    return said.partition("is off: ")[2].partition(". Profile again")[0].split(", ")


SIDE = "model.segmenter.placement=side model.segmenter.grad_checkpointing=none"
LORA = ("tuning=lora", "fusion=film")


@pytest.mark.parametrize(
    ("part", "overrides", "gpu", "switches"),
    [
        (LOADER, ("data.num_workers=1",), True, ["data.cache=FOLDER", "data.num_workers=2", "data.resize=torch"]),
        (LOADER, ("data.num_workers=2",), True, ["data.cache=FOLDER", "data.resize=torch"]),
        (TRANSFER, (), True, ["data.pin_memory=true"]),
        (
            VISION, LORA, True,
            ["trainer.precision=bf16-mixed", "vision.attention=sdpa", "model.segmenter.compile=block",
             "model.segmenter.encode_once=true"],
        ),
        (VISION, (*LORA, "tuning.dropout=0.1"), False, ["vision.attention=sdpa", "model.segmenter.compile=block"]),
        (
            VISION, ("trainer.precision=bf16-mixed", "vision.attention=sdpa", "model.segmenter.compile=block"), True,
            ["model.segmenter.tower_dtype=bf16"],
        ),
        (
            VISION, ("model.segmenter.placement=side", "model.segmenter.grad_checkpointing=none"), False,
            ["vision.attention=sdpa", "model.segmenter.encode_once=true", "model.feature_cache=FOLDER"],
        ),
        (DECODER, (), False, ["decoder=fpn"]),
        (
            DECODER, ("model.segmenter.channels_last=false",), False,
            ["decoder=fpn", "model.segmenter.channels_last=true"],
        ),
        (
            BACKWARD, LORA, False,
            ["model.segmenter.grad_checkpointing=none", "decoder=fpn", "model.segmenter.start_stage=3"],
        ),
        (
            BACKWARD, (), False,
            ["model.segmenter.grad_checkpointing=none", "decoder=fpn", SIDE, "model.segmenter.start_stage=3"],
        ),
        (OPTIMIZER, ("model.fused_optimizer=false",), False, ["model.fused_optimizer=true"]),
        (CALLBACKS, (), False, ["trainer.log_every_n_steps=50"]),
    ],
)  # fmt: skip
def test_names_switches_that_are_off_and_would_not_be_refused(part, overrides, gpu, switches, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert named(part, *overrides, gpu=gpu) == switches


def test_names_none_that_is_on():
    said = advice(report(DECODER, gpu=False), config("decoder=fpn"))
    assert said.endswith("no switch of this config acts on it that is not on already.")


def test_parts_are_those_of_a_step():
    assert {part for switch in TIME for part in switch.parts} <= set(PARTS)


def test_sentences_tell_what_was_measured():
    text = " ".join(report(VISION, accumulated=4, filling=1).sentences())
    assert "2 steps of batch 4, every 4th with the optimiser, device time by CUDA events, GPU, 32-true" in text
    # the median of 0.4 and 0.6 s
    assert ": 500.0 ms, 8.00 samples/s; without marks inside 400.0 ms (of 1 steps)" in text
    assert "peak was 1,024 MiB" in text
    assert "1 of 2 steps filled the feature cache" in text
    assert "not known of compiled blocks" in " ".join(replace(report(VISION), compiled=True).sentences())
