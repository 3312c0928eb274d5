"""Decoders: from a pyramid of fused features to class scores.

Every decoder is built as `Decoder(channels, out_channels, **options)` with the channels of the pyramid's stages, fine
to coarse, and maps a list of NHWC grids (B, H_i, W_i, C_i) to (B, out_channels, H_1, W_1), the finest stage's grid.
"""

from torch import Tensor, nn


class Decoder(nn.Module):
    """What every decoder does.

    Attributes:
        classifier: 1x1 convolution from the features to the scores.
    """

    classifier: nn.Conv2d

    def features(self, pyramid: list[Tensor]) -> Tensor:
        """Returns the finest features (B, C, H_1, W_1) from NHWC grids (B, H_i, W_i, C_i), fine to coarse."""
        raise NotImplementedError

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Returns scores (B, K, H_1, W_1) from NHWC grids (B, H_i, W_i, C_i), fine to coarse."""
        return self.classifier(self.features(pyramid))
