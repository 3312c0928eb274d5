"""The image part of open_clip checkpoints (RemoteCLIP, GeoRSCLIP), and files of hub repositories."""

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf

from s4eca.errors import S4ecaError
from s4eca.towers import ViTTower
from s4eca.weights import fetch

NAME = "vit_base_patch32_clip_quickgelu_224.openai"
SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 16}
SIZE = 64
RENAMED = {  # timm's parts, and what open_clip calls them
    "patch_embed.proj": "conv1",
    "norm_pre": "ln_pre",
    "norm": "ln_post",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


@pytest.fixture
def model():
    torch.manual_seed(5)
    return timm.create_model(NAME, num_classes=0, img_size=SIZE, **SMALL).eval()


def open_clip(model):
    """The state dict that open_clip would have saved for this image part, beside a text part."""
    state = {
        "logit_scale": torch.tensor(4.6),
        "text_projection": torch.randn(16, 24),
        "positional_embedding": torch.randn(77, 16),
        "token_embedding.weight": torch.randn(50, 16),
        "transformer.resblocks.0.ln_1.weight": torch.randn(16),
        "transformer.resblocks.0.attn.in_proj_weight": torch.randn(48, 16),
        "visual.proj": torch.randn(32, 24),
    }
    for name, value in model.state_dict().items():
        if name in ("cls_token", "pos_embed"):
            key = {"cls_token": "class_embedding", "pos_embed": "positional_embedding"}[name]
            state[f"visual.{key}"] = value[0, 0] if name == "cls_token" else value[0]
            continue
        path, _, leaf = name.rpartition(".")
        front, _, part = path.partition(".")
        if front != "blocks":
            state[f"visual.{RENAMED[path]}.{leaf}"] = value
            continue
        number, _, part = part.partition(".")
        renamed = f"attn.in_proj_{leaf}" if part == "attn.qkv" else f"{RENAMED[part]}.{leaf}"
        state[f"visual.transformer.resblocks.{number}.{renamed}"] = value
    return state


def load(weights, **options):
    return ViTTower(NAME, weights=str(weights), image_size=SIZE, options={**SMALL, **options})


def assert_same_features(tower, model):
    pixels = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = model.forward_intermediates(pixels, output_fmt="NLC", intermediates_only=True)
        state = tower.embed(pixels)
        for step, wanted in zip(tower.steps, expected, strict=True):
            state = tower.step(step.index, state, lambda site, x, branch_in=None: x)
            assert torch.equal(state.hidden[:, 1:], wanted), step.index


@pytest.mark.parametrize("kind", ["bare", "state_dict", "module", "safetensors"])
def test_takes_the_image_part_of_a_clip_checkpoint(tmp_path, model, kind):
    state, path = open_clip(model), tmp_path / f"clip.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    elif kind == "bare":
        torch.save(state, path)
    elif kind == "state_dict":
        torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    tower = load(path)
    assert tower.base.source == path.name
    assert_same_features(tower, model)


def test_takes_timms_own_folder_too(tmp_path, model):
    save_for_hf(model, tmp_path, safe_serialization=True)
    assert_same_features(load(tmp_path), model)


def test_nothing_of_the_image_part_may_be_missing(tmp_path, model):
    state = open_clip(model)
    del state["visual.transformer.resblocks.2.mlp.c_fc.bias"]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(S4ecaError, match=r"1 missing, 0 unexpected, for example blocks\.2\.mlp\.fc1\.bias"):
        load(tmp_path / "clip.pt")


def test_refuses_a_file_without_an_image_part(tmp_path, model):
    state = {name: value for name, value in open_clip(model).items() if not name.startswith("visual.")}
    torch.save(state, tmp_path / "text.pt")
    with pytest.raises(S4ecaError, match=r"text\.pt have no image part .*visual\.\* .*its first being logit_scale"):
        load(tmp_path / "text.pt")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(S4ecaError, match="no image part"):
        load(tmp_path / "empty.pt")


def test_refuses_an_image_part_of_another_shape(tmp_path, model):
    torch.save(open_clip(model), tmp_path / "clip.pt")
    with pytest.raises(S4ecaError, match=r"clip\.pt do not fit vision\.name="):
        load(tmp_path / "clip.pt", embed_dim=64)
    with pytest.raises(S4ecaError, match=r"do not fit.* 12 missing"):
        load(tmp_path / "clip.pt", depth=5)


def test_fetches_one_file_of_a_hub_repository(tmp_path, model, monkeypatch):
    torch.save(open_clip(model), tmp_path / "RS5M_ViT-B-32.pt")
    asked = []

    def download(repo_id, filename, **options):
        asked.append((repo_id, filename))
        return str(tmp_path / "RS5M_ViT-B-32.pt")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    tower = load("hf:Zilun/GeoRSCLIP/ckpt/RS5M_ViT-B-32.pt")
    assert asked == [("Zilun/GeoRSCLIP", "ckpt/RS5M_ViT-B-32.pt")]
    assert tower.base.source == "hf:Zilun/GeoRSCLIP/ckpt/RS5M_ViT-B-32.pt"
    assert_same_features(tower, model)


def test_fetch_names_what_is_wrong(tmp_path):
    assert fetch("text", str(tmp_path)) == tmp_path
    with pytest.raises(S4ecaError, match=r"text\.weights=.*nowhere does not exist"):
        fetch("text", str(tmp_path / "nowhere"))
    for incomplete in ("hf:", "hf:owner", "hf:owner/repo", "hf:owner/repo/", "hf:/repo/file.pt"):
        with pytest.raises(S4ecaError, match=r"names no file of a hub repository; write hf:OWNER/REPO/FILE"):
            fetch("vision", incomplete)
    # conftest forbids the network, which is what an offline node sees
    with pytest.raises(S4ecaError, match=r"weights of o/r/f\.pt could not be fetched.*vision\.weights=PATH"):
        fetch("vision", "hf:o/r/f.pt")
