"""What every vision family keeps beside a tuning method: recomputation, autocast, compile by block."""

import pytest
import torch

from s4eca.fusion.film import FiLM
from tiny import shake, tiny_inputs, tiny_segmenter
from tuning.methods import s4eca

FAMILIES = ["convnext", "vit", "dinov3"]


def build(family, **options):
    torch.manual_seed(0)
    network = tiny_segmenter(s4eca(), FiLM, family, **options).eval()
    shake(network, scale=0.02)
    return network


def gradients(network, loss):
    loss.backward()
    return {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recomputed", ["block", "stage"])
def test_checkpointing_gives_the_same_gradients(family, recomputed):
    plain, again = build(family), build(family, grad_checkpointing=recomputed)
    expected = gradients(plain, plain(*tiny_inputs()).square().mean())
    got = gradients(again, again(*tiny_inputs()).square().mean())
    assert expected.keys() == got.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(got[key], gradient, rtol=1e-6, atol=1e-6, msg=key)


@pytest.mark.parametrize("family", FAMILIES)
def test_runs_under_bf16_autocast(family):
    network = build(family)
    exact = network(*tiny_inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(*tiny_inputs())
    assert (rough - exact).abs().mean() < 0.1 * exact.std() + 0.02
    assert all(gradient.isfinite().all() for gradient in gradients(network, rough.square().mean()).values())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_compiles_by_block(family):
    torch._dynamo.reset()
    plain, compiled = build(family), build(family, compile="aot_eager")
    torch.testing.assert_close(compiled(*tiny_inputs()), plain(*tiny_inputs()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_below_the_start_stage_nothing_is_recorded(family):
    network = build(family, start_stage=3)
    seen = {}
    original = network.vision.step

    def spy(index, state, tap):
        seen[network.vision.steps[index].stage] = state.hidden.requires_grad
        return original(index, state, tap)

    network.vision.step = spy
    network(*tiny_inputs()).mean().backward()
    assert not seen[0]
    assert not seen[1]
