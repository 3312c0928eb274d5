"""Language-guided selection: which scale, and which places."""

from typing import Literal

import torch
from torch import Tensor, nn

Condition = Literal["both", "text", "visual"]


class ScaleSelection(nn.Module):
    """Mixes the maps of the extractor, the weights chosen by language (reconstruction; SKNet's selection with words).

    `softmax` over the scales of a small network on the pooled maps and the pooled language; its last layer starts at
    zero, so that all scales count the same at first.

    Args:
        scales: number of maps S.
        width: their channels R.
        language_width: channels of the language.
        condition: what chooses: `both`, `text` or `visual`.
        granularity: one weight per `channel`, or one `scalar` per map.
        temperature: of the softmax.
    """

    def __init__(
        self,
        scales: int,
        width: int,
        language_width: int,
        condition: Condition = "both",
        granularity: Literal["channel", "scalar"] = "channel",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.condition, self.temperature, self.scales = condition, temperature, scales
        if condition != "visual":
            self.project = nn.Linear(language_width, width)
        self.squeeze = nn.Linear(width * (2 if condition == "both" else 1), max(width // 4, 32))
        self.choose = nn.Linear(max(width // 4, 32), scales * (width if granularity == "channel" else 1))
        nn.init.zeros_(self.choose.weight)
        nn.init.zeros_(self.choose.bias)

    def forward(self, maps: list[Tensor], sentence: Tensor | None) -> Tensor:
        """Returns the mixture (B, H, W, R) of S maps of that shape, chosen by a sentence (B, R_t)."""
        first = maps[0]
        evidence = []
        if self.condition != "text":
            # sums, divided once they are small: a mean's gradient would fill a map for every scale
            totals = torch.stack([scale.sum(dim=(1, 2), dtype=torch.float32) for scale in maps]).sum(dim=0)
            evidence.append((totals / (first.shape[1] * first.shape[2])).to(first.dtype))
        if self.condition != "visual":
            evidence.append(self.project(sentence))
        hidden = nn.functional.gelu(self.squeeze(torch.cat(evidence, dim=1)))
        scores = self.choose(hidden).unflatten(1, (self.scales, -1))
        weights = (scores / self.temperature).softmax(dim=1)[:, :, None, None].to(first.dtype)
        mixture = first * weights[:, 0]
        for place, scale in enumerate(maps[1:], start=1):
            mixture = torch.addcmul(mixture, scale, weights[:, place])
        return mixture


class SpatialSelection(nn.Module):
    """Emphasises the places that the language names (reconstruction; LSKNet's gate with pixel-proxy similarity).

    Two halves: a context that every pixel reads from the proxies by attention, and a gate in (0, 1) from a 7x7
    convolution over two statistics of the features and two of the similarities.

    Args:
        width: channels R of the features.
        language_width: channels R_t of the proxies.
        gate: whether the gate half is there.
        context: whether the context half is there.
        single: there is only one proxy, so that a softmax over proxies has nothing to choose.
    """

    def __init__(
        self, width: int, language_width: int, gate: bool = True, context: bool = True, single: bool = False
    ) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.compares = gate or not single
        if self.compares:
            self.query = nn.Linear(width, width)
            # a key bias shifts all similarities of a pixel alike, which only the gate can see
            self.key = nn.Linear(language_width, width, bias=gate)
        self.value = nn.Linear(language_width, width) if context else None
        self.gate = nn.Conv2d(4, 1, 7, padding=3) if gate else None

    def forward(self, x: Tensor, proxies: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Selects places; returns (B, H, W, R), and the gate (B, H, W) in (0, 1), None where that half is off.

        Args:
            x: features (B, H, W, R).
            proxies: (B, N, R_t) proxies, or words.
            mask: (B, N) bool where some of them are padding, else None.
        """
        grid, x = x.shape[1:3], x.flatten(1, 2)
        similarity = self._similarity(x, proxies, mask) if self.compares else None
        y, gate = x, None
        if self.value is not None:
            values = self.value(proxies)
            if similarity is None:
                y = x + values
            else:
                y = torch.baddbmm(x, similarity.softmax(dim=1).mT.to(x.dtype), values.to(x.dtype))
        if self.gate is not None:
            assert similarity is not None
            # `max`, whose gradient costs half of `amax`'s
            features = [x.sum(dim=-1) / x.shape[-1], x.max(dim=-1).values]
            statistics = [*features, similarity.amax(dim=1).to(x.dtype), similarity.logsumexp(dim=1).to(x.dtype)]
            maps = torch.stack(statistics, dim=-1).unflatten(1, grid).permute(0, 3, 1, 2)
            gate = self.gate(maps).sigmoid()[:, 0]
            y = gate.flatten(1)[..., None] * y
        return y.unflatten(1, grid), gate

    def _similarity(self, x: Tensor, proxies: Tensor, mask: Tensor | None) -> Tensor:
        """Scaled dot products (B, N, HW) of queries and keys in fp32, minus infinity for padding.

        The query projection is applied to the few keys instead of the many pixels: (x Q + b) K' = x (Q K') + b K'.
        """
        keys = self.key(proxies)
        with torch.autocast(x.device.type, enabled=False):
            keys = keys.float() * self.scale
            shift = keys @ self.query.bias.float()
            similarity = torch.baddbmm(shift[:, None], x.float(), (keys @ self.query.weight.float()).mT)
            similarity = similarity.mT.contiguous()  # a softmax over few proxies is quick where pixels come last
        if mask is not None:
            similarity = similarity.masked_fill(~mask[..., None], float("-inf"))
        return similarity
