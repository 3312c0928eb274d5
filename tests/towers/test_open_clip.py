"""Text towers out of open_clip's files, against a CLIPTextModel whose weights the test renames itself."""

import pytest
import safetensors.torch
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from s4eca.errors import S4ecaError
from s4eca.towers import BertTower, ClipTextTower
from towers.text_checks import walk, words

SIZES = {"vocab_size": 256, "hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 96}
SIZES |= {"max_position_embeddings": 20, "bos_token_id": 1, "eos_token_id": 2}


def clip_text_model(activation="quick_gelu"):
    torch.manual_seed(7)
    # two heads, since open_clip's are 64 wide
    model = CLIPTextModel(CLIPTextConfig(**SIZES, num_attention_heads=2, hidden_act=activation)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def as_open_clip(model):
    state = {
        "token_embedding.weight": model.embeddings.token_embedding.weight,
        "positional_embedding": model.embeddings.position_embedding.weight,
        "ln_final.weight": model.final_layer_norm.weight,
        "ln_final.bias": model.final_layer_norm.bias,
        "text_projection": torch.randn(128, 16),
        "logit_scale": torch.tensor(2.0),
        "visual.conv1.weight": torch.randn(3, 3),
    }
    for number, layer in enumerate(model.encoder.layers):
        for kind in ("weight", "bias"):
            attention = layer.self_attn
            stacked = [getattr(part, kind) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
            own = {
                f"attn.in_proj_{kind}": torch.cat(stacked),
                f"attn.out_proj.{kind}": getattr(attention.out_proj, kind),
                f"ln_1.{kind}": getattr(layer.layer_norm1, kind),
                f"ln_2.{kind}": getattr(layer.layer_norm2, kind),
                f"mlp.c_fc.{kind}": getattr(layer.mlp.fc1, kind),
                f"mlp.c_proj.{kind}": getattr(layer.mlp.fc2, kind),
            }
            state |= {f"transformer.resblocks.{number}.{name}": value for name, value in own.items()}
    return {name: value.detach().clone() for name, value in state.items()}


@pytest.mark.parametrize("form", ["plain", "nested", "module", "half", "safetensors"])
def test_equals_the_model_it_was_made_of(tmp_path, form):
    model = clip_text_model()
    if form == "half":
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float()
    state = as_open_clip(model)
    path = tmp_path / f"clip.{'safetensors' if form == 'safetensors' else 'pt'}"
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    elif form == "nested":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    elif form == "module":
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    else:
        torch.save({name: value.half() if form == "half" else value for name, value in state.items()}, path)
    tower = ClipTextTower(weights=str(path))
    assert {parameter.dtype for parameter in tower.parameters()} == {torch.float32}
    assert (len(tower.steps), tower.widths, tower.positions) == (2, [128], 20)
    assert (tower.base.source, tower.tokenizer_source) == (path.name, "openai/clip-vit-base-patch32")
    ids, mask = words(padded=True)
    with torch.no_grad():
        assert torch.equal(walk(tower, ids, mask), model(input_ids=ids, attention_mask=mask).last_hidden_state)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_the_activation_is_what_was_asked_for(tmp_path, activation):
    torch.save(as_open_clip(clip_text_model()), tmp_path / "clip.pt")
    tower = ClipTextTower(weights=str(tmp_path / "clip.pt"), activation=activation)
    ids, mask = words(padded=True)
    with torch.no_grad():
        for other in ("quick_gelu", "gelu"):
            expected = clip_text_model(other)(input_ids=ids, attention_mask=mask).last_hidden_state
            assert torch.equal(walk(tower, ids, mask), expected) == (other == activation)


def test_a_file_of_the_hub_is_fetched(tmp_path, monkeypatch):
    torch.save(as_open_clip(clip_text_model()), tmp_path / "clip.pt")
    asked = []

    def download(repository, file, local_files_only):
        assert not local_files_only
        asked.append((repository, file))
        return str(tmp_path / "clip.pt")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    weights = "hf:chendelong/RemoteCLIP/RemoteCLIP-ViT-B-32.pt"
    tower = ClipTextTower("openai/clip-vit-large-patch14", weights=weights)
    assert asked == [("chendelong/RemoteCLIP", "RemoteCLIP-ViT-B-32.pt")]
    assert (tower.base.source, tower.tokenizer_source) == (weights, "openai/clip-vit-large-patch14")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("transformer.resblocks.1.ln_2.bias", r"do not fit.*1 missing, 0 unexpected.*encoder\.layers\.1\.layer_norm2"),
        ("transformer.resblocks.1.attn.in_proj_bias", r"do not fit.*3 missing, 0 unexpected.*self_attn\."),
        ("token_embedding.weight", r"is no open_clip model with a text tower, it lacks token_embedding\.weight"),
        ("transformer.resblocks.0.mlp.c_fc.weight", r"is no open_clip model.*it lacks transformer\.resblocks\.0\."),
    ],
)
def test_nothing_stays_random_silently(tmp_path, name, match):
    state = as_open_clip(clip_text_model())
    del state[name]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(S4ecaError, match=match):
        ClipTextTower(weights=str(tmp_path / "clip.pt"))


def test_what_no_clip_text_model_has_is_refused(tmp_path):
    state = {**as_open_clip(clip_text_model()), "transformer.resblocks.0.ls_1.gamma": torch.ones(128)}
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(S4ecaError, match=r"do not fit.*0 missing, 1 unexpected.*resblocks\.0\.ls_1\.gamma"):
        ClipTextTower(weights=str(tmp_path / "clip.pt"))
    state["token_embedding.weight"] = torch.ones(9, 65)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(S4ecaError, match=r"is 65 wide, and CLIP's heads are 64 wide each"):
        ClipTextTower(weights=str(tmp_path / "odd.pt"))


def test_a_pickle_with_code_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(S4ecaError, match="could not be read as weights"):
        ClipTextTower(weights=str(tmp_path / "trap.pt"))
    assert not (tmp_path / "sprung").exists()


def test_other_families_want_a_folder(tmp_path):
    torch.save(as_open_clip(clip_text_model()), tmp_path / "clip.pt")
    with pytest.raises(S4ecaError, match=r"is a single file, and a bert tower needs the config.*a folder"):
        BertTower(weights=str(tmp_path / "clip.pt"))
    with pytest.raises(S4ecaError, match=r"text\.options shapes random weights only"):
        ClipTextTower(weights=str(tmp_path / "clip.pt"), options={"hidden_act": "gelu"})
