"""The promises that every tuning method keeps; a new method is one line in METHODS."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from s4eca.fusion.film import FiLM
from s4eca.fusion.pwam import PWAM
from s4eca.segmenter import ReferringSegmenter
from s4eca.tuning import S4ECA, Frozen, FullFineTuning, LoRA, TuningMethod
from s4eca.tuning.s4eca import TextSettings, VisualSettings
from tiny import shake, tiny_inputs, tiny_segmenter
from tuning.bridge import Bridge

TEXT = {"width": 16, "heads": 2, "proxies": 3, "density": 0.75}
VISUAL = {"width": 8}


def s4eca(text: dict[str, Any] | None = None, visual: dict[str, Any] | None = None, **options: Any) -> S4ECA:
    return S4ECA(TextSettings(**TEXT | (text or {})), VisualSettings(**VISUAL | (visual or {})), **options)


@dataclass
class Case:
    method: Callable[[], TuningMethod]
    fusion: Any = None
    every: bool = True  # False: an ablation, run through the gradient and padding promises only
    backwards: int = 3  # by then everything learned has received a gradient
    swinv2: Callable[[], TuningMethod] | None = None  # where Swin V2 needs other settings


METHODS = {
    "s4eca": Case(s4eca),
    "s4eca_dropout": Case(partial(s4eca, {"dropout": 0.3}, {"dropout": 0.3})),
    "full": Case(FullFineTuning, PWAM),
    "full_lavt": Case(partial(FullFineTuning, text_layers=3), partial(PWAM, feedback=True)),
    "frozen": Case(Frozen, FiLM),
    "lora": Case(partial(LoRA, rank=4), PWAM, swinv2=partial(LoRA, rank=4, vision_layers=["proj", "fc1"])),
    "bridge": Case(Bridge, PWAM),
    "s4eca_words": Case(partial(s4eca, language="words"), every=False),
    "s4eca_words_alone": Case(partial(s4eca, {"enabled": False}, language="words"), every=False),
    "s4eca_mean_word": Case(partial(s4eca, language="mean_word"), every=False),
    "s4eca_mean_word_context": Case(partial(s4eca, None, {"gate": False}, language="mean_word"), every=False),
    "s4eca_routed": Case(partial(s4eca, routing=[1, 1, 2, 3]), every=False),
    "s4eca_fresh_queries": Case(partial(s4eca, {"recurrent": False}), every=False),
    "s4eca_one_proxy": Case(partial(s4eca, {"proxies": 1}), every=False),
    "s4eca_not_dense": Case(partial(s4eca, None, {"dense": False}), every=False),
    "s4eca_no_extractor": Case(partial(s4eca, None, {"kernels": [], "scale": "uniform"}), every=False),
    "s4eca_single_kernel": Case(partial(s4eca, None, {"kernels": [3], "scale": "uniform"}), every=False),
    "s4eca_uniform": Case(partial(s4eca, None, {"scale": "uniform"}), every=False),
    "s4eca_text_scale": Case(partial(s4eca, None, {"scale": "text", "granularity": "scalar"}), every=False),
    "s4eca_visual_scale": Case(partial(s4eca, None, {"scale": "visual"}), every=False),
    "s4eca_gate_only": Case(partial(s4eca, None, {"context": False}), every=False),
    "s4eca_context_only": Case(partial(s4eca, None, {"gate": False}), every=False),
    # three zero-initialised layers in a row: visual up, scale choice, text up
    "s4eca_no_spatial": Case(partial(s4eca, None, {"gate": False, "context": False}), every=False, backwards=4),
    "s4eca_no_language": Case(
        partial(s4eca, {"enabled": False}, {"scale": "visual", "gate": False, "context": False}), PWAM, every=False
    ),
    "s4eca_late": Case(partial(s4eca, None, {"density": [0, 0, 0, 1]}), every=False),
    "s4eca_text_only": Case(partial(s4eca, None, {"density": [0, 0, 0, 0]}), PWAM, every=False),
}
FULL_PROMISES = [name for name, case in METHODS.items() if case.every]


def build(name: str, family: str = "swin", seed: int = 0, **options: Any) -> ReferringSegmenter:
    torch.manual_seed(seed)
    case = METHODS[name]
    method = case.swinv2 if family == "swinv2" and case.swinv2 else case.method
    return tiny_segmenter(method(), case.fusion, family, **options)


def frozen_weights(network: ReferringSegmenter) -> dict[str, torch.Tensor]:
    learned = network.learned_state()
    return {name: value.clone() for name, value in network.state_dict().items() if name not in learned}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("family", ["swin", "swinv2"])
@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_everything_learned_and_nothing_frozen(name, family):
    network = build(name, family).train()
    before = frozen_weights(network)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    target = torch.randn(2, 64, 64)
    reached: set[str] = set()
    for seed in range(METHODS[name].backwards):
        optimizer.zero_grad()
        (network(*tiny_inputs(seed)) * target).mean().backward()
        for key, parameter in network.named_parameters():
            if not parameter.requires_grad:
                assert parameter.grad is None, key
            elif parameter.grad is not None and parameter.grad.abs().sum() > 0:
                reached.add(key)
        optimizer.step()
    learned = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert learned - reached == set()
    after = network.state_dict()
    assert before or name == "full"
    assert [key for key, value in before.items() if not torch.equal(value, after[key])] == []


@pytest.mark.parametrize("name", METHODS)
def test_padded_words_cannot_change_the_result(name):
    network = build(name).eval()
    shake(network)
    image, ids, mask = tiny_inputs(batch=3, length=8)
    with torch.no_grad():
        short = network(image, ids, mask)
        junk = torch.full((3, 5), 77)
        longer = network(image, torch.cat([ids, junk], 1), torch.cat([mask, torch.zeros_like(junk)], 1))
        other = network(image, torch.where(mask.bool(), ids, 99), mask)
    torch.testing.assert_close(longer, short, rtol=1e-4, atol=1e-5)
    assert torch.equal(other, short)


@pytest.mark.parametrize("name", METHODS)
def test_the_expression_changes_the_output(name):
    network = build(name).eval()
    shake(network)
    image, ids, mask = tiny_inputs()
    with torch.no_grad():
        assert (network(image, ids, mask) - network(image, ids.flip(1) * mask + 7 * mask, mask)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["swin", "swinv2"])
@pytest.mark.parametrize("name", FULL_PROMISES)
def test_equal_to_the_frozen_towers_at_initialisation(name, family):
    network = build(name, family).eval()
    if not network.method.capabilities.identity:
        pytest.skip(f"{name} does not promise it")
    image, ids, mask = tiny_inputs()
    plain = tiny_segmenter(Frozen(), FiLM, family).eval()
    with torch.no_grad():
        tuned, frozen = network.runner(image, ids, mask), plain.runner(image, ids, mask)
    assert torch.equal(tuned.words, frozen.words)
    assert [torch.equal(a, b) for a, b in zip(tuned.pyramid, frozen.pyramid, strict=True)] == [True] * 4


@pytest.mark.parametrize("name", FULL_PROMISES)
def test_learned_state_restores_the_network_exactly(name):
    network = build(name, seed=1).eval()
    shake(network)
    state = {key: value.clone() for key, value in network.learned_state().items()}
    towers = {key for key, _ in network.named_parameters() if key.startswith(("text.", "vision."))}
    learned = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert towers & state.keys() == towers & learned, "frozen tower weights are not part of it"
    other = build(name, seed=2).eval()
    other.load_state_dict(state, strict=False)
    with torch.no_grad():
        assert torch.equal(other(*tiny_inputs()), network(*tiny_inputs()))


@pytest.mark.parametrize("name", FULL_PROMISES)
def test_checkpointing_gives_the_same_gradients(name):
    plain = build(name).train()
    shake(plain)
    again = build(name, grad_checkpointing="block").train()
    again.load_state_dict(plain.state_dict())
    gradients = []
    for network in (plain, again):
        torch.manual_seed(3)  # dropout, where there is any
        network(*tiny_inputs()).square().mean().backward()
        gradients.append({key: p.grad for key, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-6, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", FULL_PROMISES)
def test_runs_under_bf16_autocast(name):
    network = build(name).train()
    shake(network, scale=0.02)
    network.eval()
    image, ids, mask = tiny_inputs()
    exact = network(image, ids, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(image, ids, mask)
    rough.square().mean().backward()
    assert rough.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    assert (rough - exact).abs().mean() < 0.1 * exact.std() + 0.02


@pytest.mark.parametrize(
    # inductor, which `block` stands for, needs a C++ compiler and minutes; tracing and gradients are the same
    ("name", "backend"),
    [(name, "aot_eager") for name in FULL_PROMISES if name in ("s4eca", "lora", "bridge")]
    + [
        pytest.param(name, "aot_eager", marks=pytest.mark.slow)
        for name in FULL_PROMISES
        if name not in ("s4eca", "lora", "bridge")
    ]
    + [pytest.param("s4eca", "block", marks=pytest.mark.slow)],
)
def test_compiles_by_block(name, backend):
    torch._dynamo.reset()
    plain = build(name).eval()
    shake(plain)
    compiled = build(name, compile=backend).eval()
    compiled.load_state_dict(plain.state_dict())
    expected, got = plain(*tiny_inputs()), compiled(*tiny_inputs())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    expected.square().mean().backward()
    got.square().mean().backward()
    gradients = dict(compiled.named_parameters())
    for key, parameter in plain.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[key].grad, parameter.grad, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", FULL_PROMISES)
def test_frozen_parts_stay_in_eval_mode(name):
    network = build(name).train()
    for path, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            assert not module.training, path
    for tower in (network.text, network.vision):
        trained = any(p.requires_grad for p in tower.parameters())
        dropouts = [m.training for n, m in tower.named_modules() if isinstance(m, nn.Dropout) and "lora" not in n]
        if not trained or name == "lora":
            assert not any(dropouts)
    network.eval()
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("name", FULL_PROMISES)
def test_walks_every_step_of_both_towers_once_and_in_order(name):
    network = build(name)
    for tower in (network.text, network.vision):
        walked = [event.index for event in network.runner.schedule if getattr(event, "tower", None) == tower.kind]
        assert walked == list(range(len(tower.steps)))


@pytest.mark.parametrize("name", FULL_PROMISES)
def test_can_be_copied(name):
    network = build(name).eval()
    shake(network)
    twin = copy.deepcopy(network)
    assert twin.runner.method is twin.method
    with torch.no_grad():
        assert torch.equal(twin(*tiny_inputs()), network(*tiny_inputs()))


def test_below_the_first_adapter_nothing_is_recorded():
    network = tiny_segmenter(s4eca(None, {"density": [0, 0, 0, 1]}), None).train()
    seen = {}
    original = network.method.tap

    def spy(step, site, x, branch_in, context, carry):
        if site == "in":
            seen[step.tower, step.index] = x.requires_grad
        return original(step, site, x, branch_in, context, carry)

    network.method.tap = spy
    network(*tiny_inputs())
    first = min(int(index) for index in network.method.visual_adapters)
    assert first == 7
    assert [seen["vision", index] for index in range(9)] == [False] * 8 + [True]
    assert [seen["text", index] for index in range(4)] == [False, False, True, True]
