"""CLIP's image transformer once more, in plain numpy at double precision, for expected values."""

import numpy as np
import torch

from s4eca.dgl_rsis.models import Clip


def _array(tensor):
    return tensor.detach().double().numpy()


def _linear(layer, x):
    return x @ _array(layer.weight).T + (0 if layer.bias is None else _array(layer.bias))


def _norm(layer, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + layer.eps) * _array(layer.weight) + _array(layer.bias)


def first_tokens(clip: Clip, pixels: torch.Tensor) -> np.ndarray:
    """What goes into the first block (1 + N, C), for one image."""
    vision = clip.model.vision_model
    with torch.no_grad():
        states = vision(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
    return _array(states[0][0])


def block(layer, x: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    """One block on (1 + N, C); `seen` multiplies each key's part before it is normalised (the softmax's exponents)."""
    attention, normed = layer.self_attn, _norm(layer.layer_norm1, x)
    query, key, value = (_linear(part, normed) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
    width = x.shape[1] // attention.num_heads
    heads = []
    for start in range(0, x.shape[1], width):
        part = slice(start, start + width)
        exponents = query[:, part] @ key[:, part].T / np.sqrt(width)
        weights = np.exp(exponents - exponents.max(axis=1, keepdims=True)) * (1 if seen is None else seen)
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, part])
    x = x + _linear(attention.out_proj, np.concatenate(heads, axis=1))
    hidden = _linear(layer.mlp.fc1, _norm(layer.layer_norm2, x))
    return x + _linear(layer.mlp.fc2, hidden / (1 + np.exp(-1.702 * hidden)))  # quick GELU


def feature(clip: Clip, x: np.ndarray) -> np.ndarray:
    """From the tokens after the last block (1 + N, C) to a feature of unit length."""
    projected = _linear(clip.model.visual_projection, _norm(clip.model.vision_model.post_layernorm, x[:1]))[0]
    return projected / np.linalg.norm(projected)
