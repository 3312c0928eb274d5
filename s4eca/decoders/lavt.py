"""LAVT's decoder: concatenate and convolve, from the coarsest stage to the finest."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.checks import check_whole
from s4eca.decoders import Decoder
from s4eca.errors import S4ecaError


class LAVTDecoder(Decoder):
    """Top-down decoder of LAVT (arXiv 2112.02244, section 3.4; `SimpleDecoding` in its repository).

    At each level the coarser map is resized to the next finer grid (bilinear, corners aligned), concatenated with it
    and passed through two 3x3 convolutions with batch normalisation. With Swin-B, factor 2 and two output channels
    it has 20.65 M parameters.

    Args:
        channels: C_i of the stages, fine to coarse; at least two.
        out_channels: K, scores per pixel.
        factor: the hidden width is the coarsest stage's channels divided by this.

    Raises:
        S4ecaError: fewer than two stages, or a factor that leaves no hidden channel.
    """

    def __init__(self, channels: Sequence[int], out_channels: int, factor: int = 2) -> None:
        super().__init__()
        if len(channels) < 2:
            raise S4ecaError(f"The LAVT decoder got {len(channels)} stage(s): give it a pyramid of at least two.")
        check_whole("decoder.factor", factor)
        width = channels[-1] // factor
        if width < 1:
            raise S4ecaError(f"decoder.factor={factor} leaves nothing of {channels[-1]} channels: lower the factor.")
        levels: list[nn.Module] = []
        coarser = channels[-1]
        for finer in reversed(channels[:-1]):
            levels.append(nn.Sequential(*_convolution(coarser + finer, width), *_convolution(width, width)))
            coarser = width
        self.levels = nn.ModuleList(levels)
        self.classifier = nn.Conv2d(width, out_channels, 1)

    def features(self, pyramid: list[Tensor]) -> Tensor:
        """Returns (B, C_4 / factor, H_1, W_1) from NHWC grids (B, H_i, W_i, C_i), fine to coarse."""
        grids = [grid.permute(0, 3, 1, 2) for grid in pyramid]
        hidden = grids.pop()
        for level in self.levels:
            finer = grids.pop()
            hidden = F.interpolate(hidden, size=finer.shape[-2:], mode="bilinear", align_corners=True)
            hidden = level(torch.cat([hidden, finer], dim=1))
        return hidden


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]
