"""What the text towers of transformers share: weights, tokenizer, positions, and one stage of layers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from s4eca.errors import S4ecaError
from s4eca.tokenizer import aerial_tokenizer, load_tokenizer
from s4eca.towers.base import State, Step, TextTower
from s4eca.weights import HUB, RANDOM, BaseWeights, Convert, describe_source, hash_weights, load_text


class TransformersTower(TextTower):
    """A frozen text encoder of transformers: one stage, one step per layer.

    Args:
        name: hub id of the model; by default the family's base model.
        weights: `hub`, `random`, or a folder (see `s4eca.weights`).
        tokenizer: folder or hub id of the tokenizer; by default the one beside the weights, and the built-in aerial one
            for random weights.
        seed: of random weights.
        options: fields of the model's config for random weights, for example `hidden_size`, `num_hidden_layers`.
        attention: `sdpa` or `eager`, transformers' attention implementation.
        convert: for families that other libraries publish as single files (see `s4eca.weights.load_text`).

    Attributes:
        library: the model's class.
        build: what the class is called with beside its config.
        hub_id: the family's base model.

    Raises:
        S4ecaError: the weights cannot be resolved or are of another family.
    """

    library: type[PreTrainedModel]
    build: ClassVar[Mapping[str, Any]] = {}
    hub_id: str
    takes_tokens = True

    def __init__(
        self,
        name: str | None = None,
        weights: str = "hub",
        tokenizer: str | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        attention: str = "sdpa",
        convert: Convert | None = None,
    ) -> None:
        super().__init__()
        name = name or self.hub_id
        self.model = load_text(
            "text", self.library, name, weights, seed, dict(options or {}), attention, convert, **self.build
        )
        self.base = BaseWeights(name, describe_source(weights, seed), hash_weights(self.model.state_dict()))
        # a single file has no tokenizer beside it
        beside = weights if weights != HUB and Path(weights).is_dir() else name
        self.tokenizer_source = tokenizer or (None if weights == RANDOM else beside)
        config = self.model.config
        width, depth = config.hidden_size, config.num_hidden_layers
        self.widths = [width]
        self.steps = [Step("text", index, 0, width, index == depth - 1) for index in range(depth)]
        self.freeze()

    @property
    def positions(self) -> int:
        """Number of tokens that an expression may have, special ones included."""
        return self.model.config.max_position_embeddings

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

    def check_length(self, tokens: int) -> None:
        """Compares the length of the token rows with the tower's positions.

        Raises:
            S4ecaError: the rows are longer.
        """
        if tokens > self.positions:
            raise S4ecaError(
                f"the text tower has {self.positions} positions and got rows of {tokens} tokens; set "
                f"data.max_tokens={self.positions} or less."
            )

    def begin(self, input_ids: Tensor, attention_mask: Tensor) -> State:
        """Embeds (B, L) ids: hidden (B, L, D), and the mask that the layers take.

        Raises:
            S4ecaError: the rows are longer than the tower has positions.
        """
        self.check_length(input_ids.shape[1])
        hidden = self.model.embeddings(input_ids)
        return State(hidden, self.attention_mask(hidden, attention_mask))

    def attention_mask(self, hidden: Tensor, word_mask: Tensor) -> Tensor:
        """Returns the mask (B, 1, L, L) for embedded words (B, L, D), with the values of transformers' own.

        Bool for `sdpa`; for `eager` 0 and the least number of hidden's type. transformers leaves it out under `sdpa`
        where no word is padded, and has to wait for the device to know; here it is always there.
        """
        seen = self.seen(word_mask.bool()[:, None, None, :].expand(-1, 1, hidden.shape[1], -1))
        if self.model.config._attn_implementation == "sdpa":
            return seen
        return torch.zeros_like(seen, dtype=hidden.dtype).masked_fill(~seen, torch.finfo(hidden.dtype).min)

    def seen(self, words: Tensor) -> Tensor:
        """Returns which words each one may see, (B, 1, L, L) bool, given which of them are no padding."""
        return words

    def end(self, state: State) -> Tensor:
        """Returns the words (B, L, D)."""
        return state.hidden
