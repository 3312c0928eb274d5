"""What the hub has for the shipped configs, as tiny random models that the libraries' own save_pretrained wrote."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor
from transformers import BertTokenizer, CLIPConfig, CLIPModel

from hub import Hub
from s4eca.dgl_rsis.models import Blip
from s4eca.tokenizer import aerial_tokenizer
from s4eca.towers import BertTower, DistilBertTower, RobertaTower
from tiny_text import BERT, DISTILBERT
from tiny_vision import CONVNEXT, SIZE, SWIN, VIT

# by path: a benchmark has the folder's name, and is found first
_spec = importlib.util.spec_from_file_location("tiny_dgl_models", Path(__file__).parent / "dgl_rsis/tiny_models.py")
assert _spec is not None
assert _spec.loader is not None
tiny_models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_models)

# the image part of the tiny CLIP below
CLIP_VIT = {"embed_dim": 64, "depth": 4, "num_heads": 1, "patch_size": 16}
TEXT_TOWERS = {
    "google-bert/bert-base-uncased": (BertTower, BERT),
    "sentence-transformers/all-MiniLM-L6-v2": (BertTower, BERT),
    "FacebookAI/roberta-base": (RobertaTower, BERT),
    "distilbert/distilbert-base-uncased": (DistilBertTower, DISTILBERT),
}


def tokenizer() -> BertTokenizer:
    """A tokenizer whose last token ends a text, as CLIP's does."""
    tokens = [token for token in aerial_tokenizer().get_vocab() if token not in ("[CLS]", "[SEP]")]
    tokens = sorted(tokens, key=aerial_tokenizer().get_vocab().__getitem__)
    return BertTokenizer(vocab={token: index for index, token in enumerate([*tokens, "[CLS]", "[SEP]"])})


VOCABULARY = len(tokenizer())


def vision_options(node: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that make a vision config's model as small as the one that the tiny hub has."""
    if str(node["weights"]).startswith("hf:"):
        return CLIP_VIT
    family = str(node["name"]).partition("_")[0]
    return {"swin": SWIN, "swinv2": SWIN, "convnext": CONVNEXT, "vit": {**VIT, "patch_size": 16}}[family]


def publish_vision(hub: Hub, repository: str, name: str) -> None:
    options = vision_options({"name": name, "weights": "hub"})
    size = {} if name.startswith("convnext") else {"img_size": SIZE}
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    torch.manual_seed(len(repository))
    model = timm.create_model(name, pretrained=False, num_classes=3, **size, **plain)
    safetensors.torch.save_file(model.state_dict(), hub.put(repository) / "model.safetensors")
    (hub.root / repository / "config.json").write_text("{}")


def clip(seed: int) -> CLIPModel:
    text = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_attention_heads": 1}
    text |= {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": 0}
    vision = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 4, "image_size": SIZE, "patch_size": 16}
    vision["intermediate_size"] = 256
    torch.manual_seed(seed)
    return CLIPModel(CLIPConfig(**tiny_models.clip_options(text_config=text, vision_config=vision)))


def as_open_clip(model: CLIPModel) -> dict[str, Tensor]:
    """The same CLIP under open_clip's names, as RemoteCLIP and GeoRSCLIP are published."""
    text, vision = model.text_model, model.vision_model
    state = {
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        "positional_embedding": text.embeddings.position_embedding.weight,
        "text_projection": model.text_projection.weight.T,
        "logit_scale": model.logit_scale,
        "visual.class_embedding": vision.embeddings.class_embedding,
        "visual.positional_embedding": vision.embeddings.position_embedding.weight,
        "visual.conv1.weight": vision.embeddings.patch_embedding.weight,
        "visual.proj": model.visual_projection.weight.T,
    }
    named = {"ln_final": text.final_layer_norm, "visual.ln_pre": vision.pre_layrnorm}
    named["visual.ln_post"] = vision.post_layernorm
    for start, tower in (("", text), ("visual.", vision)):
        for number, layer in enumerate(tower.encoder.layers):
            block, heads = f"{start}transformer.resblocks.{number}", layer.self_attn
            named |= {f"{block}.ln_1": layer.layer_norm1, f"{block}.ln_2": layer.layer_norm2}
            named |= {f"{block}.mlp.c_fc": layer.mlp.fc1, f"{block}.mlp.c_proj": layer.mlp.fc2}
            named[f"{block}.attn.out_proj"] = heads.out_proj
            for kind in ("weight", "bias"):
                stacked = [getattr(part, kind) for part in (heads.q_proj, heads.k_proj, heads.v_proj)]
                state[f"{block}.attn.in_proj_{kind}"] = torch.cat(stacked)
    state |= {f"{name}.{kind}": getattr(module, kind) for name, module in named.items() for kind in ("weight", "bias")}
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def publish(hub: Hub) -> None:
    """Fills a hub with what all shipped configs take, but for the vision towers of timm."""
    for repository, (tower, options) in TEXT_TOWERS.items():
        tower(weights="random", seed=len(repository), options=options).model.save_pretrained(hub.put(repository))
        (hub.root / repository / "tf_model.h5").write_bytes(b"nobody here reads this")
        (hub.root / repository / "pytorch_model.bin").write_bytes(b"nor this, beside safetensors")
    for seed, side in enumerate(("base-patch32", "base-patch16", "large-patch14")):
        clip(seed).save_pretrained(hub.put(f"openai/clip-vit-{side}"))
    options = tiny_models.blip_options(text_config={"vocab_size": VOCABULARY})
    blip = Blip(weights="random", options=options).model
    blip.save_pretrained(hub.put("Salesforce/blip-itm-base-coco"))
    # published as a pickle of tensors alone
    torch.save(blip.state_dict(), hub.root / "Salesforce/blip-itm-base-coco/pytorch_model.bin")
    (hub.root / "Salesforce/blip-itm-base-coco/model.safetensors").unlink()
    tiny_models.tiny_sam().save_pretrained(hub.put("facebook/sam-vit-huge"))
    tiny_models.tiny_sam2().save_pretrained(hub.put("facebook/sam2.1-hiera-large"))
    for repository in (*TEXT_TOWERS, *(f"openai/{path.name}" for path in (hub.root / "openai").iterdir())):
        tokenizer().save_pretrained(hub.root / repository)
    tokenizer().save_pretrained(hub.root / "Salesforce/blip-itm-base-coco")
    for seed, file in enumerate(
        ("chendelong/RemoteCLIP/RemoteCLIP-ViT-B-32.pt", "chendelong/RemoteCLIP/RemoteCLIP-ViT-L-14.pt",
         "Zilun/GeoRSCLIP/ckpt/RS5M_ViT-B-32.pt")
    ):  # fmt: skip
        path = Path(hub.root / file)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(as_open_clip(clip(10 + seed)), path)
