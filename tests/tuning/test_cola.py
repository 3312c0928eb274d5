"""CoLA: what an update computes, which layers have one, what is walked beside what, and what each side sees."""

import copy

import pytest
import torch
from torch import nn

from s4eca.budget import solve_budget
from s4eca.errors import S4ecaError
from s4eca.fusion.film import FiLM
from s4eca.fusion.pwam import PWAM
from s4eca.runner import Walked
from s4eca.tuning import CoLA
from s4eca.tuning.base import INSIDE, Context, Scope, Walk
from s4eca.tuning.cola import Condition, CrossModalLinear, lockstep
from s4eca.tuning.lora import Update
from tiny import shake, tiny_inputs, tiny_segmenter, tiny_text, tiny_vision
from tiny_text import BERT, TEXT
from tiny_vision import SWIN, VISION


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def attached(scope=INSIDE, vision="swin", text="bert", **options):
    towers = tiny_text(text), tiny_vision(vision)
    method = CoLA(**{"rank": 2, **options})
    method.attach(*towers, scope)
    return method, *towers


def updates(tower) -> dict[str, CrossModalLinear]:
    return {name: part for name, part in tower.model.named_modules() if isinstance(part, CrossModalLinear)}


def learned(*modules) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("shape", [(2, 3, 3, 8), (2, 10, 8), (4, 5, 8)], ids=["grid", "tokens", "two windows each"])
def test_an_update_is_the_formula(shape, parts):
    rank, alpha, features, out = 3, 6, 40, 12
    plain, condition = nn.Linear(8, out), Condition()
    plain.requires_grad_(False)
    update = CrossModalLinear(plain, parts, condition, features, Update(rank, alpha, 0.0), 10)
    x, condition.value = torch.randn(shape), torch.randn(2, features)
    assert torch.equal(update(x), plain(x)), "nothing at the start"
    assert update.cross_scale.tolist() == [2.0] * parts
    shake(update)
    rows, size = x.reshape(2, -1, 8), out // parts
    expected = plain(rows)
    for sample in range(2):
        for part in range(parts):
            a, c = (weight[part * rank : (part + 1) * rank] for weight in (update.down, update.cross_down))
            phi = update.hyper[part](condition.value)[sample]
            assert phi.shape == (rank, rank)
            delta = alpha / rank * update.up[part] @ a + update.cross_scale[part] * update.cross_up[part] @ phi @ c
            expected[sample, :, part * size : (part + 1) * size] += rows[sample] @ delta.T
    torch.testing.assert_close(update(x), expected.reshape(*shape[:-1], out), rtol=1e-4, atol=1e-5)


