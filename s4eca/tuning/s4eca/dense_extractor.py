"""Multi-scale dense extractor: depth-wise kernels of growing size, each seeing all smaller ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.tuning.s4eca.depthwise import depthwise


class DenseExtractor(nn.Module):
    """One map per kernel size (reconstruction; DETRIS' dense mixture of convolutions with equal widths).

    Map s is `GELU(Norm(DW_k(PW([z, map 1, ..., map s-1]))))`; with kernel 1 the depth-wise part is left out. All maps
    have the same width, so that the scale can be selected per channel.

    Args:
        width: channels R.
        kernels: odd sizes, small to large.
        dense: False gives every kernel the input alone.
    """

    def __init__(self, width: int, kernels: Sequence[int] = (1, 3, 5, 7), dense: bool = True) -> None:
        super().__init__()
        self.dense = dense
        self.scales = nn.ModuleList()
        for place, kernel in enumerate(kernels):
            layers: list[nn.Module] = [nn.Conv2d(width * (place + 1 if dense else 1), width, 1)]
            if kernel > 1:
                layers.append(nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width))
            # over all channels and pixels of one image, so that results do not depend on the batch
            layers += [nn.GroupNorm(1, width), nn.GELU()]
            self.scales.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns one map (B, H, W, R) per kernel for an input (B, H, W, R)."""
        maps = [x]
        for scale in self.scales:
            layers: list[Any] = list(scale.children())
            # channels last in memory from the tower to here and back, seen as (B, R, H, W) by the convolutions
            inner = _pointwise(layers[0], maps if self.dense else [x]).permute(0, 3, 1, 2)
            for layer in layers[1:]:
                inner = depthwise(inner, layer) if isinstance(layer, nn.Conv2d) else layer(inner)
            maps.append(inner.permute(0, 2, 3, 1))
        return maps[1:]


def _pointwise(layer: nn.Conv2d, maps: Sequence[Tensor]) -> Tensor:
    """A 1x1 convolution over the concatenation of (B, H, W, R) maps, without making (and keeping) that copy."""
    weights = layer.weight.flatten(1).split(maps[0].shape[-1], dim=1)
    total = F.linear(maps[0].flatten(0, 2), weights[0], layer.bias)
    for scale, weight in zip(maps[1:], weights[1:], strict=True):
        total = torch.addmm(total, scale.flatten(0, 2), weight.T)
    return total.unflatten(0, maps[0].shape[:3])
