"""Textual query adapter: learnable queries distil language proxies from the words of one text layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TextQueryAdapter(nn.Module):
    """Words in, proxies and refined words out (reconstruction; S4ECA's abstract, after Prompt-RIS' cross-attention).

    A bottleneck brings the words to `width`; the queries, added to the proxies of the adapter before, read them by
    cross-attention; then the words read the proxies back and return to the residual stream through a projection that
    starts at zero, so that the text tower is unchanged at initialisation.

    Args:
        channels: width D of the text tower.
        width: width R of words and proxies inside the adapter.
        proxies: their number N.
        heads: of both cross-attentions.
        dropout: on proxies and words, active in training.
        read_back: False leaves the words alone; for the last adapter, whose words nothing reads.
    """

    def __init__(
        self, channels: int, width: int, proxies: int, heads: int = 4, dropout: float = 0.0, read_back: bool = True
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(proxies, width) * 0.02)
        self.norm_in = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, width)
        self.norm_queries = nn.LayerNorm(width)
        self.distil = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)
        self.read_back = read_back
        self.single = proxies == 1
        self.read: nn.Module
        if read_back:
            if self.single:  # attention over one proxy has nothing to choose: all words read the same
                self.read = nn.Linear(width, width)
            else:
                self.norm_words = nn.LayerNorm(width)
                self.read = nn.MultiheadAttention(width, heads, batch_first=True)
            self.up = nn.Linear(width, channels)
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, words: Tensor, word_mask: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """Refines words and proxies.

        Args:
            words: (B, L, D), the output of a text layer.
            word_mask: (B, L) bool, False for padding, which no proxy reads.
            previous: (B, N, R), the proxies of the adapter before, None for the first.

        Returns:
            words (B, L, D) and proxies (B, N, R).
        """
        inner = F.gelu(self.down(self.norm_in(words)))
        proxies = self.queries.expand(words.shape[0], -1, -1)
        if previous is not None:
            proxies = proxies + previous
        read, _ = self.distil(self.norm_queries(proxies), inner, inner, key_padding_mask=~word_mask, need_weights=False)
        proxies = proxies + self.dropout(read)
        proxies = proxies + self.dropout(self.feed(self.norm_feed(proxies)))
        if self.read_back:
            if self.single:
                read = self.read(proxies)
            else:
                read, _ = self.read(self.norm_words(inner), proxies, proxies, need_weights=False)
            words = words + self.up(inner + self.dropout(read))
        return words, proxies