def test_a_hyper_network_is_the_one_that_is_described():
    hyper = CrossModalLinear(nn.Linear(8, 8), 1, Condition(), 64, Update(3, 8, 0.0), 16).hyper[0]
    first, act, norm, second, last = hyper[:5]
    c = torch.randn(2, 64)
    assert (first.out_features, second.out_features) == (4, 9)
    values = second(norm(nn.functional.gelu(first(c))))
    assert isinstance(act, nn.GELU)
    phi = (values - values.mean(1, keepdim=True)) / (values.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(hyper(c), phi.view(2, 3, 3), msg="normed over all of Phi")
    assert (last.weight.numel(), last.bias.numel()) == (9, 9)


def test_the_part_within_the_modality_folds_into_the_weight():
    plain, condition = nn.Linear(8, 12), Condition()
    update = CrossModalLinear(copy.deepcopy(plain), 3, condition, 16, Update(2, 8, 0.0), 16)
    x, condition.value = torch.randn(2, 5, 8), torch.randn(2, 16)
    shake(update)
    with torch.no_grad():
        before = update(x)
        for part in range(3):
            update.layer.weight[4 * part : 4 * part + 4] += 4 * update.up[part] @ update.down[2 * part : 2 * part + 2]
        update.up.zero_()
        torch.testing.assert_close(update(x), before)


def official_block(width: int, condition: int, rank: int) -> int:
    """What the official layers learn in a block of MLP ratio 4: `CMLinear`, and `CMMergedLinear` for q, k and v."""
    hidden = condition // 16
    mlp = (condition * hidden + hidden) + 2 * hidden + (hidden * rank**2 + rank**2) + 2 * rank**2
    one = mlp + 1  # and the learned scale
    square, wide = 2 * 2 * rank * width, 2 * rank * (width + 4 * width)  # two pairs each
    return 3 * (square + one) + (square + one) + 2 * (wide + one)


def full_size(monkeypatch, vision):
    """BERT-base and a vision tower with shapes and no values."""
    from s4eca.towers import BertTower

    for module in ("swin", "vit", "transformers_text"):
        monkeypatch.setattr(f"s4eca.towers.{module}.hash_weights", lambda state: "none")
    with torch.device("meta"):
        return BertTower(weights="random"), vision()


def test_parameters_are_those_of_the_official_layers(monkeypatch):
    """The official network is ViT-B beside BERT-base, rank 16, every layer with both pairs: no number is published.

    Counted from the structure of its layers, 742,758 in each of the 24 blocks.
    """
    from s4eca.towers import ViTTower

    text, vision = full_size(
        monkeypatch, lambda: ViTTower("vit_base_patch16_224.augreg_in21k", "random", image_size=448)
    )
    with torch.device("meta"):
        CoLA().attach(text, vision)
    assert official_block(768, 768, 16) == 742_758
    assert learned(text) == learned(vision) == 12 * 742_758 == 17_826_192 // 2


def test_parameters_of_swin_b_and_bert_base_and_a_small_budget(monkeypatch):
    from s4eca.towers import SwinTower

    text, vision = full_size(monkeypatch, lambda: SwinTower(weights="random"))
    towers = text.size + vision.size
    widths = [width for width, depth in ((128, 2), (256, 2), (512, 18), (1024, 2)) for _ in range(depth)]
    expected = sum(official_block(width, 768, 16) for width in widths)
    expected += sum(official_block(768, widths[2 * layer], 16) for layer in range(12))
    node = {"_target_": "s4eca.tuning.CoLA", "rank": 16, "alpha": 8, "reduction": 64}
    _, solved = solve_budget(node, text, vision, 2.4, INSIDE)  # as in conf/comparison/cola.yaml
    assert solved.widths == {"rank": 4}
    assert solved.percent == pytest.approx(2.4, rel=0.05)
    with torch.device("meta"):
        CoLA().attach(text, vision)
    assert learned(text, vision) == expected == 21_396_552
    assert 100 * expected / towers == pytest.approx(10.93, abs=0.005)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("text", TEXT)
def test_every_linear_layer_of_every_block_has_an_update(vision, text):
    _, *towers = attached(vision=vision, text=text)
    for tower in towers:
        names = {id(module): name for name, module in tower.model.named_modules()}
        blocks = [names[id(tower.block(step.index))] for step in tower.steps]
        listed = (*tower.attention_layers, *tower.mlp_layers)
        assert updates(tower).keys() == {f"{block}.{layer}" for block in blocks for layer in listed}
        plain = [
            name
            for name, part in tower.model.named_modules()
            if isinstance(part, nn.Linear) and not part.weight.requires_grad and any(name.startswith(b) for b in blocks)
        ]
        missed = {name.rpartition(".")[2] for name in plain if not name.endswith(".layer")}
        assert missed <= ({"qkv", "0", "2"} if vision == "swinv2" else set()), "Swin V2's qkv and position MLP"


def test_blocks_below_the_start_stage_have_none_and_the_words_see_them_all_the_same():
    method, text, vision = attached(Scope(start_stage=3))
    assert {name.split(".")[1] for name in updates(vision)} == {"2", "3"}
    assert len(updates(text)) == 4 * 6
    assert method.pairs == attached()[0].pairs


@pytest.mark.parametrize(
    ("layers", "blocks", "pairs"),
    [
        (12, 12, [([layer], [layer]) for layer in range(12)]),
        (12, 24, [([layer], [2 * layer, 2 * layer + 1]) for layer in range(12)]),
        (4, 9, [([0], [0, 1, 2]), ([1], [3, 4]), ([2], [5, 6]), ([3], [7, 8])]),
        (5, 3, [([0, 1], [0]), ([2, 3], [1]), ([4], [2])]),
        (1, 4, [([0], [0, 1, 2, 3])]),
    ],
)
def test_the_encoders_are_in_lockstep_by_depth(layers, blocks, pairs):
    assert [(list(one), list(other)) for one, other in lockstep(layers, blocks)] == pairs


def test_each_side_sees_the_others_mean_token_as_it_enters_the_pair(monkeypatch):
    network = tiny_segmenter(CoLA(rank=2), PWAM, "vit").eval()
    shake(network)
    seen, told = {}, {}
    for tower in (network.text, network.vision):
        original = tower.step

        def spy(index, state, tap, tower=tower, original=original):
            seen[tower.kind, index] = state.hidden
            layer = next(part for part in tower.block(index).modules() if isinstance(part, CrossModalLinear))
            hook = layer.register_forward_pre_hook(
                lambda module, _: told.update({(tower.kind, index): module.condition.value})
            )
            state = original(index, state, tap)
            hook.remove()
            return state

        monkeypatch.setattr(tower, "step", spy)
    image, ids, mask = tiny_inputs()
    with torch.no_grad():
        network(image, ids, mask)
    assert seen.keys() == told.keys() == {(kind, index) for kind in ("text", "vision") for index in range(4)}
    for index in range(4):
        words, tokens = seen["text", index], seen["vision", index]
        prefix = network.vision.steps[index].prefix
        assert prefix > 0
        expected = torch.stack([row[real.bool()].mean(0) for row, real in zip(words, mask, strict=True)])
        torch.testing.assert_close(told["vision", index], expected)
        torch.testing.assert_close(told["text", index], tokens[:, prefix:].mean(1))
    assert network.runner.schedule[:3] == [Walk("vision", 0), Walk("text", 0), Walk("vision", 1)]
    assert all(condition.value is None for condition in network.method.conditions.values())


def walked(network, image, ids, mask) -> Walked:
    with torch.no_grad():
        return network.runner(image, ids, mask)


def test_words_change_pixels_and_pixels_change_words():
    network = tiny_segmenter(CoLA(rank=4), FiLM).eval()
    image, ids, mask = tiny_inputs()
    other_image, other_ids = image.flip(0), ids.flip(1) * mask + 7 * mask
    start, same = walked(network, image, ids, mask), walked(network, other_image, ids, mask)
    assert torch.equal(start.words, same.words)
    shake(network)
    first = walked(network, image, ids, mask)
    said, shown = walked(network, image, other_ids, mask), walked(network, other_image, ids, mask)
    assert (first.pyramid[0] - said.pyramid[0]).abs().max() > 1e-3, "from the first stage on"
    assert (first.words - shown.words).abs().max() > 1e-3
    assert torch.equal(walked(network, image, torch.where(mask.bool(), ids, 99), mask).words[0], first.words[0])


def test_gradients_come_in_two_steps():
    network = tiny_segmenter(CoLA(rank=2), PWAM).train()
    towers = {
        name: p
        for tower in (network.text, network.vision)
        for name, p in tower.named_parameters(tower.kind)
        if p.requires_grad
    }
    optimizer = torch.optim.AdamW(towers.values(), lr=1e-2)
    reached: list[set[str]] = []
    for seed in range(2):
        optimizer.zero_grad()
        network(*tiny_inputs(seed)).square().mean().backward()
        reached.append({name for name, p in towers.items() if p.grad is not None and p.grad.abs().sum() > 0})
        optimizer.step()
    assert {name.rpartition(".")[2] for name in reached[0]} == {"up", "cross_up"}
    assert reached[1] == towers.keys()


def test_dropout_acts_in_training_only_and_nothing_is_shared_that_it_could_spoil():
    network = tiny_segmenter(CoLA(rank=2, dropout=0.5), PWAM, encode_once=True).eval()
    shake(network)
    with torch.no_grad():
        words = [network.train(mode).runner(*tiny_inputs()).words for mode in (True, True, False, False)]
    assert not torch.equal(words[0], words[1])
    assert torch.equal(words[2], words[3])


def test_a_copy_made_in_the_middle_of_a_walk_is_a_whole_network():
    network = tiny_segmenter(CoLA(rank=2), PWAM).eval()
    shake(network)
    expected = network(*tiny_inputs())
    for condition in network.method.conditions.values():
        condition.value = expected  # no leaf of the graph, which torch refuses to copy
    twin = copy.deepcopy(network)
    assert torch.equal(twin(*tiny_inputs()), expected)
    held = {id(part.condition) for part in twin.modules() if isinstance(part, CrossModalLinear)}
    assert held == {id(condition) for condition in twin.method.conditions.values()}


def test_without_a_fusion_the_last_layer_would_learn_nothing():
    with pytest.raises(S4ecaError, match=r"tuning=cola .* last text layer .* fusion=pwam or fusion=film"):
        tiny_segmenter(CoLA(rank=2), None)


def test_a_fusion_with_feedback_is_refused():
    from functools import partial

    with pytest.raises(S4ecaError, match=r"tuning=cola walks both towers in turn.*fusion\.feedback=false"):
        tiny_segmenter(CoLA(rank=2), partial(PWAM, feedback=True))


def test_the_start_is_the_mean_of_the_embedded_words():
    words, mask = torch.randn(2, 3, 5), torch.tensor([[True, True, False], [True, False, False]])
    start = CoLA().begin(words, Context(mask))["words"]
    torch.testing.assert_close(start, torch.stack([words[0, :2].mean(0), words[1, 0]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"tuning\.rank=0 cannot be"),
        ({"rank": 1}, r"tuning\.rank=1 .* 2 or more"),
        ({"alpha": 0}, r"tuning\.alpha=0 must be above 0"),
        ({"reduction": 0}, r"tuning\.reduction=0 must be a whole number"),
        ({"dropout": 1.0}, r"tuning\.dropout=1\.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(S4ecaError, match=message):
        attached(**options)


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_a_tower_without_linear_layers_is_refused(kind):
    towers = {"text": tiny_text(), "vision": tiny_vision()}
    towers[kind].attention_layers = towers[kind].mlp_layers = ()
    with pytest.raises(S4ecaError, match=rf"blocks of this {towers[kind].family} tower have none.*another {kind}"):
        CoLA().attach(**towers)


def test_widths_of_tiny_towers_by_hand():
    method, text, vision = attached(rank=3)
    stages = {index: SWIN["embed_dim"] * 2**stage for index, stage in enumerate((0, 0, 1, 1, 2, 2, 2, 3, 3))}
    for layers, blocks in method.pairs:
        for layer in layers:
            query = text.block(layer).attention.self.query
            assert query.hyper[0][0].in_features == stages[blocks[0]]
    qkv, fc2 = vision.block(8).attn.qkv, vision.block(8).mlp.fc2
    assert (qkv.down.shape, qkv.up.shape, len(qkv.hyper)) == ((9, 128), (3, 128, 3), 3)
    assert (fc2.down.shape, fc2.up.shape, len(fc2.hyper)) == ((3, 512), (1, 128, 3), 1)
    assert qkv.hyper[0][0].in_features == BERT["hidden_size"]
