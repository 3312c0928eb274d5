"""CoLA: what an update computes, where it sits, and what of the expression it sees."""

import pytest
import torch

from s4eca.errors import S4ecaError
from s4eca.tuning import CoLA
from s4eca.tuning.base import Scope
from s4eca.tuning.cola import LanguageUpdate
from s4eca.tuning.lora import Update
from tiny import shake, tiny_inputs, tiny_segmenter, tiny_text, tiny_vision
from tiny_text import BERT
from tiny_vision import SWIN


def attached(scope=None, **options):
    text, vision = tiny_text(), tiny_vision()
    method = CoLA(**{"rank": 2, **options})
    method.attach(text, vision, scope or Scope())
    return method, text, vision


@pytest.mark.parametrize("shape", [(2, 3, 3, 8), (2, 10, 8)], ids=["grid", "tokens"])
def test_an_update_is_the_formula(shape):
    torch.manual_seed(0)
    update = LanguageUpdate(8, Update(4, 8, 0.0), 6, 0.5)
    x, language = torch.randn(shape), torch.randn(2, 6)
    assert torch.equal(update(x, language), torch.zeros(shape)), "nothing at the start"
    shake(update)
    a, b = update.down.weight, update.up.weight
    assert (a.shape, b.shape) == ((4, 8), (8, 4))
    for sample in range(2):
        phi = torch.diag(update.phi.weight @ language[sample])
        ax = x[sample].reshape(-1, 8) @ a.T
        expected = 8 / 4 * ax @ b.T + 0.5 * ax @ phi @ b.T
        torch.testing.assert_close(update(x, language)[sample].reshape(-1, 8), expected)


def test_parameters_by_hand():
    rank, hidden, width = 3, 10, BERT["hidden_size"]
    method, text, vision = attached(rank=rank, hidden=hidden)
    channels = [SWIN["embed_dim"] * 2**stage for stage, depth in enumerate(SWIN["depths"]) for _ in range(depth)]
    updates = sum(2 * (2 * c * rank + hidden * rank) for c in channels)
    hyper = width * hidden + hidden
    assert sum(p.numel() for p in method.parameters()) == updates + hyper
    lora = BERT["num_hidden_layers"] * 4 * 2 * width * rank
    assert sum(p.numel() for p in text.parameters() if p.requires_grad) == lora
    assert not any(p.requires_grad for p in vision.parameters())


def test_the_share_of_swin_b_and_bert_base():
    channels = sum(depth * 128 * 2**stage for stage, depth in enumerate((2, 2, 18, 2)))
    per_rank = 2 * 2 * channels + 2 * 24 * 64 + 12 * 4 * 2 * 768
    assert (per_rank, 768 * 64 + 64) == (124_928, 49_216)
    assert 100 * (16 * per_rank + 49_216) / 195.77e6 == pytest.approx(1.05, abs=0.005)


def test_updates_sit_at_the_branches_from_the_start_stage_on():
    assert {key: list(sites) for key, sites in attached()[0].updates.items()} == {
        str(index): ["attn", "mlp"] for index in range(9)
    }
    method, text, _ = attached(Scope(start_stage=3), branches=["mlp"])
    assert {key: list(sites) for key, sites in method.updates.items()} == {str(index): ["mlp"] for index in range(4, 9)}
    assert sum(".lora_A." in name for name, _ in text.named_parameters()) == 4 * 4


def test_the_text_tower_can_be_left_alone():
    method, text, _ = attached(text_layers=[])
    assert not any(p.requires_grad for p in text.parameters())
    assert method.updates


def test_the_words_reach_the_pyramid_without_a_fusion_and_their_order_of_padding_does_not():
    network = tiny_segmenter(CoLA(rank=4, text_layers=[]), None).eval()
    image, ids, mask = tiny_inputs()
    with torch.no_grad():
        other = ids.flip(1) * mask + 7 * mask
        start = [network(image, words, mask) for words in (ids, other)]
        shake(network)
        moved = [network(image, words, mask) for words in (ids, other)]
        padded = network(image, torch.where(mask.bool(), ids, 99), mask)
    assert torch.equal(*start)
    assert (moved[0] - moved[1]).abs().max() > 1e-3
    assert torch.equal(padded, moved[0])


def test_without_a_fusion_everything_is_reached_by_the_third_backward():
    network = tiny_segmenter(CoLA(rank=2), None).train()
    learned = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(learned.values(), lr=1e-2)
    reached: list[set[str]] = []
    for seed in range(3):
        optimizer.zero_grad()
        network(*tiny_inputs(seed)).square().mean().backward()
        reached.append({name for name, p in learned.items() if p.grad is not None and p.grad.abs().sum() > 0})
        optimizer.step()
    groups = [{name.split(".")[-2] for name in names if name.startswith("method.updates")} for names in reached]
    assert groups == [{"up"}, {"up", "down", "phi"}, {"up", "down", "phi"}]
    assert reached[2] == learned.keys()


def test_dropout_acts_in_training_only():
    network = tiny_segmenter(CoLA(rank=2, dropout=0.5), None).eval()
    shake(network)
    with torch.no_grad():
        logits = [network.train(mode)(*tiny_inputs()) for mode in (True, True, False, False)]
    assert not torch.equal(logits[0], logits[1])
    assert torch.equal(logits[2], logits[3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": []}, r"tuning\.branches=\[\] must name attn, mlp, or both"),
        ({"branches": ["out"]}, r"tuning\.branches=\['out'\]"),
        ({"language_scale": 0}, r"tuning\.language_scale=0 must be above 0.*tuning=lora"),
        ({"hidden": 0}, r"tuning\.hidden=0 cannot be"),
        ({"rank": 0}, r"tuning\.rank=0 cannot be"),
        ({"text_layers": ["wrong"]}, r"tuning\.text_layers names 'wrong'.*available are attention\.self\.query"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(S4ecaError, match=message):
        attached(**options)


def test_a_branch_that_the_tower_does_not_have_is_refused():
    from dataclasses import replace

    text, vision = tiny_text(), tiny_vision()
    vision.steps = [replace(step, sites=("in", "mlp", "out", "stage_out")) for step in vision.steps]
    with pytest.raises(S4ecaError, match=r"tuning\.branches=\['attn'\] is in no block of the swin tower"):
        CoLA(branches=["attn"]).attach(text, vision)
    method = CoLA(rank=2)
    method.attach(text, vision)
    assert {tuple(sites) for sites in method.updates.values()} == {("mlp",)}
