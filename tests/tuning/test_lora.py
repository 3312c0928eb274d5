"""LoRA: which layers it reaches, how many parameters that is, and merging."""

import copy
import re

import pytest
import torch

from s4eca.errors import S4ecaError
from s4eca.fusion.pwam import PWAM
from s4eca.tuning import LoRA
from s4eca.tuning.base import Scope
from tiny import shake, tiny_inputs, tiny_segmenter, tiny_text, tiny_vision
from tiny_text import BERT, TEXT
from tiny_vision import SWIN, VISION


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def updated(tower) -> set[str]:
    """Names of the layers that have an update."""
    return {name.partition(".lora_A")[0] for name, _ in tower.model.named_parameters() if ".lora_A." in name}


def attached(scope=None, vision="swin", text="bert", **options):
    towers = tiny_text(text), tiny_vision(vision)
    LoRA(**{"rank": 2, **options}).attach(*towers, scope or Scope())
    return towers


def learned(*modules) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


# in + out in units of the block's width: qkv 1+3, proj 1+1, fc1 1+4, fc2 4+1; BERT's four projections 1+1 each
SWIN_ATTENTION, SWIN_ALL, BERT_ATTENTION = 6, 16, 8


def test_parameters_of_tiny_towers_by_hand():
    bert_mlp = 2 * (BERT["hidden_size"] + BERT["intermediate_size"])
    bert = BERT_ATTENTION * BERT["num_hidden_layers"] * BERT["hidden_size"]
    swin = sum(depth * SWIN["embed_dim"] * 2**stage for stage, depth in enumerate(SWIN["depths"]))
    assert learned(*attached()) == 2 * (SWIN_ATTENTION * swin + bert)
    everything = SWIN_ALL * swin + bert + BERT["num_hidden_layers"] * bert_mlp
    assert learned(*attached(rank=3, text_layers="all", vision_layers="all")) == 3 * everything


@pytest.fixture(scope="module")
def full_size():
    """Swin-B and BERT-base with shapes and no values."""
    from s4eca.towers import BertTower, SwinTower

    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        for module in ("swin", "bert", "transformers_text"):
            patch.setattr(f"s4eca.towers.{module}.hash_weights", lambda state: "none", raising=False)
        return BertTower(weights="random"), SwinTower(weights="random")


@pytest.mark.parametrize(
    ("layers", "per_rank", "shares"),
    [
        ((["query", "value"], ["qkv"]), 84_992, {8: 0.35, 16: 0.69, 32: 1.39}),
        (("all", "all"), 358_400, {8: 1.46, 16: 2.93}),
        (("attention", "attention"), 145_920, {16: 1.19}),
    ],
    ids=["query_value", "all", "attention"],
)
def test_parameters_of_swin_b_and_bert_base(full_size, layers, per_rank, shares):
    text, vision = copy.deepcopy(full_size)
    towers = text.size + vision.size
    assert towers == pytest.approx(195.77e6, abs=5e3)
    with torch.device("meta"):
        LoRA(rank=1, text_layers=layers[0], vision_layers=layers[1]).attach(text, vision)
    assert learned(text, vision) == per_rank
    for rank, percent in shares.items():
        assert 100 * rank * per_rank / towers == pytest.approx(percent, abs=0.005)


