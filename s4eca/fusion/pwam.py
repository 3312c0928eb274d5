"""PWAM: LAVT's pixel-word attention, with or without its feedback into the vision tower."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.checks import check_dropout, check_whole
from s4eca.errors import S4ecaError
from s4eca.fusion import Fusion


class PWAM(Fusion):
    """Pixel-word attention of LAVT (arXiv 2112.02244, sections 3.2 and 3.3; `lib/backbone.py` of its repository).

    Each pixel gathers the words it attends to, the result gates the pixel's own features, and that product `fused`
    goes to the decoder. With feedback, `onward = grid + gate(fused) · fused` goes on through the vision tower. The
    last stage has no gate: nothing comes after it, so the gate that LAVT builds there is never trained.

    Args:
        channels: C_i of the stages, fine to coarse.
        text_dim: D, width of the words.
        feedback: LAVT's language pathway into the vision tower; needs a walk that calls `stage` as each stage ends.
        heads: attention heads; must divide every C_i.
        dropout: after the two GELUs, as in LAVT.

    Raises:
        S4ecaError: heads that do not divide a stage's channels, or a grid of a single pixel.
    """

    def __init__(
        self,
        channels: Sequence[int],
        text_dim: int,
        feedback: bool = False,
        heads: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole("fusion.heads", heads)
        check_dropout("fusion.dropout", dropout)
        self.feedback = feedback
        self.attentions = nn.ModuleList(_PixelWordAttention(stage, text_dim, heads, dropout) for stage in channels)
        self.gates = nn.ModuleList(_gate(stage) for stage in channels[:-1]) if feedback else nn.ModuleList()

    def stage(self, i: int, grid: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the grid, with language when feedback is on, and the fused grid; see `Fusion.stage`."""
        fused = self.attentions[i](grid, words, word_mask)
        if i < len(self.gates):
            return grid + self.gates[i](fused) * fused, fused
        return grid, fused


class _PixelWordAttention(nn.Module):
    """L = IN(W_o softmax(IN(W_q x)·(W_k l) / √C)·(W_v l)); returns GELU(W_m (GELU(W_x x) ⊙ L)).

    LAVT's 1x1 convolutions are linear maps of the last axis here. Its biases of W_q, W_k, W_v and W_o are left out: a
    constant per channel disappears in the instance norm (and W_k's in the softmax), so they would get no gradient.
    """

    def __init__(self, channels: int, text_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if channels % heads:
            raise S4ecaError(
                f"PWAM's heads {heads} do not divide a stage of {channels} channels; give fusion.heads a divisor."
            )
        self.heads = heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(text_dim, channels, bias=False)
        self.value = nn.Linear(text_dim, channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.pixel = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Dropout(dropout))
        self.merge = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Dropout(dropout))

    def forward(self, grid: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """Returns fused (B, H, W, C) from a grid (B, H, W, C), words (B, L, D) and their mask (B, L)."""
        batch, height, width, channels = grid.shape
        if height * width == 1:
            raise S4ecaError("PWAM normalises over pixels and got a grid of one: use larger images or another fusion.")
        pixels = grid.reshape(batch, height * width, channels)
        query = self._split(_instance_norm(self.query(pixels)))
        key, value = self._split(self.key(words)), self._split(self.value(words))

        # LAVT divides by the full width, whatever the number of heads
        similarity = query @ key.transpose(-2, -1) / channels**0.5
        # a float32 softmax: 8 bits of bf16 cannot tell neighbouring words apart
        similarity = similarity.float().masked_fill(~word_mask[:, None, None], -torch.inf)
        attended = similarity.softmax(-1).to(value.dtype) @ value

        language = _instance_norm(self.out(attended.transpose(1, 2).flatten(2)))
        return self.merge(self.pixel(pixels) * language).view(batch, height, width, channels)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, C) to (B, heads, N, C / heads)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _instance_norm(pixels: Tensor) -> Tensor:
    """Normalises each channel of (B, N, C) over its N pixels; no affine, no running statistics, as in LAVT."""
    return F.instance_norm(pixels.transpose(1, 2)).transpose(1, 2)


def _gate(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(channels, channels, bias=False),
        nn.ReLU(),
        nn.Linear(channels, channels, bias=False),
        nn.Tanh(),
    )
