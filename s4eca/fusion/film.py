"""FiLM: the sentence scales and shifts each channel."""

from collections.abc import Sequence

from torch import Tensor, nn

from s4eca.fusion import Fusion


class FiLM(Fusion):
    """Feature-wise linear modulation (arXiv 1709.07871) by the mean of the words.

    fused = grid · (1 + scale) + shift, with scale and shift one linear map of the mean word per stage. The map starts
    at zero, so that the fusion is the identity before training.

    Args:
        channels: C_i of the stages, fine to coarse.
        text_dim: D, width of the words.
    """

    def __init__(self, channels: Sequence[int], text_dim: int) -> None:
        super().__init__()
        self.modulations = nn.ModuleList(nn.Linear(text_dim, 2 * stage) for stage in channels)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def stage(self, i: int, grid: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the grid and the modulated grid; see `Fusion.stage`."""
        kept = word_mask.unsqueeze(-1)
        sentence = words.masked_fill(~kept, 0).sum(1) / kept.sum(1)
        scale, shift = self.modulations[i](sentence)[:, None, None].chunk(2, dim=-1)
        return grid, grid * (1 + scale) + shift