def test_attention_is_the_default_and_all_adds_the_mlp():
    text, vision = attached()
    assert updated(text) == {
        f"encoder.layer.{layer}.attention.{name}"
        for layer in range(4)
        for name in ("self.query", "self.key", "self.value", "output.dense")
    }
    blocks = [f"layers.{stage}.blocks.{block}" for stage, depth in enumerate(SWIN["depths"]) for block in range(depth)]
    assert updated(vision) == {f"{block}.attn.{name}" for block in blocks for name in ("qkv", "proj")}
    text, vision = attached(text_layers="all", vision_layers="all")
    assert updated(vision) == {
        f"{block}.{name}" for block in blocks for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    assert len(updated(text)) == 4 * 6


def test_names_are_layers_or_ends_of_layers():
    # patch_embed.proj ends in proj too, and is in no block
    text, vision = attached(text_layers=["output.dense"], vision_layers=["proj"])
    assert updated(text) == {f"encoder.layer.{layer}.output.dense" for layer in range(4)}, "a whole name is that layer"
    assert len(updated(vision)) == 9
    assert all(name.endswith(".attn.proj") for name in updated(vision))
    text, vision = attached(text_layers=["dense", "query"], vision_layers=[])
    assert len(updated(text)) == 4 * (3 + 1)
    assert updated(vision) == set()


@pytest.mark.parametrize("family", VISION)
@pytest.mark.parametrize("text", TEXT)
def test_the_updates_are_those_that_the_tower_lists(family, text):
    towers = attached(vision=family, text=text, text_layers="all", vision_layers="all")
    for tower in towers:
        names = {id(module): name for name, module in tower.model.named_modules()}
        listed = (*tower.attention_layers, *tower.mlp_layers)
        blocks = [names[id(tower.block(step.index))] for step in tower.steps]
        assert updated(tower) == {f"{block}.{layer}" for block in blocks for layer in listed}


def test_only_blocks_from_the_start_stage_on():
    text, vision = attached(Scope(start_stage=3))
    assert {name.split(".")[1] for name in updated(vision)} == {"2", "3"}
    assert len(updated(text)) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_layers": ["q_proj"]}, r"tuning\.text_layers names 'q_proj'.*attention\.self\.query, .*output\.dense"),
        ({"vision_layers": ["query"]}, r"tuning\.vision_layers names 'query'.*attn\.qkv, attn\.proj, mlp\.fc1, mlp"),
        ({"vision_layers": ["reduction"]}, r"names 'reduction', which is no linear layer of the swin tower's att"),
        ({"vision_layers": ["norm1"]}, r"names 'norm1', which is no linear layer"),
        ({"vision_layers": "everything"}, "vision_layers=everything is neither attention nor all nor a list"),
        ({"text_layers": [], "vision_layers": []}, "neither text nor vision layers.*tuning=frozen"),
        ({"rank": 0}, r"tuning\.rank=0 cannot be"),
        ({"rank": 2.5}, r"tuning\.rank=2\.5 cannot be"),
        ({"alpha": 0}, r"tuning\.alpha=0 must be above 0"),
        ({"dropout": 1.0}, r"tuning\.dropout=1\.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(S4ecaError, match=message):
        attached(**options)


@pytest.mark.parametrize("name", ["qkv", "attn.qkv"])
def test_a_layer_that_is_passed_by_is_refused(name):
    with pytest.raises(S4ecaError, match=r"Swin V2 takes the weight of qkv past the layer.*vision_layers=\[proj\]"):
        attached(vision="swinv2", vision_layers=[name])
    assert all(name.endswith("attn.proj") for name in updated(attached(vision="swinv2")[1]))


def test_attention_is_refused_where_there_is_none():
    text, vision = tiny_text(), tiny_vision()
    vision.attention_layers, vision.family = (), "fields"
    with pytest.raises(
        S4ecaError, match=r"tuning=lora with tuning\.vision_layers=attention does not fit fields tow.*=all"
    ):
        LoRA().attach(text, vision)
    LoRA(vision_layers="all").attach(text, vision)
    assert len(updated(vision)) == 9 * 2


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), (8, 2.0)])
def test_the_update_is_alpha_over_rank_times_b_a(alpha, scale):
    text, vision = tiny_text(), tiny_vision()
    plain = copy.deepcopy(vision.block(0).attn.proj)
    LoRA(rank=4, alpha=alpha).attach(text, vision)
    shake(vision)
    layer, x = vision.block(0).attn.proj, torch.randn(3, 16)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (a.shape, b.shape) == ((4, 16), (16, 4))
    torch.testing.assert_close(layer(x), plain(x) + scale * (x @ a.T) @ b.T)


def test_dropout_acts_in_training_only():
    network = tiny_segmenter(LoRA(rank=2, dropout=0.5), PWAM).eval()
    shake(network)
    image, ids, mask = tiny_inputs()
    with torch.no_grad():
        words = [network.train(mode).runner(image, ids, mask).words for mode in (True, True, False, False)]
    assert not torch.equal(words[0], words[1])
    assert torch.equal(words[2], words[3])


@pytest.mark.parametrize("layers", ["attention", "all"])
@pytest.mark.parametrize(
    ("vision", "text"), [(vision, "bert") for vision in VISION] + [("swin", text) for text in TEXT if text != "bert"]
)
def test_merged_weights_give_the_same_logits(vision, text, layers):
    if layers == "attention" and not tiny_vision(vision).attention_layers:
        pytest.skip("no attention")
    method = LoRA(rank=4, alpha=8, dropout=0.1, text_layers=layers, vision_layers=layers)
    # in double precision, where the two agree on any processor; in single, rounding alone can come to more than 1e-5
    # with Swin V2, whose similarities are divided by a small learned temperature
    network = tiny_segmenter(method, PWAM, vision, text).double()
    with torch.no_grad():
        start = network.eval().runner(*tiny_inputs())
        shake(network, scale=0.05)
        before, tuned = network(*tiny_inputs()), network.runner(*tiny_inputs())
        method.merge(network.text, network.vision)
        merged = network(*tiny_inputs())
    torch.testing.assert_close(merged, before, rtol=0, atol=1e-6)
    assert (tuned.words - start.words).abs().max() > 1e-3, "the updates do something"
    assert (tuned.pyramid[-1] - start.pyramid[-1]).abs().max() > 1e-3
    for tower, fresh in ((network.text, tiny_text(text)), (network.vision, tiny_vision(vision))):
        assert tower.model.state_dict().keys() == fresh.model.state_dict().keys()
        assert {name: type(part) for name, part in tower.model.named_modules()} == {
            name: type(part) for name, part in fresh.model.named_modules()
        }
        assert learned(tower) == 0
        assert not hasattr(tower.model, "peft_config")
    assert not any(re.match(r"(text|vision|method)\.", name) for name in network.learned_state())


def test_merging_twice_changes_nothing():
    text, vision = attached()
    shake(text)
    method = LoRA()
    method.merge(text, vision)
    once = copy.deepcopy(text.state_dict())
    method.merge(text, vision)
    assert once.keys() == text.state_dict().keys()
    assert all(torch.equal(value, once[name]) for name, value in text.state_dict().items())


def test_a_broken_update_is_not_merged():
    text, vision = attached()
    with torch.no_grad():
        text.block(1).attention.self.key.lora_B["default"].weight.fill_(float("nan"))
    with pytest.raises(S4ecaError, match=r"text\.encoder\.layer\.1\.attention\.self\.key holds NaN"):
        LoRA().merge(text, vision)
