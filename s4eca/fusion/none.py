"""No fusion: for methods whose adapters already bring language into the pyramid."""

from collections.abc import Sequence

from torch import Tensor

from s4eca.fusion import Fusion


class NoFusion(Fusion):
    """Hands each grid on as it is; no parameters.

    The arguments are every fusion's and have nothing to size here.
    """

    def __init__(self, channels: Sequence[int], text_dim: int) -> None:
        super().__init__()

    def stage(self, i: int, grid: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the grid twice; see `Fusion.stage`."""
        return grid, grid
