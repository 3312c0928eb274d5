"""BERT and RoBERTa of transformers as towers: the same layers, other embeddings and tokenizers."""

from typing import Any, ClassVar

from torch import nn
from transformers import BertModel, PreTrainedTokenizerBase, RobertaModel

from s4eca.errors import S4ecaError
from s4eca.towers.base import State, Tap, attend_to_added
from s4eca.towers.transformers_text import TransformersTower


class BertTower(TransformersTower):
    """A frozen BERT encoder without its pooler (Devlin et al., NAACL 2019); arguments as `TransformersTower`'s."""

    family = "bert"
    library = BertModel
    build: ClassVar = {"add_pooling_layer": False}
    hub_id = "google-bert/bert-base-uncased"
    attention_layers = (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    )
    mlp_layers = ("intermediate.dense", "output.dense")

    def block(self, index: int) -> nn.Module:
        """Returns the transformers layer behind a step."""
        return self.model.encoder.layer[index]

    def step(self, index: int, state: State, tap: Tap) -> State:
        """Runs one layer on (B, L, D); it norms after each branch has joined."""
        layer: Any = self.block(index)
        x = tap("in", state.hidden)
        heads, _ = layer.attention.self(x, attention_mask=attend_to_added(state.mask, x.shape[1]))
        joined = layer.attention.output
        x = tap("mid", joined.LayerNorm(tap("attn", joined.dropout(joined.dense(heads)), x) + x))
        inner = layer.intermediate(x)
        x = layer.output.LayerNorm(tap("mlp", layer.output.dropout(layer.output.dense(inner)), x) + x)
        x = tap("out", x)
        if self.steps[index].ends_stage:
            x = tap("stage_out", x)
        return State(x, state.mask)


class RobertaTower(BertTower):
    """A frozen RoBERTa encoder without its pooler (Liu et al., arXiv 1907.11692); arguments as `TransformersTower`'s.

    Its positions count the tokens that are not the padding token, from the padding token's id + 1 on.
    """

    family = "roberta"
    library = RobertaModel
    hub_id = "FacebookAI/roberta-base"

    @property
    def positions(self) -> int:
        """Number of tokens that an expression may have: those up to the padding token's own are never taken."""
        return self.model.config.max_position_embeddings - self.model.config.pad_token_id - 1

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Returns the tokenizer that belongs to the weights.

        Raises:
            S4ecaError: it cannot be loaded, has more tokens than the tower has embeddings, or pads with another token
                than the one that the tower's positions leave out.
        """
        tokenizer = super().load_tokenizer()
        if tokenizer.pad_token_id != self.model.config.pad_token_id:
            raise S4ecaError(
                f"the tokenizer pads with token {tokenizer.pad_token_id}, and this RoBERTa leaves token "
                f"{self.model.config.pad_token_id} out when it counts positions; give the tokenizer of these weights "
                "with text.tokenizer=PATH."
            )
        return tokenizer
