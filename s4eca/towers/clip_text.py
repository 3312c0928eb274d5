"""CLIP's text encoder of transformers as a tower."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from s4eca.errors import S4ecaError
from s4eca.towers.base import State, Tap, attend_to_added
from s4eca.towers.open_clip import from_open_clip
from s4eca.towers.transformers_text import TransformersTower
from s4eca.weights import HUB, RANDOM

ACTIVATIONS = ("quick_gelu", "gelu")


class ClipTextTower(TransformersTower):
    """A frozen CLIP text encoder without its projection (Radford et al., ICML 2021).

    A word sees itself and the words before it. The words that `end` returns have gone through the final norm.

    Args:
        name: hub id of the model; with a single file that of its architecture, whose tokenizer is taken.
        weights: `hub`, `random`, a folder of a whole CLIP or of its text model, or a single file in which open_clip
            saved a CLIP: its path or `hf:OWNER/REPO/FILE` (RemoteCLIP, Liu et al., TGRS 2024; GeoRSCLIP, Zhang et al.,
            TGRS 2024).
        tokenizer: folder or hub id of the tokenizer.
        seed: of random weights.
        options: fields of `CLIPTextConfig` for random weights.
        attention: `sdpa` or `eager`.
        activation: of the MLPs in a single file, which does not say: `quick_gelu`, with which OpenAI trained and what
            None stands for, or `gelu`. Other weights bring their own.

    Raises:
        S4ecaError: the weights cannot be resolved or are of another family, or `activation` has no use.
    """

    family = "clip"
    library = CLIPTextModel
    hub_id = "openai/clip-vit-base-patch32"
    attention_layers = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
    mlp_layers = ("mlp.fc1", "mlp.fc2")

    def __init__(
        self,
        name: str | None = None,
        weights: str = "hub",
        tokenizer: str | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        attention: str = "sdpa",
        activation: str | None = None,
    ) -> None:
        if activation not in (None, *ACTIVATIONS):
            raise S4ecaError(f"text.activation={activation} is neither {' nor '.join(ACTIVATIONS)}.")
        if activation and (weights in (HUB, RANDOM) or Path(weights).is_dir()):
            raise S4ecaError(
                f"text.activation is for single files, and text.weights={weights} brings its own; leave it null."
            )
        convert = partial(from_open_clip, activation=activation or "quick_gelu")
        super().__init__(name, weights, tokenizer, seed, options, attention, convert)

    def block(self, index: int) -> nn.Module:
        """Returns the transformers layer behind a step."""
        return self.model.encoder.layers[index]

    def seen(self, words: Tensor) -> Tensor:
        """Returns which words each one may see, (B, 1, L, L) bool: itself and those before it."""
        return words & torch.ones(words.shape[-2:], dtype=torch.bool, device=words.device).tril()

    def step(self, index: int, state: State, tap: Tap) -> State:
        """Runs one layer on (B, L, D); it norms before each branch."""
        layer: Any = self.block(index)
        x = tap("in", state.hidden)
        normed = layer.layer_norm1(x)
        heads, _ = layer.self_attn(normed, attention_mask=attend_to_added(state.mask, x.shape[1]), is_causal=True)
        x = tap("mid", x + tap("attn", heads, normed))
        normed = layer.layer_norm2(x)
        x = tap("out", x + tap("mlp", layer.mlp(normed), normed))
        if self.steps[index].ends_stage:
            x = tap("stage_out", x)
        return State(x, state.mask)

    def end(self, state: State) -> Tensor:
        """Returns the normed words (B, L, D)."""
        return self.model.final_layer_norm(state.hidden)
