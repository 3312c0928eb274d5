"""Multi-scale dense extractor: depth-wise kernels of growing size, each seeing all smaller ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
        """Returns one map (B, R, H, W) per kernel for an input (B, R, H, W)."""
        maps = [x]
        for scale in self.scales:
            maps.append(scale(torch.cat(maps, dim=1) if self.dense else x))
        return maps[1:]
