"""Whole CLIPs that open_clip saved, under transformers' names: RemoteCLIP and GeoRSCLIP are published so."""

import math
import re
from typing import Any

from torch import Tensor

from s4eca.errors import S4ecaError
from s4eca.towers.open_clip import HEAD_WIDTH, from_open_clip, translate_layer

# heads of open_clip's larger image towers (ViT-H, ViT-g, ViT-bigG) are wider than 64, by the tower's width
WIDER_HEADS = {1280: 80, 1408: 88, 1664: 104}

VISION_LAYER = re.compile(r"visual\.(transformer\.resblocks\.(\d+)\..+)")
VISION_OUTER = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
# open_clip multiplies from the right by these, transformers from the left
PROJECTIONS = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
NEEDED = (
    "visual.conv1.weight",
    "visual.positional_embedding",
    "visual.transformer.resblocks.0.mlp.c_fc.weight",
    "visual.proj",
    "text_projection",
)


def whole_from_open_clip(
    where: str, state: dict[str, Tensor], activation: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Translates both towers of a CLIP with a ViT, as open_clip and OpenAI name them.

    Sizes are read off the tensors. A head is 64 wide, in the image towers of ViT-H, -g and -bigG as wide as open_clip's
    configs define. The end of a text is the vocabulary's last token, as in CLIP's byte-pair vocabulary.

    Args:
        where: it was read from, for errors.
        state: the whole model's tensors.
        activation: of all MLPs, which no tensor tells: `quick_gelu` or `gelu`.

    Returns:
        Fields of `CLIPConfig`, and the tensors of a `CLIPModel`; names that no CLIP with a ViT has are kept as they
        are, so that strict loading refuses them.

    Raises:
        S4ecaError: it is no whole CLIP with a ViT.
    """
    if any(name.startswith(("visual.layer1.", "visual.attnpool.")) for name in state):
        raise S4ecaError(
            f"{where} is a CLIP with a ResNet as its image tower, and regions are encoded with a ViT's tokens; give "
            "the file of a ViT, for example ViT-B-32 or ViT-L-14."
        )
    absent = [name for name in NEEDED if name not in state]
    if absent:
        raise S4ecaError(
            f"{where} is no whole CLIP of open_clip, it lacks {absent[0]}; give one, or a folder that save_pretrained "
            "wrote."
        )
    text, translated = from_open_clip(where, state, activation)
    translated = {
        f"text_model.{name}" if name.startswith(("embeddings.", "encoder.", "final_layer_norm.")) else name: tensor
        for name, tensor in translated.items()
    }
    for name, tensor in state.items():
        layer = VISION_LAYER.fullmatch(name)
        if layer:
            translated |= {f"vision_model.{inner}": value for inner, value in translate_layer(layer[1], tensor).items()}
        elif name in PROJECTIONS:
            translated[PROJECTIONS[name]] = tensor.T.contiguous()
        elif name in VISION_OUTER or name.startswith(("visual.", "text_projection.", "logit_")):
            translated[VISION_OUTER.get(name, name)] = tensor
    shared = state["visual.proj"].shape[1]
    last = text["vocab_size"] - 1
    text |= {"bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last, "projection_dim": shared}
    vision = _vision_fields(where, state) | {"hidden_act": activation, "projection_dim": shared}
    return {"text_config": text, "vision_config": vision, "projection_dim": shared}, translated


def _vision_fields(where: str, state: dict[str, Tensor]) -> dict[str, Any]:
    """Returns fields of `CLIPVisionConfig`."""
    width, channels, patch, _ = state["visual.conv1.weight"].shape
    cells = state["visual.positional_embedding"].shape[0] - 1
    head = WIDER_HEADS.get(width, HEAD_WIDTH)
    if width % head or math.isqrt(cells) ** 2 != cells:
        raise S4ecaError(
            f"the image tower in {where} is {width} wide with {cells} cells, and CLIP's have heads of {head} and a "
            "square of cells; convert it with transformers and give the folder that save_pretrained writes."
        )
    layers = {int(match[2]) for match in map(VISION_LAYER.fullmatch, state) if match}
    return {
        "hidden_size": width,
        "intermediate_size": state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": width // head,
        "num_channels": channels,
        "image_size": math.isqrt(cells) * patch,
        "patch_size": patch,
    }
