"""The BERT family of transformers as a tower: one stage, one step per layer."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.masking_utils import create_bidirectional_mask

from s4eca.errors import S4ecaError
from s4eca.tokenizer import aerial_tokenizer, load_tokenizer
from s4eca.towers.base import State, Step, Tap, TextTower
from s4eca.weights import RANDOM, BaseWeights, describe_source, hash_weights, load_bert


class BertTower(TextTower):
    """A frozen BERT-type encoder without its pooler (Devlin et al., NAACL 2019).

    Args:
        name: hub id of the model.
        weights: `hub`, `random`, or a folder (see `s4eca.weights`).
        tokenizer: folder or hub id of the tokenizer; by default the model's own, and the built-in aerial one for
            random weights.
        seed: of random weights.
        options: fields of `BertConfig` for random weights, for example `hidden_size`, `num_hidden_layers`.
        attention: `sdpa` or `eager`, transformers' attention implementation.

    Raises:
        S4ecaError: the weights cannot be resolved or are no BERT.
    """

    family = "bert"

    def __init__(
        self,
        name: str = "google-bert/bert-base-uncased",
        weights: str = "hub",
        tokenizer: str | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        attention: str = "sdpa",
    ) -> None:
        super().__init__()
        self.model = load_bert("text", name, weights, seed, dict(options or {}), attention)
        self.base = BaseWeights(name, describe_source(weights, seed), hash_weights(self.model.state_dict()))
        self.tokenizer_source = tokenizer or (None if weights == RANDOM else name if weights == "hub" else weights)
        width, depth = self.model.config.hidden_size, self.model.config.num_hidden_layers
        self.widths = [width]
        self.steps = [Step("text", index, 0, width, index == depth - 1) for index in range(depth)]
        self.freeze()

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Returns the tokenizer that belongs to the weights.

        Raises:
            S4ecaError: it cannot be loaded, or has more tokens than the tower has embeddings.
        """
        tokenizer = load_tokenizer(self.tokenizer_source) if self.tokenizer_source else aerial_tokenizer()
        if len(tokenizer) > self.model.config.vocab_size:
            raise S4ecaError(
                f"the tokenizer has {len(tokenizer)} tokens and the text tower {self.model.config.vocab_size} "
                "embeddings; give the tokenizer of these weights with text.tokenizer=PATH."
            )
        return tokenizer

    def block(self, index: int) -> nn.Module:
        """Returns the transformers layer behind a step."""
        return self.model.encoder.layer[index]

    def begin(self, input_ids: Tensor, attention_mask: Tensor) -> State:
        """Embeds (B, L) ids: hidden (B, L, D), mask as transformers' own forward builds it."""
        hidden = self.model.embeddings(input_ids)
        mask = create_bidirectional_mask(config=self.model.config, inputs_embeds=hidden, attention_mask=attention_mask)
        return State(hidden, mask)

    def step(self, index: int, state: State, tap: Tap) -> State:
        """Runs one layer on (B, L, D)."""
        layer: Any = self.block(index)
        x = tap("in", state.hidden)
        heads, _ = layer.attention.self(x, attention_mask=state.mask)
        joined = layer.attention.output
        x = joined.LayerNorm(tap("attn", joined.dropout(joined.dense(heads)), x) + x)
        inner = layer.intermediate(x)
        x = layer.output.LayerNorm(tap("mlp", layer.output.dropout(layer.output.dense(inner)), x) + x)
        x = tap("out", x)
        if self.steps[index].ends_stage:
            x = tap("stage_out", x)
        return State(x, state.mask)

    def end(self, state: State) -> Tensor:
        """Returns the words (B, L, D)."""
        return state.hidden
