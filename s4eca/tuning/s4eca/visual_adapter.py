"""The visual adapter: language chooses scale and places inside a bottleneck beside a vision block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.tuning.s4eca.comparison import FEATURES, Comparison, positions
from s4eca.tuning.s4eca.dense_extractor import DenseExtractor
from s4eca.tuning.s4eca.selection import ScaleSelection, SpatialSelection


@dataclass
class VisualSettings:
    """The visual adapters.

    Attributes:
        density: share of each stage's blocks that carry one, evenly spread, the last included; 0 for none. In the side
            form, where a stage is seen once, any share above 0 gives it one adapter.
        width: of the bottleneck.
        kernels: of the multi-scale extractor; empty leaves the extractor out.
        dense: later kernels see the earlier ones' maps.
        scale: what selects the scale: `both`, `text`, `visual`, or `uniform` for a plain mean.
        granularity: of the scale selection, `channel` or `scalar`.
        temperature: of the scale selection.
        gate: the gate half of the spatial selection.
        context: the context half of the spatial selection.
        positions: the bottleneck is told where in the image a place lies; frozen features hardly say it.
        compare: places are compared over the whole image, see `Comparison`.
        dropout: before the up-projection, active in training.
    """

    density: Sequence[float] = (1.0, 1.0, 5 / 9, 1.0)
    width: int = 64
    kernels: Sequence[int] = (1, 3, 5, 7)
    dense: bool = True
    scale: Literal["both", "text", "visual", "uniform"] = "both"
    granularity: Literal["channel", "scalar"] = "channel"
    temperature: float = 1.0
    gate: bool = True
    context: bool = True
    positions: bool = False
    compare: bool = False
    dropout: float = 0.0

    @property
    def reads_language(self) -> bool:
        """Whether a visual adapter depends on the expression."""
        return any(self.density) and (self.scale in ("both", "text") or self.gate or self.context)


class VisualAdapter(nn.Module):
    """Bottleneck, extractor, scale selection, spatial selection, comparison, and a projection that starts at zero.

    Args:
        channels: width C of the vision tower at this place.
        language_width: channels of proxies or words.
        settings: which parts are there.
        single: the language is one vector.
        climbs: what an adapter of a finer stage found is added in the bottleneck (the ladder of the side form).
    """

    def __init__(
        self, channels: int, language_width: int, settings: VisualSettings, single: bool, climbs: bool = False
    ) -> None:
        super().__init__()
        width, kernels = settings.width, settings.kernels
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, width)
        self.climb = nn.Linear(width, width, bias=False) if climbs else None  # `down` has the bias
        self.extractor = DenseExtractor(width, kernels, settings.dense) if kernels else None
        self.scale: ScaleSelection | None = None
        if settings.scale != "uniform":
            self.scale = ScaleSelection(
                len(kernels), width, language_width, settings.scale, settings.granularity, settings.temperature
            )
        self.spatial: SpatialSelection | None = None
        if settings.gate or settings.context:
            self.spatial = SpatialSelection(width, language_width, settings.gate, settings.context, single)
        self.position = nn.Linear(FEATURES, width, bias=False) if settings.positions else None
        self.comparison = Comparison(width) if settings.compare else None
        self.dropout = nn.Dropout(settings.dropout)
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(
        self, x: Tensor, language: Tensor | None, mask: Tensor | None, finer: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Refines a grid by language.

        Args:
            x: (B, H, W, C), the block's output.
            language: (B, N, R_t); None where the settings read none.
            mask: (B, N) bool, False for padded words; None where there is no padding.
            finer: (B, H', W', R), what the adapter of a finer stage found; only for one that `climbs`.

        Returns:
            The refined grid (B, H, W, C), and what was found (B, H, W, R), before the up-projection.
        """
        inner = self.down(self.norm(x))
        if self.climb is not None:
            assert finer is not None
            pooled = F.adaptive_avg_pool2d(finer.permute(0, 3, 1, 2), (x.shape[1], x.shape[2])).permute(0, 2, 3, 1)
            inner = inner + self.climb(pooled)
        if self.position is not None:
            inner = inner + self.position(positions(inner.shape[1], inner.shape[2], inner))
        inner = F.gelu(inner)
        maps = self.extractor(inner) if self.extractor is not None else [inner]
        if self.scale is not None:
            inner = self.scale(maps, None if language is None else masked_mean(language, mask))
        else:
            inner = sum(maps[1:], start=maps[0]) / len(maps)
        gate: Tensor | None = None
        if self.spatial is not None:
            inner, gate = self.spatial(inner, language, mask)
        if self.comparison is not None:
            inner = self.comparison(inner, gate)
        return x + self.up(self.dropout(inner)), inner


def masked_mean(language: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the mean (B, R) of (B, N, R) over the positions where `mask` (B, N) is True; over all without one."""
    if mask is None:
        return language.mean(dim=1)
    weights = mask.to(language.dtype)[..., None]
    return (language * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
