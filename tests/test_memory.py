import json
from functools import partial
from pathlib import Path

import pytest
import torch

from s4eca.cost import KeptStorages
from s4eca.decoders.fpn import FPNDecoder
from s4eca.decoders.lavt import LAVTDecoder
from s4eca.errors import S4ecaError
from s4eca.memory import BLOCK, FPN, SIDE, STAGE_3, evaluation_switches, out_of_memory_explained, training_switches

ROOT = Path(__file__).resolve().parents[1]
PLAIN = {
    "model": {"segmenter": {"placement": "inside", "start_stage": 1, "grad_checkpointing": "none"}},
    "tuning": {"_target_": "s4eca.tuning.S4ECA"},
    "decoder": {"_target_": "s4eca.decoders.lavt.LAVTDecoder"},
    "data": {"batch_size": 8, "eval_batch_size": None},
    "trainer": {"precision": "32-true", "accumulate_grad_batches": 2},
}


def decoder_bytes(decoder):
    """Counts what a decoder keeps at 480 px on Swin-B, without any value being computed."""
    with torch.device("meta"):
        grids = [torch.empty(1, 120 >> i, 120 >> i, 128 << i, requires_grad=True) for i in range(4)]
        network = decoder([128, 256, 512, 1024], 1).train()
    counted = KeptStorages([*network.parameters(), *network.buffers(), *grids])
    with counted:
        out = network(grids)
    assert out.shape == (1, 1, 120, 120)
    return counted.bytes()


def test_the_figure_of_the_decoder_is_counted():
    kept = measured()
    rest = kept["s4eca"] - decoder_bytes(partial(FPNDecoder, width=256))  # which the benchmark was made with
    light, heavy = decoder_bytes(FPNDecoder), decoder_bytes(LAVTDecoder)
    assert (light / 1e6, heavy / 1e6) == pytest.approx((90, 208), abs=0.5)
    assert pytest.approx((rest + light) / (rest + heavy), abs=0.005) == FPN


def changed(**values):
    segmenter = {**PLAIN["model"]["segmenter"], **values.pop("segmenter", {})}
    return {**PLAIN, "model": {"segmenter": segmenter}, **values}


def measured():
    """Returns the bytes that a step of each row of the benchmark keeps."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "methods_base.json").read_text())["rows"]
    return {row["name"]: row["cost"]["saved"]["step"] for row in rows if row["cost"]}


def test_the_figures_are_those_of_the_benchmark():
    kept = measured()
    for name, share in (("s4eca-block", BLOCK), ("s4eca-stage3", STAGE_3), ("s4eca-side", SIDE)):
        assert share == pytest.approx(kept[name] / kept["s4eca"], abs=0.005)


def settings(config):
    return [switch.setting.split(" (")[0] for switch in training_switches(config)]


def test_all_switches_are_offered_to_a_plain_run():
    assert settings(PLAIN) == [
        "model.segmenter.grad_checkpointing=block",
        "data.batch_size=4 trainer.accumulate_grad_batches=4",
        "trainer.precision=bf16-mixed",
        "decoder=fpn",
        "model.segmenter.start_stage=3",
        "model.segmenter.placement=side",
    ]
    assert [switch.leaves.split(" (")[0] for switch in training_switches(PLAIN)][:2] == ["14 %", "50 %"]


def test_what_is_used_already_is_not_offered():
    used = changed(segmenter={"grad_checkpointing": "block", "start_stage": 3})
    assert settings(used) == [*settings(PLAIN)[1:4], "model.segmenter.placement=side"]
    assert settings(changed(segmenter={"placement": "side"})) == settings(PLAIN)[1:4]
    light = {"_target_": "s4eca.decoders.fpn.FPNDecoder"}
    assert settings(changed(decoder=light, segmenter={"placement": "side"})) == settings(PLAIN)[1:3]
    assert "model.segmenter.placement=side" not in settings(changed(tuning={"_target_": "s4eca.tuning.LoRA"}))
    assert settings(changed(data={"batch_size": 1}))[1] == "trainer.precision=bf16-mixed"
    bf16 = {"precision": "bf16-mixed", "accumulate_grad_batches": 1}
    odd = settings(changed(data={"batch_size": 9}, trainer=bf16))
    assert odd[1:] == ["data.batch_size=3 trainer.accumulate_grad_batches=3", *settings(PLAIN)[3:]]


def test_what_would_be_refused_beside_another_switch_is_offered_with_its_change():
    segmenter = {**PLAIN["model"]["segmenter"], "compile": "block"}
    offered = [switch.setting for switch in training_switches({**PLAIN, "model": {"segmenter": segmenter}})]
    assert "model.segmenter.placement=side model.segmenter.compile=none" in offered


def test_an_evaluation_has_its_own_switches():
    assert [switch.setting for switch in evaluation_switches(PLAIN)] == [
        "data.eval_batch_size=4",
        "trainer.precision=bf16-mixed",
    ]
    data = {"batch_size": 2, "eval_batch_size": 16}
    assert evaluation_switches(changed(data=data))[0].setting == "data.eval_batch_size=8"


def test_a_real_allocation_that_fails_becomes_the_sentence():
    onward = "go on with: python train.py resume=run"
    with (
        pytest.raises(
            S4ecaError, match=r"memory is not enough for training \(.*allocate.*resume=run with model"
        ) as info,
        out_of_memory_explained(PLAIN, training=True, onward=lambda: onward),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    assert isinstance(info.value.__cause__, RuntimeError)
    assert str(info.value).endswith("or trainer.precision=bf16-mixed, the others need a new run.")
    last = changed(
        segmenter={"placement": "side"}, data={"batch_size": 1}, trainer={"precision": "bf16-mixed"}, decoder={}
    )
    with (
        pytest.raises(S4ecaError, match=r"\(CUDA out of memory\. Tried to allocate 2.00 GiB\), and no switch is left"),
        out_of_memory_explained({**last}, training=True),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity")


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes") as info, out_of_memory_explained(PLAIN, training=True):
        raise RuntimeError("shapes do not fit")
    assert not isinstance(info.value, S4ecaError)
