"""In which order a decoder's feature maps and kernels lie in memory.

Grids come out of the towers with their channels last, (B, H, W, C), and convolutions are quickest on a GPU where their
kernels lie in that order too. Names, shapes and values of what a decoder learns are the same in both orders, and a
checkpoint may be read into either.
"""

import torch
from torch import Tensor, nn


def put_channels_last(decoder: nn.Module) -> None:
    """Lays the kernels of a decoder out with their channels last, in place."""
    decoder.to(memory_format=torch.channels_last)


def put_channels_first(pyramid: list[Tensor]) -> list[Tensor]:
    """Returns grids (B, H, W, C) whose memory is that of contiguous (B, C, H, W), which a decoder then works in."""
    return [grid.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for grid in pyramid]
