"""Bottleneck adapters: small networks inside the branches of every block, in sequence or in parallel."""

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.checks import check_dropout, check_whole
from s4eca.errors import S4ecaError
from s4eca.towers.base import Site, Step, TextTower, VisionTower
from s4eca.tuning.base import INSIDE, Capabilities, Carry, Context, Scope, TuningMethod, Width

SITES: dict[str, tuple[Site, ...]] = {"houlsby": ("attn", "mlp"), "adaptformer": ("mlp",)}


class Bottleneck(TuningMethod):
    """Adapters of Houlsby et al. (ICML 2019, section 2.1) or AdaptFormer (Chen et al., NeurIPS 2022, section 3.2).

    `houlsby`: one at the end of the attention branch and one at the end of the MLP branch, before the residual sum:
    x + up(gelu(down(x))). Where a block has no attention (ConvNeXt) there is the second alone. Departures: the up
    projection starts at zero instead of near it; the tower's norms stay frozen, where the paper trains them
    (`tuning=norm` does that).

    `adaptformer`: one beside the MLP: branch + scale * up(relu(down(norm(branch input)))). Departures: the norm is the
    adapter's own, as an option of the authors' code has it, where the paper's equation shares the MLP's, because towers
    that normalise after the branch have none before it; it reads what the MLP reads, which in pre-norm towers is
    normalised once already. The paper tunes vision transformers; here the text tower gets the same adapters.

    Both: kaiming-uniform down projection, zero biases (AdaptFormer's code); dropout after the activation.

    Args:
        form: `houlsby` or `adaptformer`; it is also the method's name.
        width: of the bottleneck.
        scale: of an AdaptFormer adapter, None for the paper's 0.1; Houlsby's have none.
        dropout: before the up projection, active in training.
        text: whether the text tower gets adapters.
        vision: whether the vision tower gets adapters.

    Raises:
        S4ecaError: an unknown form, a width below 1, a scale with `houlsby`, or no tower to adapt.
    """

    capabilities = Capabilities(language=False)
    width = Width(("width",))

    def __init__(
        self,
        form: Literal["houlsby", "adaptformer"] = "houlsby",
        width: int = 64,
        scale: float | None = None,
        dropout: float = 0.0,
        text: bool = True,
        vision: bool = True,
    ) -> None:
        super().__init__()
        if form not in SITES:
            raise S4ecaError(f"tuning.form={form} is neither houlsby nor adaptformer.")
        check_whole("tuning.width", width)
        check_dropout("tuning.dropout", dropout)
        if form == "houlsby" and scale is not None:
            raise S4ecaError(
                f"tuning.scale={scale} belongs to tuning.form=adaptformer, and houlsby's adapters have no scale; set "
                "tuning.scale=null."
            )
        if not text and not vision:
            raise S4ecaError(
                f"tuning={form} has adapters in neither tower; set tuning.text=true or tuning.vision=true, or use "
                "tuning=frozen."
            )
        self.name = self.form = form
        self.bottleneck, self.dropout = width, dropout
        self.scale = 0.1 if scale is None else scale
        self.towers = {"text": text, "vision": vision}

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Builds the adapters for these towers."""
        super().attach(text, vision, scope)
        steps = {"text": text.steps, "vision": scope.steps(vision)}
        self.adapters = nn.ModuleDict(
            {
                tower: nn.ModuleDict({str(step.index): self._of_block(step) for step in steps[tower] if wanted})
                for tower, wanted in self.towers.items()
            }
        )

    def _of_block(self, step: Step) -> nn.ModuleDict:
        """Returns the adapters of one block, by site."""
        return nn.ModuleDict(
            {
                site: SequentialAdapter(step.width, self.bottleneck, self.dropout)
                if self.form == "houlsby"
                else ParallelAdapter(step.width, self.bottleneck, self.dropout, self.scale)
                for site in SITES[self.form]
                if site in step.sites
            }
        )

    def tap(
        self,
        step: Step,
        site: Site,
        x: Tensor,
        branch_in: Tensor | None,
        context: Context,
        carry: Carry,
    ) -> tuple[Tensor, Carry]:
        """Acts on the branches of blocks that carry adapters."""
        blocks: Any = self.adapters[step.tower]
        key = str(step.index)
        if key in blocks and site in blocks[key]:
            x = blocks[key][site](x, branch_in)
        return x, carry


class SequentialAdapter(nn.Module):
    """Houlsby et al.: acts on the branch itself.

    Args:
        channels: width C of the tower at this place.
        width: of the bottleneck.
        dropout: before the up projection.
    """

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up = _projections(channels, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, branch: Tensor, branch_in: Tensor) -> Tensor:
        """Returns the branch (..., C) after the adapter; its input `branch_in` is not read."""
        return branch + self.up(self.dropout(F.gelu(self.down(branch))))


class ParallelAdapter(nn.Module):
    """AdaptFormer: a second, narrow branch beside the given one.

    Args:
        channels: width C of the tower at this place.
        width: of the bottleneck.
        dropout: before the up projection.
        scale: of what is added.
    """

    def __init__(self, channels: int, width: int, dropout: float, scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.down, self.up = _projections(channels, width)
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, branch: Tensor, branch_in: Tensor) -> Tensor:
        """Returns the branch (..., C) with the adapter's reading of the branch's input (..., C) added."""
        return branch + self.scale * self.up(self.dropout(F.relu(self.down(self.norm(branch_in)))))


def _projections(channels: int, width: int) -> tuple[nn.Linear, nn.Linear]:
    """Returns the projection down, kaiming-uniform, and the one up, zero."""
    down, up = nn.Linear(channels, width), nn.Linear(width, channels)
    nn.init.kaiming_uniform_(down.weight, a=5**0.5)
    for zero in (down.bias, up.weight, up.bias):
        nn.init.zeros_(zero)
    return down, up
