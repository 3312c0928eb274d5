"""S4ECA at the side of the towers."""

import pytest
import torch

from s4eca.errors import S4ecaError
from s4eca.segmenter import ReferringSegmenter
from s4eca.tuning.base import Context
from tiny import shake, tiny_inputs, tiny_segmenter
from tuning.methods import s4eca

FORMS = {
    "proxies": {},
    "routed": {"routing": [1, 1, 2, 3]},
    "routed_fresh": {"routing": [1, 3, 1, 3], "text": {"recurrent": False, "density": 0.5}},
    "words": {"language": "words", "text": {"enabled": False}},
    "mean_word": {"language": "mean_word", "text": {"enabled": False}},
    "dropout": {"text": {"dropout": 0.2}, "visual": {"dropout": 0.2}},
    "no_second_stage": {"visual": {"density": [0.5, 0, 0.3, 1]}},
    "single_kernel": {"visual": {"kernels": [3], "scale": "uniform"}},
}


def beside(vision="swin", start_stage=1, seed=0, **settings) -> ReferringSegmenter:
    torch.manual_seed(seed)
    return tiny_segmenter(s4eca(**settings), None, vision, placement="side", start_stage=start_stage)


@pytest.mark.parametrize("start_stage", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_everything_by_the_third_backward(form, start_stage):
    network = beside(start_stage=start_stage, **FORMS[form]).train()
    target = torch.randn(2, 64, 64)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    reached = set()
    for seed in range(3):
        optimizer.zero_grad()
        (network(*tiny_inputs(seed)) * target).mean().backward()
        reached |= {key for key, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    learned = {key for key, p in network.named_parameters() if p.requires_grad}
    assert learned - reached == set()
    assert not [key for key in reached if key.startswith(("text.", "vision."))]
    density = FORMS[form].get("visual", {}).get("density", [1, 1, 1, 1])
    ends = [1, 3, 6, 8]  # of stages of 2, 2, 3, 2 blocks
    wanted = [str(end) for stage, end in enumerate(ends) if density[stage] and stage + 1 >= start_stage]
    assert list(network.method.visual_adapters) == wanted


def test_nothing_that_the_towers_computed_is_kept_for_the_backward_pass():
    network = beside().train()
    shake(network)
    weights = {p.data_ptr() for tower in (network.text, network.vision) for p in tower.parameters()}
    walked, recorded, inside = [], [], False
    step, encode = network.vision.step, network.runner.encode

    def spy(index, state, tap):
        result = step(index, state, tap)
        walked.append((state.hidden.requires_grad, result.hidden.requires_grad, torch.is_grad_enabled()))
        return result

    def watched(*inputs):
        nonlocal inside
        inside = True
        encoded = encode(*inputs)
        inside = False
        return encoded

    def pack(tensor):
        recorded.append((inside, tensor.untyped_storage().data_ptr() in weights))
        return tensor

    network.vision.step, network.runner.encode = spy, watched
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(*tiny_inputs())
    assert walked == [(False, False, False)] * 9
    assert recorded
    assert not any(within or of_a_tower for within, of_a_tower in recorded)


@pytest.mark.parametrize("vision", ["swin", "swinv2", "vit"])
def test_equal_to_the_frozen_towers_at_initialisation_and_one_residual_per_stage(vision):
    network = beside(vision).eval()
    encoded = network.runner.encode(*tiny_inputs())
    context = Context(tiny_inputs()[2].bool())
    with torch.no_grad():
        same = network.method.side(encoded.words, encoded.stages, context)
        assert all(torch.equal(one, other) for one, other in zip(same, encoded.stages, strict=True))
        shake(network.method)
        walked = network.runner(*tiny_inputs())
        changed = network.method.side(encoded.words, encoded.stages, context)
    assert torch.equal(walked.words, encoded.words[-1]), "the words stay the frozen tower's"
    for stage, (one, other) in enumerate(zip(changed, encoded.stages, strict=True)):
        assert one.shape == other.shape
        assert (one - other).abs().max() > 1e-4, stage


@pytest.mark.parametrize("form", FORMS)
def test_language_matters_and_padding_does_not(form):
    network = beside(**FORMS[form]).eval()
    shake(network)
    image, ids, mask = tiny_inputs(batch=3)
    junk = torch.full((3, 4), 77)
    with torch.no_grad():
        logits = network(image, ids, mask)
        other = network(image, ids.flip(1) * mask + 7 * mask, mask)
        longer = network(image, torch.cat([ids, junk], 1), torch.cat([mask, torch.zeros_like(junk)], 1))
    assert (logits - other).abs().max() > 1e-3
    torch.testing.assert_close(longer, logits, rtol=1e-4, atol=1e-5)


def test_information_climbs_the_ladder():
    network = beside().eval()
    shake(network)
    assert [adapter.climb is not None for adapter in network.method.visual_adapters.values()] == [False] + [True] * 3
    encoded = network.runner.encode(*tiny_inputs())
    context = Context(tiny_inputs()[2].bool())
    finest = [encoded.stages[0] + torch.randn_like(encoded.stages[0]), *encoded.stages[1:]]

    def far() -> float:
        with torch.no_grad():
            one = network.method.side(encoded.words, encoded.stages, context)
            other = network.method.side(encoded.words, finest, context)
        return float((one[3] - other[3]).abs().max())

    assert far() > 1e-5, "the coarsest stage sees a change of the finest"
    network.method.visual_adapters["3"].climb.weight.data.zero_()
    assert far() == 0, "only through the rungs between them"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"language": "words"}, r"tuning.language=words nothing reads the text adapters.*text.enabled=false"),
        ({"language": "mean_word"}, r"tuning.language=mean_word nothing reads the text adapters"),
        ({"visual": {"density": [0, 0, 0, 0]}}, r"leaves no visual adapter with model.segmenter.placement=side"),
        ({"visual": {"density": [1, 1, 0, 0]}, "start_stage": 3}, r"start_stage=3; give a stage from 3 on a share"),
        ({"text": {"recurrent": False}}, r"recurrent=false nothing reads the adapters of text layers \[1, 2\]"),
        ({"routing": [3, 1, 2, 2], "start_stage": 2}, r"and 3 for a stage that has visual adapters"),
    ],
)
def test_what_the_side_form_cannot_use_is_refused(settings, message):
    with pytest.raises(S4ecaError, match=message):
        beside(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visual": {"density": [1, 1, 0, 0]}}, r"density=\[1, 1, 0, 0\] leaves no visual adapter with.*start_stage=3"),
        ({"routing": [3, 3, 1, 2]}, r"and 3 for a stage that has visual adapters"),
    ],
)
def test_a_start_stage_without_readers_is_refused_inside_too(settings, message):
    with pytest.raises(S4ecaError, match=message):
        tiny_segmenter(s4eca(**settings), None, start_stage=3)
