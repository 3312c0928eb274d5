"""What each stage of DGL-RSIS promises; a new proposer, encoder or selector is one file that keeps it.

`identity()` holds, as plain values, all that a stage's result depends on beside its inputs: settings, and the sha256 of
the weights. It is the stage's part of its cache key.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from s4eca.dgl_rsis.parts import Evidence, Maps, Phrase, Proposals, Selection, View


class Decoupler(Protocol):
    """Splits an expression into local and global words."""

    def __call__(self, expression: str) -> Phrase:
        """Returns the decoupled expression."""
        ...


class Part(nn.Module):
    """A stage of which nothing is learned: it is in evaluation mode, whatever mode the module around it is set to."""

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    def train(self, mode: bool = True) -> "Part":
        """Stays in evaluation mode, models inside it too."""
        return super().train(False)


class Proposer(Part):
    """Finds class-agnostic masks.

    Attributes:
        needs_truth: whether `View.truth` is looked at; its results are then cached per expression.
    """

    needs_truth = False

    def identity(self) -> dict[str, Any]:
        """Returns what its result depends on beside the view."""
        raise NotImplementedError

    def inputs(self, view: View) -> dict[str, Any]:
        """Returns what else its result for a view depends on, as plain values: the content of a file, for example."""
        return {}

    def propose(self, view: View) -> Proposals:
        """Returns the proposals of an image; none is not an error."""
        raise NotImplementedError


class RegionEncoder(Part):
    """Puts regions of an image and texts into one space.

    Attributes:
        tokenizer: of its text side; data modules make their token rows by it.
        max_tokens: longest row of sub-tokens that it reads, special tokens included.
    """

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def identity(self) -> dict[str, Any]:
        """Returns what its results depend on beside their inputs."""
        raise NotImplementedError

    def text_identity(self) -> dict[str, Any]:
        """Returns what `encode_texts` depends on beside the texts."""
        return self.identity()

    def encode_regions(self, view: View, proposals: Proposals) -> np.ndarray:
        """Returns features (K, D) float32 of unit length."""
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns features (T, D) float32 of unit length; a text's feature does not depend on the others."""
        raise NotImplementedError


class Grounding(Part):
    """Says where in an image the words of an expression are."""

    def identity(self) -> dict[str, Any]:
        """Returns what its result depends on beside its inputs."""
        raise NotImplementedError

    def maps(self, view: View, phrases: Sequence[Phrase]) -> list[Maps]:
        """Returns the maps of each phrase; they do not depend on the other phrases."""
        raise NotImplementedError


class Selector(Protocol):
    """Joins the evidence into a mask; a dataclass of numbers, so that they can be swept."""

    def select(self, evidence: Evidence) -> Selection:
        """Returns the mask of an expression."""
        ...
