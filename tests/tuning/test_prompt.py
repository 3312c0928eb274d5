"""Deep prompts: against the libraries' own blocks on longer sequences, their size, and what is refused."""

import pytest
import torch

from s4eca.errors import S4ecaError
from s4eca.fusion.film import FiLM
from s4eca.tuning import DeepPrompts
from s4eca.tuning.base import Scope
from tiny import tiny_inputs, tiny_segmenter, tiny_text, tiny_vision


def learned(method) -> int:
    return sum(parameter.numel() for parameter in method.parameters())


def network(**options):
    torch.manual_seed(0)
    towers = {key: options.pop(key) for key in ("vision_family", "text_family") if key in options}
    method = DeepPrompts(**options)
    return tiny_segmenter(method, FiLM, towers.get("vision_family", "swin"), towers.get("text_family", "bert")).eval()


def test_words_by_hand():
    """BERT's own layers on (prompts, words), whose mask shows the prompts to everything."""
    net = network(tokens=3)
    image, ids, mask = tiny_inputs()
    model = net.text.model
    seen = torch.cat([torch.ones(2, 3), mask], dim=1).bool()[:, None, None].expand(2, 1, 11, 11)
    with torch.no_grad():
        hidden = model.embeddings(ids)
        for layer, prompts in zip(model.encoder.layer, net.method.layers["text"].values(), strict=True):
            hidden = layer(torch.cat([prompts.prompts.expand(2, -1, -1), hidden], dim=1), seen)[:, 3:]
        words = net.runner(image, ids, mask).words
        plain = model(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(words, hidden, rtol=1e-4, atol=1e-5)
    assert (words - plain).abs().max() > 1e-2


def test_a_causal_tower_shows_the_prompts_to_every_word():
    net = network(tokens=2, text_family="clip")
    _, ids, mask = tiny_inputs()
    first = net.text.begin(ids, mask)
    step, layer = net.text.steps[0], net.method.layers["text"]["0"]
    hidden = []
    for shift in (0.0, 1.0):
        with torch.no_grad():
            layer.prompts += shift * torch.randn(layer.prompts.shape)
            hidden.append(
                net.text.step(
                    0, first, lambda site, x, branch_in=None: net.method.tap(step, site, x, branch_in, None, {})[0]
                ).hidden
            )
    assert ((hidden[1] - hidden[0]).abs().amax(dim=-1) > 1e-4).all()


@pytest.mark.parametrize("family", ["vit", "dinov3"])
def test_pixels_by_hand(family):
    """timm's own blocks on (class token and registers, prompts, pixels)."""
    net = network(tokens=3, text=False, vision=True, vision_family=family)
    model, prefix = net.vision.model, net.vision.steps[0].prefix
    assert prefix == 5
    image, ids, mask = tiny_inputs()
    with torch.no_grad():
        x = net.vision.begin(image).hidden
        states = []
        for block, layer in zip(model.blocks, net.method.layers["vision"].values(), strict=True):
            rope = {}
            if family == "dinov3":  # timm rotates what comes after so many tokens
                block.attn.num_prefix_tokens = prefix + 3
                rope = {"rope": model.rope.get_embed()}
            longer = torch.cat([x[:, :prefix], layer.prompts.expand(2, -1, -1), x[:, prefix:]], dim=1)
            longer = block(longer, **rope)
            x = torch.cat([longer[:, :prefix], longer[:, prefix + 3 :]], dim=1)
            if family == "dinov3":
                block.attn.num_prefix_tokens = prefix
            states.append(x)
        third = net.runner(image, ids, mask).pyramid[2]
    # of four blocks each ends a stage; the third is not resized
    torch.testing.assert_close(third.flatten(1, 2), states[2][:, prefix:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "dinov3"])
def test_gradients_reach_every_prompt(family):
    net = network(tokens=3, text=False, vision=True, vision_family=family).train()
    net(*tiny_inputs()).square().mean().backward()
    prompts = dict(net.method.named_parameters())
    assert len(prompts) == 4
    assert [name for name, parameter in prompts.items() if parameter.grad.abs().sum() == 0] == []


def test_sizes_by_hand():
    assert learned(network(tokens=7).method) == 4 * 7 * 32
    both = network(tokens=7, vision=True, vision_family="vit").method
    assert learned(both) == 4 * 7 * 32 + 4 * 7 * 32
    method = DeepPrompts(tokens=7, text=False, vision=True)
    method.attach(tiny_text(), tiny_vision("vit"), Scope(start_stage=3))
    assert list(method.layers["vision"]) == ["2", "3"]
    assert list(method.layers["text"]) == []


def test_values_are_drawn_within_vpts_bound():
    # width 32: sqrt(3 / 32) = 0.306; the bound of ViT-B/16 in VPT is sqrt(6 / (3 * 16 * 16 + 768)) = sqrt(3 / 768)
    values = torch.cat([p.flatten() for p in network(tokens=200).method.parameters()])
    assert 0.30 < values.abs().max() <= (3 / 32) ** 0.5
    assert values.std().item() == pytest.approx(32**-0.5, rel=0.02)
    assert (6 / (3 * 16 * 16 + 768)) ** 0.5 == (3 / 768) ** 0.5


@pytest.mark.parametrize("family", ["swin", "swinv2", "convnext"])
def test_windows_and_convolutions_are_refused(family):
    with pytest.raises(S4ecaError, match=rf"tuning=prompt .* {family} .*; set tuning\.vision=false"):
        DeepPrompts(vision=True).attach(tiny_text(), tiny_vision(family))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, r"tuning\.tokens=0 must be a whole number from 1 on"),
        ({"text": False}, r"tuning=prompt has prompts in neither tower; set tuning\.text=true"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, message):
    with pytest.raises(S4ecaError, match=message):
        DeepPrompts(**options)
