"""Comparison between places: which of those that the language may mean lies where, and next to what."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OCTAVES = 3  # of sine and cosine: half an image, a quarter, an eighth from wave to wave
HEADS = 4
FEATURES = 2 + 4 * OCTAVES


def positions(rows: int, columns: int, like: Tensor) -> Tensor:
    """Returns (rows, columns, FEATURES) on the device and of the type of `like`.

    The first two are x and y from -1 to 1; sines and cosines of both follow, so that a linear layer can tell bands.
    """
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, rows, device=like.device),
        torch.linspace(-1, 1, columns, device=like.device),
        indexing="ij",
    )
    place = torch.stack([x, y], dim=-1)
    waves = [wave(math.pi * 2**octave * place) for octave in range(OCTAVES) for wave in (torch.sin, torch.cos)]
    return torch.cat([place, *waves], dim=-1).to(like.dtype)


class Comparison(nn.Module):
    """Every place looks at all places that the gate lets through (ours; not in S4ECA's abstract).

    Being the leftmost ship, or the third from the top, is no property of a place but one of all ships. Convolutions see
    a neighbourhood, and attention to language one place at a time, so neither can tell. A transformer block does
    (self-attention, then a feed-forward network, both pre-norm), which knows from `positions` what lies where. Keys are
    cells of a grid of at most `cells` x `cells`, means of the features weighted by the gate; values are those means
    times the gate's own.

    Args:
        width: channels R, a multiple of HEADS.
        cells: side of the grid of keys.
    """

    def __init__(self, width: int, cells: int = 16) -> None:
        super().__init__()
        self.cells = cells
        self.norm = nn.LayerNorm(width)
        self.place = nn.Linear(FEATURES, width, bias=False)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, gate: Tensor | None) -> Tensor:
        """Returns (B, H, W, R) for features of that shape and a gate (B, H, W) in (0, 1); None lets all through."""
        rows, columns = x.shape[1:3]
        place = self.place(positions(rows, columns, x))
        normed = self.norm(x)
        weight = torch.ones_like(x[..., :1]) if gate is None else gate[..., None]
        cells = (min(rows, self.cells), min(columns, self.cells))
        share = _pool(weight, cells).clamp(min=1e-6)
        seen = _pool(normed * weight, cells)
        keys = (seen / share + _pool(place[None], cells)).flatten(1, 2)
        read, _ = self.attention((normed + place).flatten(1, 2), keys, seen.flatten(1, 2), need_weights=False)
        x = x + read.unflatten(1, (rows, columns))
        return x + self.feed(self.norm_feed(x))


def _pool(grid: Tensor, cells: tuple[int, int]) -> Tensor:
    """Returns means (B, h, w, R) over the cells of a grid (B, H, W, R)."""
    return F.adaptive_avg_pool2d(grid.permute(0, 3, 1, 2), cells).permute(0, 2, 3, 1)
