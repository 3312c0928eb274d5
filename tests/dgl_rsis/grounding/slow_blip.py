"""BLIP's matching head written out in double precision, with attention that can be nudged: expected values by hand."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from s4eca.dgl_rsis.models import Blip


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * state[f"{name}.weight"]
        + state[f"{name}.bias"]
    )


def attend(
    state: dict[str, Tensor], name: str, x: Tensor, keys: Tensor, heads: int, nudge: Tensor | float
) -> tuple[Tensor, Tensor]:
    """x (V, L, D), keys (1 or V, M, D), nudge (V, heads, L, M): V variants of one text."""
    q, k, v = (
        linear(state, f"{name}.self.{part}", y)
        for part, y in zip(("query", "key", "value"), (x, keys, keys), strict=True)
    )
    width = q.shape[-1] // heads
    outputs, probabilities = [], []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)
        found = scores.exp() / scores.exp().sum(-1, keepdim=True)
        probabilities.append(found)
        outputs.append((found + (nudge[:, head] if isinstance(nudge, Tensor) else nudge)) @ v[..., part])
    joined = linear(state, f"{name}.output.dense", torch.cat(outputs, -1))
    return joined, torch.stack(probabilities, 1)


def match_logit(blip: Blip, ids: list[int], image: Tensor, layer: int, nudge: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the match logit of every variant (V,), and the layer's attention (heads, L, M) before it is nudged."""
    text = blip.model.config.text_config
    state = {name: value.double() for name, value in blip.model.state_dict().items()}
    eps, heads = text.layer_norm_eps, text.num_attention_heads
    x = state["text_encoder.embeddings.word_embeddings.weight"][ids]
    x = x + state["text_encoder.embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(state, "text_encoder.embeddings.LayerNorm", x, eps).expand(len(nudge), -1, -1)
    kept = torch.empty(0)
    for number in range(text.num_hidden_layers):
        name = f"text_encoder.encoder.layer.{number}"
        out, _ = attend(state, f"{name}.attention", x, x, heads, 0.0)
        x = norm(state, f"{name}.attention.output.LayerNorm", out + x, eps)
        out, found = attend(state, f"{name}.crossattention", x, image, heads, nudge if number == layer else 0.0)
        x = norm(state, f"{name}.crossattention.output.LayerNorm", out + x, eps)
        kept = found[0] if number == layer else kept
        out = linear(state, f"{name}.output.dense", F.gelu(linear(state, f"{name}.intermediate.dense", x)))
        x = norm(state, f"{name}.output.LayerNorm", out + x, eps)
    return linear(state, "itm_head", x[:, 0])[:, 1], kept


def token_maps(blip: Blip, ids: list[int], image: Tensor, layer: int, step: float = 1e-5) -> tuple[Tensor, float]:
    """Returns the map of each sub-token (L, cells) and the match logit; derivatives are differences.

    image: (1, 1 + cells, D) double, as the vision tower gives it.
    """
    heads, length, cells = blip.model.config.text_config.num_attention_heads, len(ids), image.shape[1]
    count = heads * length * cells
    nudges = step * torch.eye(count, dtype=torch.float64).reshape(count, heads, length, cells)
    up, attention = match_logit(blip, ids, image, layer, nudges)
    down, _ = match_logit(blip, ids, image, layer, -nudges)
    gradient = ((up - down) / (2 * step)).reshape(heads, length, cells)
    maps = (gradient.clamp(min=0) * attention).mean(0)[:, 1:]
    plain, _ = match_logit(blip, ids, image, layer, torch.zeros(1, heads, length, cells, dtype=torch.float64))
    return maps, float(plain)
