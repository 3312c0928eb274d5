"""The frozen baseline: nothing in the towers is learned, only fusion and decoder."""

from collections.abc import Sequence

from torch import Tensor

from s4eca.tuning.base import Capabilities, Context, TuningMethod


class Frozen(TuningMethod):
    """Leaves both towers as they are; what a method adds is measured against this."""

    name = "frozen"
    capabilities = Capabilities(language=False, side=True)

    def side(self, words: Sequence[Tensor], stages: Sequence[Tensor], context: Context) -> list[Tensor]:
        """Hands the stages on as they are: the same network, whose towers' states can be kept between epochs."""
        return list(stages)
