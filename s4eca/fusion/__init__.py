"""Fusion: how words meet the vision tower's pyramid, between the towers and the decoder.

Fusions are built as `Fusion(channels, text_dim, **options)` with the channels of the pyramid's stages, fine to coarse,
and the width D of the words. The walk calls `stage` as each vision stage ends.
"""

from torch import Tensor, nn


class Fusion(nn.Module):
    """What every fusion does.

    Attributes:
        feedback: whether `onward` differs from the stage's grid, so that language flows back into the vision tower.
            A fusion with feedback must be called stage by stage during the walk.
    """

    feedback: bool = False

    def stage(self, i: int, grid: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Fuses one stage.

        Args:
            i: index of the stage, 0 is the finest.
            grid: (B, H, W, C_i), the stage's output.
            words: (B, L, D); padded words cannot change the result.
            word_mask: (B, L) bool, True for words; at least one per sample.

        Returns:
            `onward` (B, H, W, C_i), which goes on through the vision tower, and `fused` (B, H, W, C_i), which goes to
            the decoder.
        """
        raise NotImplementedError

    def forward(self, pyramid: list[Tensor], words: Tensor, word_mask: Tensor) -> list[Tensor]:
        """Returns the fused grids of a finished pyramid; nothing is fed back."""
        return [self.stage(i, grid, words, word_mask)[1] for i, grid in enumerate(pyramid)]
