import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    RobertaConfig,
)

from runs import ROOT
from s4eca.errors import S4ecaError
from s4eca.towers import BertTower, ClipTextTower, DistilBertTower, RobertaTower, SwinTower
from s4eca.weights import hash_weights
from tiny import BERT, NAMES, SIZE, SWIN, tiny_vision

PLAIN = {key: tuple(value) if isinstance(value, list) else value for key, value in SWIN.items()}


@pytest.fixture
def model():
    torch.manual_seed(11)
    return timm.create_model(NAMES["swin"], num_classes=7, img_size=SIZE, **PLAIN)


def load(weights):
    return SwinTower(NAMES["swin"], weights=str(weights), image_size=SIZE, options=SWIN)


def same(tower, model):
    stored = model.state_dict()
    return all(torch.equal(value, stored[name]) for name, value in tower.model.state_dict().items())


def test_reads_the_folder_that_timm_saves(tmp_path, model):
    save_for_hf(model, tmp_path, safe_serialization=True)
    tower = load(tmp_path)
    assert same(tower, model)
    assert (tower.base.source, tower.base.name) == (tmp_path.name, NAMES["swin"])


@pytest.mark.parametrize("kind", ["safetensors", "pth", "nested"])
def test_reads_single_files(tmp_path, model, kind):
    path = tmp_path / f"swin.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:  # Swin's authors publish {"model": …}
        torch.save({"model": model.state_dict()} if kind == "nested" else model.state_dict(), path)
    assert same(load(path), model)


def test_nothing_stays_random_silently(tmp_path, model):
    state = model.state_dict()
    del state["layers.1.blocks.0.mlp.fc1.weight"]
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(S4ecaError, match=r"do not fit.*1 missing, 0 unexpected.*layers\.1\.blocks\.0\.mlp\.fc1"):
        load(tmp_path)


def test_other_widths_are_refused(tmp_path, model):
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(S4ecaError, match=r"do not fit vision\.name="):
        SwinTower(NAMES["swin"], weights=str(tmp_path), image_size=SIZE, options={**SWIN, "embed_dim": 24})


def test_missing_and_damaged_paths(tmp_path):
    with pytest.raises(S4ecaError, match=r"vision\.weights=.*nowhere does not exist; give .*'hub', or 'random'"):
        load(tmp_path / "nowhere")
    with pytest.raises(S4ecaError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(S4ecaError, match="could not be read as weights"):
        load(tmp_path)
    with pytest.raises(S4ecaError, match=r"text\.weights=.*nowhere does not exist"):
        BertTower(weights=str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(S4ecaError, match="could not be read as a transformers model"):
        BertTower(weights=str(tmp_path))


def test_a_pickle_with_code_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"model": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(S4ecaError, match="could not be read as weights"):
        load(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_an_unreachable_hub_says_how_to_give_a_path():
    # conftest forbids the network, which is what an offline node sees
    with pytest.raises(S4ecaError, match=r"could not be fetched from the hub.*vision\.weights=PATH.*=random"):
        SwinTower(weights="hub", image_size=64)
    with pytest.raises(S4ecaError, match=r"could not be fetched from the hub.*text\.weights=PATH.*=random"):
        BertTower(weights="hub")


def test_text_weights_must_be_complete_and_of_the_family(tmp_path):
    BertModel(BertConfig(**BERT)).save_pretrained(tmp_path / "whole")
    state = safetensors.torch.load_file(tmp_path / "whole" / "model.safetensors")
    del state["encoder.layer.0.output.dense.weight"]
    safetensors.torch.save_file(state, tmp_path / "whole" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(S4ecaError, match=r"lacks 1 weights.*encoder\.layer\.0\.output\.dense\.weight"):
        BertTower(weights=str(tmp_path / "whole"))
    DistilBertModel(DistilBertConfig(dim=32, n_heads=2, n_layers=1, hidden_dim=32, vocab_size=64)).save_pretrained(
        tmp_path / "other"
    )
    with pytest.raises(S4ecaError, match=r"is a distilbert model.*walks bert models; choose text=distilbert_base"):
        BertTower(weights=str(tmp_path / "other"))
    with pytest.raises(S4ecaError, match=r"text\.options shapes random weights only"):
        BertTower(weights=str(tmp_path / "other"), options={"hidden_size": 3})


def test_a_text_model_of_another_family_is_told_which_tower_fits(tmp_path):
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertConfig(**sizes).save_pretrained(tmp_path)
    for tower, family in ((RobertaTower, "roberta"), (DistilBertTower, "distilbert"), (ClipTextTower, "clip")):
        with pytest.raises(S4ecaError, match=rf"is a bert model.*walks {family} models; choose text=bert_base"):
            tower(weights=str(tmp_path))
    for config, kind, option in (
        (RobertaConfig, "roberta", "roberta_base"), (CLIPTextConfig, "clip_text_model", "clip_base"),
    ):  # fmt: skip
        config(**sizes, bos_token_id=1, eos_token_id=2).save_pretrained(tmp_path)
        with pytest.raises(S4ecaError, match=rf"is a {kind} model.*walks bert models; choose text={option}"):
            BertTower(weights=str(tmp_path))
        assert (ROOT / "conf" / "text" / f"{option}.yaml").is_file()
    GPT2Config(n_embd=32).save_pretrained(tmp_path)
    with pytest.raises(S4ecaError, match=r"is a gpt2 model.*choose one of bert, roberta, distilbert, clip"):
        BertTower(weights=str(tmp_path))


def test_options_of_random_text_weights_are_checked():
    with pytest.raises(S4ecaError, match=r"text\.options names hidden, which RobertaConfig does not have"):
        RobertaTower(weights="random", options={"hidden": 3})
    with pytest.raises(S4ecaError, match=r"cannot build CLIPTextModel.*\(33\) is not a multiple"):
        ClipTextTower(weights="random", options={"hidden_size": 33})
    with pytest.raises(S4ecaError, match=r"text\.attention=flash is neither sdpa nor eager"):
        BertTower(weights="random", options=BERT, attention="flash")


def test_the_hash_sees_names_shapes_and_values_and_no_order():
    state = {"a": torch.arange(6.0), "b": torch.ones(2)}
    digest = hash_weights(state)
    assert hash_weights(dict(reversed(list(state.items())))) == digest
    assert hash_weights({"a": state["a"].view(2, 3), "b": state["b"]}) != digest
    assert hash_weights({"a": state["a"] + 1e-7, "b": state["b"]}) != digest
    assert hash_weights({"a": state["a"], "c": state["b"]}) != digest
    assert hash_weights({"a": state["a"].double(), "b": state["b"]}) != digest


def test_towers_know_their_weights():
    tower = tiny_vision(seed=9)
    assert tower.base.to_dict() == {
        "name": NAMES["swin"], "source": "random:9", "sha256": hash_weights(tower.model.state_dict()),
    }  # fmt: skip
