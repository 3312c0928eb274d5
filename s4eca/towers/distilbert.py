"""DistilBERT of transformers as a tower."""

from typing import Any

from torch import nn
from transformers import DistilBertModel

from s4eca.towers.base import State, Tap, attend_to_added
from s4eca.towers.transformers_text import TransformersTower


class DistilBertTower(TransformersTower):
    """A frozen DistilBERT encoder (Sanh et al., arXiv 1910.01108); arguments as `TransformersTower`'s."""

    family = "distilbert"
    library = DistilBertModel
    hub_id = "distilbert/distilbert-base-uncased"
    attention_layers = ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin")
    mlp_layers = ("ffn.lin1", "ffn.lin2")

    def block(self, index: int) -> nn.Module:
        """Returns the transformers layer behind a step."""
        return self.model.transformer.layer[index]

    def step(self, index: int, state: State, tap: Tap) -> State:
        """Runs one layer on (B, L, D); it norms after each branch has joined."""
        layer: Any = self.block(index)
        x = tap("in", state.hidden)
        heads, _ = layer.attention(x, attention_mask=attend_to_added(state.mask, x.shape[1]))
        x = tap("mid", layer.sa_layer_norm(tap("attn", heads, x) + x))
        x = layer.output_layer_norm(tap("mlp", layer.ffn(x), x) + x)
        x = tap("out", x)
        if self.steps[index].ends_stage:
            x = tap("stage_out", x)
        return State(x, state.mask)
