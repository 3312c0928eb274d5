"""Text towers that open_clip saved, under transformers' names: RemoteCLIP and GeoRSCLIP are published so."""

import re
from typing import Any

from torch import Tensor

from s4eca.errors import S4ecaError

HEAD_WIDTH = 64  # of every attention head in CLIP's text towers

# what a whole CLIP stores beside the layers of its text tower
BESIDE = re.compile(
    r"visual\..*|text_projection(\..*)?|logit_(scale|bias)|attn_mask|input_resolution|context_length|vocab_size"
)
OUTER = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
INNER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def from_open_clip(where: str, state: dict[str, Tensor], activation: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Translates a CLIP of open_clip, or of OpenAI, which has the same names.

    Sizes are read off the tensors; a head is 64 wide, as in every CLIP that OpenAI and open_clip's ViT configs define.

    Args:
        where: it was read from, for errors.
        state: the whole model's tensors, or the text tower's alone.
        activation: of the MLPs, which no tensor tells: `quick_gelu` or `gelu`.

    Returns:
        Fields of `CLIPTextConfig`, and the tensors of a `CLIPTextModel`; names that neither the text tower nor the rest
        of a CLIP has are kept as they are, so that strict loading refuses them.

    Raises:
        S4ecaError: there is no such text tower in it.
    """
    needed = ("token_embedding.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight")
    absent = [name for name in needed if name not in state]
    if absent:
        raise S4ecaError(
            f"{where} is no open_clip model with a text tower, it lacks {absent[0]}; give one, or a folder that "
            "save_pretrained wrote."
        )
    vocabulary, width = state["token_embedding.weight"].shape
    if width % HEAD_WIDTH:
        raise S4ecaError(
            f"the text tower in {where} is {width} wide, and CLIP's heads are {HEAD_WIDTH} wide each; convert it with "
            "transformers and give the folder that save_pretrained writes."
        )
    layers = {int(match[1]) for match in map(LAYER.fullmatch, state) if match}
    fields = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": width // HEAD_WIDTH,
        "max_position_embeddings": state["positional_embedding"].shape[0],
        "hidden_act": activation,
        # nothing here looks for these tokens
        "bos_token_id": None,
        "eos_token_id": None,
    }
    translated: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not BESIDE.fullmatch(name):
            translated.update(translate_layer(name, tensor))
    return fields, translated


def translate_layer(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Returns one tensor under transformers' name, or three where open_clip stacks query, key and value."""
    stacked = re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", name)
    if stacked and tensor.shape[0] % 3 == 0:
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"encoder.layers.{stacked[1]}.self_attn.{part}_proj.{stacked[2]}": value for part, value in parts}
    match = LAYER.fullmatch(name)
    if match and match[2] in INNER:
        return {f"encoder.layers.{match[1]}.{INNER[match[2]]}.{match[3]}": tensor}
    return {OUTER.get(name, name): tensor}
