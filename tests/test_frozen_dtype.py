import contextlib

import pytest
import torch
from torch import Tensor, nn

from s4eca.checkpoint import Checkpoint, describe, load_learned
from s4eca.errors import S4ecaError
from s4eca.features import open_features
from s4eca.frozen_dtype import check_precision, for_precision, in_fp32
from s4eca.fusion.pwam import PWAM
from s4eca.segmenter import ReferringSegmenter
from s4eca.tuning import FullFineTuning, LoRA
from tiny import shake, tiny_inputs, tiny_segmenter
from tiny_vision import VISION
from tuning.methods import METHODS, s4eca

BF16 = {"tower_dtype": "bf16"}
LAYERS = (nn.Linear, nn.Conv2d)


def pair(name: str, vision: str = "swin", text: str = "bert") -> tuple[ReferringSegmenter, ReferringSegmenter]:
    """The same network with towers in fp32 and in bf16."""
    case, networks = METHODS[name], []
    for options in ({}, BF16):
        torch.manual_seed(0)
        networks.append(tiny_segmenter(case.method(), case.fusion, vision, text, **options).train())
        shake(networks[-1], scale=0.02)
    return networks[0], networks[1]


def step(network: ReferringSegmenter) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(*tiny_inputs())
    logits.square().mean().backward()
    return logits.detach(), {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


CASES = [
    *[("frozen", family, "bert") for family in VISION],
    *[("s4eca", "swin", text) for text in ("bert", "distilbert", "clip")],
    *[("lora", family, "bert") for family in ("swin", "dinov3")],
    *[(name, "swin", "bert") for name in ("bitfit", "full_lavt", "cola")],
]


@pytest.mark.parametrize(("name", "vision", "text"), CASES)
def test_logits_and_gradients_are_those_of_fp32_weights_bit_for_bit(name, vision, text):
    full, held = pair(name, vision, text)
    (logits, gradients), (expected, wanted) = step(held), step(full)
    assert torch.equal(logits, expected)
    assert gradients.keys() == wanted.keys()
    assert [key for key, gradient in gradients.items() if not torch.equal(gradient, wanted[key])] == []


def test_only_frozen_weights_of_linear_layers_and_convolutions_are_cast():
    """By walking the modules: what is learned, embeddings, norms and tables stay as they are."""
    for name in ("s4eca", "lora", "bitfit", "full_lavt"):
        _, held = pair(name)
        for path, module in held.named_modules():
            for part, parameter in module.named_parameters(recurse=False):
                tower = path.startswith(("text.", "vision."))
                cast = tower and isinstance(module, LAYERS) and not parameter.requires_grad
                assert parameter.dtype == (torch.bfloat16 if cast else torch.float32), f"{name}: {path}.{part}"
    weights = [value for tower in (held.text, held.vision) for value in tower.parameters()]
    assert any(value.dtype == torch.bfloat16 for value in weights)


def test_checkpoints_load_in_both_directions_and_hash_the_fp32_weights():
    full, held = pair("lora")
    tokenizer = full.text.load_tokenizer()
    metas = [describe(network, None, tokenizer, {}) for network in (full, held)]
    assert metas[0]["base"] == metas[1]["base"]
    shake(full, seed=5)
    shake(held, seed=6)
    for source, target, meta in ((full, held, metas[0]), (held, full, metas[1])):
        state = {name: value.clone() for name, value in source.learned_state().items()}
        assert {value.dtype for value in state.values()} == {torch.float32}
        shake(target, seed=9)
        load_learned(target, Checkpoint("a.ckpt", state, meta))
        assert all(torch.equal(value, state[name]) for name, value in target.learned_state().items())
        assert torch.equal(step(held.eval())[0], step(full.eval())[0])


def test_what_cannot_go_together_is_refused_by_name():
    with pytest.raises(S4ecaError, match=r"tuning=full leaves no weight of the towers frozen.*tower_dtype=fp32"):
        tiny_segmenter(FullFineTuning(), PWAM, **BF16)
    with pytest.raises(S4ecaError, match=r"tower_dtype=fp16 is neither fp32 nor bf16"):
        tiny_segmenter(s4eca(), tower_dtype="fp16")
    held = tiny_segmenter(LoRA(rank=2), PWAM, **BF16)
    with pytest.raises(S4ecaError, match=r"text tower holds its weights in bf16.*tower_dtype=fp32"):
        held.method.merge(held.text, held.vision)
    beside = tiny_segmenter(s4eca(), placement="side", **BF16)
    with pytest.raises(S4ecaError, match=r"feature_cache encodes with towers in fp32; set model\.segmenter\.tower"):
        open_features("nowhere", beside.runner)


def test_precision_is_checked_before_and_during_a_run():
    full, held = pair("s4eca")
    check_precision(full, "32-true")
    check_precision(held, "bf16-mixed")
    for precision in ("32-true", "16-mixed", "bf16-true", 32):
        with pytest.raises(
            S4ecaError, match=rf"trainer\.precision={precision} has none; set trainer\.precision=bf16-m"
        ):
            check_precision(held, precision)
    for context in (contextlib.nullcontext(), torch.autocast("cpu", dtype=torch.float16)):
        with context, pytest.raises(S4ecaError, match="under bf16 autocast alone"):
            held(*tiny_inputs())


def test_an_evaluation_at_another_precision_holds_the_weights_as_they_were_loaded():
    segmenter = {"tower_dtype": "bf16", "head_logits": 1}
    config = {"trainer": {"precision": "bf16-mixed"}, "model": {"lr": 1.0, "segmenter": segmenter}, "seed": 0}
    assert for_precision(config) is config
    other = {**config, "trainer": {"precision": "32-true"}}
    changed = for_precision(other)
    assert changed["model"] == {"lr": 1.0, "segmenter": {"tower_dtype": "fp32", "head_logits": 1}}
    assert changed["trainer"] == other["trainer"]
    assert in_fp32(config)["model"] == changed["model"]
    assert segmenter["tower_dtype"] == "bf16", "the run's own config is left alone"
