import copy
import json
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from runs import composed
from s4eca.cost import KeptStorages
from s4eca.decoders.fpn import FPNDecoder
from s4eca.decoders.lavt import LAVTDecoder
from s4eca.errors import S4ecaError
from s4eca.memory import evaluation_switches, out_of_memory_explained, training_switches
from s4eca.switches import BLOCK, FPN, SIDE, STAGE_3, find

ROOT = Path(__file__).resolve().parents[1]


@cache
def _composed(*overrides):
    return composed("experiment=demo", "decoder=lavt", "data.batch_size=8", *overrides)


def plain(*overrides, **values):
    """A small run with nothing switched on, changed by overrides and by values of `model.segmenter`."""
    config = copy.deepcopy(_composed(*overrides))
    config["model"]["segmenter"].update(values)
    return config


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


def measured():
    """Returns the bytes that a step of each row of the benchmark keeps."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "methods_base.json").read_text())["rows"]
    return {row["name"]: row["cost"]["saved"]["step"] for row in rows if row["cost"]}


def test_the_figures_are_those_of_the_benchmark():
    kept = measured()
    for name, share in (("s4eca-block", BLOCK), ("s4eca-stage3", STAGE_3), ("s4eca-side", SIDE)):
        assert share == pytest.approx(kept[name] / kept["s4eca"], abs=0.005)


ALL = [
    "model.segmenter.grad_checkpointing=block",
    "data.batch_size=4 trainer.accumulate_grad_batches=2",
    "trainer.precision=bf16-mixed",
    "decoder=fpn",
    "model.segmenter.start_stage=3",
    "model.segmenter.placement=side",
]


def settings(config):
    return [switch.setting for switch in training_switches(config)]


def test_all_switches_are_offered_to_a_plain_run():
    switches = training_switches(plain())
    assert [switch.setting for switch in switches] == ALL
    assert [switch.leaves.split(" (")[0] for switch in switches] == [
        *("14 %", "50 %", "about 50 %, by the width of bf16", "91 %", "61 %", "21 %")
    ]
    assert [switch.setting for switch in switches if switch.same_run] == [ALL[0], ALL[2]]


def test_what_is_used_already_is_not_offered():
    # at the side there is nothing to recompute, so that both are changed together
    side = "model.segmenter.placement=side model.segmenter.grad_checkpointing=none"
    assert settings(plain(grad_checkpointing="block", start_stage=3)) == [*ALL[1:4], side]
    assert settings(plain(placement="side")) == ALL[1:4]
    assert settings(plain("decoder=fpn", placement="side")) == ALL[1:3]
    lora = settings(plain("tuning=lora", "fusion=film"))
    assert lora == ALL[:5]
    alone = settings(plain("data.batch_size=1", "trainer.precision=bf16-mixed"))
    assert alone == [ALL[0], *ALL[3:]]
    odd = settings(plain("data.batch_size=9", "trainer.accumulate_grad_batches=2"))
    assert odd[1] == "data.batch_size=3 trainer.accumulate_grad_batches=6"


def test_what_would_be_refused_is_not_offered():
    assert settings(plain("tuning=frozen", "fusion=film"))[0] == ALL[1], "nothing to recompute"
    recipe = settings(plain("tuning=full", "fusion=pwam", "fusion.feedback=true"))
    assert recipe == ALL[:4], "language enters at the first stage"
    assert "model.segmenter.placement=side model.segmenter.compile=none" in settings(plain(compile="block"))


def test_an_evaluation_has_its_own_switches():
    assert [switch.setting for switch in evaluation_switches(plain())] == [
        "data.eval_batch_size=4",
        "trainer.precision=bf16-mixed",
    ]
    first = evaluation_switches(plain("data.batch_size=2", "data.eval_batch_size=16"))[0]
    assert (first.setting, first.leaves) == ("data.eval_batch_size=8", "50 %")


def test_a_real_allocation_that_fails_becomes_the_sentence():
    onward = "go on with: python train.py resume=run"
    with (
        pytest.raises(
            S4ecaError, match=r"memory is not enough for training \(.*allocate.*resume=run with model"
        ) as info,
        out_of_memory_explained(plain(), training=True, onward=lambda: onward),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    assert isinstance(info.value.__cause__, RuntimeError)
    assert str(info.value).endswith("or trainer.precision=bf16-mixed, the others need a new run.")
    assert "accumulate_grad_batches=2 (the same effective batch) leaves 50 %" in str(info.value)
    last = plain("decoder=fpn", "data.batch_size=1", "trainer.precision=bf16-mixed", placement="side")
    with (
        pytest.raises(S4ecaError, match=r"\(CUDA out of memory\. Tried to allocate 2.00 GiB\), and no switch is left"),
        out_of_memory_explained(last, training=True),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity")


def test_looking_for_switches_changes_nothing():
    config = plain()
    before = copy.deepcopy(config)
    training_switches(config)
    assert config == before
    assert find(config, "model.segmenter.start_stage") == 1
    assert find(config, "nothing.there") is None


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes") as info, out_of_memory_explained({}, training=True):
        raise RuntimeError("shapes do not fit")
    assert not isinstance(info.value, S4ecaError)
