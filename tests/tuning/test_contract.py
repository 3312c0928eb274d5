"""The promises that every tuning method keeps, on every family of towers."""

import copy
from functools import lru_cache

import pytest
import torch
from torch import nn

from s4eca.errors import S4ecaError
from s4eca.fusion.film import FiLM
from s4eca.runner import Walked
from s4eca.segmenter import ReferringSegmenter
from s4eca.tuning import Frozen
from tiny import shake, tiny_inputs, tiny_segmenter
from tiny_text import TEXT
from tiny_vision import VISION
from tuning.methods import FULL_PROMISES, METHODS, s4eca

# every family of towers beside the default of the other kind
TOWERS = [(vision, "bert") for vision in VISION] + [("swin", text) for text in TEXT if text != "bert"]
# an ablation of a method that runs on all of them
ABLATION_TOWERS = [(TOWERS[0], ()), (TOWERS[1], pytest.mark.slow)]
PAIRS = [
    pytest.param(name, *towers, id=f"{name}-{'-'.join(towers)}", marks=marks)
    for name in METHODS
    for towers, marks in ([(it, ()) for it in TOWERS] if METHODS[name].every else ABLATION_TOWERS)
]


def build(name: str, vision: str = "swin", text: str = "bert", seed: int = 0, **options) -> ReferringSegmenter:
    torch.manual_seed(seed)
    case = METHODS[name]
    make = (case.others or {}).get(vision, case.method)
    return tiny_segmenter(make(), case.fusion, vision, text, **options)


def fits(name: str, vision: str, text: str) -> bool:
    return not {vision, text} & set(METHODS[name].refuses)


def frozen_weights(network: ReferringSegmenter) -> dict[str, torch.Tensor]:
    learned = network.learned_state()
    return {name: value.clone() for name, value in network.state_dict().items() if name not in learned}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(("name", "vision", "text"), PAIRS)
def test_gradients_reach_everything_learned_and_nothing_frozen(name, vision, text):
    if not fits(name, vision, text):
        with pytest.raises(S4ecaError, match=rf"tuning={METHODS[name].method().name}\b"):
            build(name, vision, text)
        return
    network = build(name, vision, text).train()
    before = frozen_weights(network)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2, fused=True)
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


@lru_cache
def walked_frozen(vision: str, text: str) -> Walked:
    with torch.no_grad():
        return tiny_segmenter(Frozen(), FiLM, vision, text).eval().runner(*tiny_inputs())


@pytest.mark.parametrize(("name", "vision", "text"), [pair for pair in PAIRS if pair.values[0] in FULL_PROMISES])
def test_equal_to_the_frozen_towers_at_initialisation(name, vision, text):
    if not fits(name, vision, text):
        pytest.skip(f"{name} refuses these towers")
    network = build(name, vision, text).eval()
    if not network.method.capabilities.identity:
        pytest.skip(f"{name} does not promise it")
    frozen = walked_frozen(vision, text)
    with torch.no_grad():
        tuned = network.runner(*tiny_inputs())
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


STAGES = ("s4eca", "etris", "lora", "full")  # the others recompute stages alike


@pytest.mark.parametrize(
    ("name", "recomputed"),
    [(name, "block") for name in FULL_PROMISES]
    + [pytest.param(name, "stage", marks=() if name in STAGES else pytest.mark.slow) for name in FULL_PROMISES],
)
def test_checkpointing_gives_the_same_gradients(name, recomputed):
    if name == "frozen":
        with pytest.raises(S4ecaError, match="lets no gradient into the towers"):
            build(name, grad_checkpointing=recomputed)
        return
    plain = build(name).train()
    shake(plain)
    again = build(name, grad_checkpointing=recomputed).train()
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


# tests/test_segmenter.py compiles S4ECA in every run; inductor, which `block` stands for, needs a C++ compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, "aot_eager") for name in FULL_PROMISES] + [("s4eca", "eager"), ("etris", "eager"), ("s4eca", "block")],
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
        dropouts = [m.training for n, m in tower.named_modules() if isinstance(m, nn.Dropout) and "lora" not in n]
        if not network.method.name.startswith("full"):
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


@pytest.mark.parametrize("name", [name for name in FULL_PROMISES if name not in ("frozen", "full_lavt")])
def test_below_the_start_stage_nothing_is_learned_or_recorded(name):
    network = build(name, start_stage=3).train()
    seen = {}
    original = network.vision.step

    def spy(index, state, tap):
        seen[index] = state.hidden.requires_grad
        return original(index, state, tap)

    network.vision.step = spy
    reached: set[str] = set()
    for seed in range(METHODS[name].backwards + 1):
        network(*tiny_inputs(seed)).square().mean().backward()
        reached |= {key for key, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    assert [seen[index] for index in range(4)] == [False] * 4
    learned = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert learned - reached == set()
    low = ("vision.model.layers.0.", "vision.model.layers.1.", "vision.model.patch_embed.")
    assert not [key for key in learned if key.startswith(low)]
    everywhere = {key for key, parameter in build(name).named_parameters() if parameter.requires_grad}
    # deep prompts are in the text tower alone, which a start stage does not concern
    assert len(learned) < len(everywhere) or (name == "prompt" and learned == everywhere)


@pytest.mark.parametrize("name", FULL_PROMISES)
def test_side_is_exact_or_refused(name):
    if not build(name).method.capabilities.side:
        with pytest.raises(S4ecaError, match=r"has no side form, only s4eca and frozen have"):
            build(name, placement="side")
        return
    network = build(name, placement="side").train()
    shake(network)
    encoded = network.runner.encode(*tiny_inputs())
    assert not any(state.requires_grad for state in [*encoded.words, *encoded.stages])
    assert torch.equal(network.eval()(*tiny_inputs()), network(*tiny_inputs(), encoded))


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
