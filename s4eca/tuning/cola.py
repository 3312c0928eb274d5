"""CoLA, cross-modal LoRA: the expression changes the vision tower's low-rank updates."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.errors import S4ecaError
from s4eca.towers.base import Site, Step, TextTower, VisionTower
from s4eca.tuning.base import INSIDE, Capabilities, Carry, Context, Scope, TuningMethod, Width
from s4eca.tuning.lora import Layers, Update, add_updates, find_layers, set_update_mode

Branch = Literal["attn", "mlp"]


class LanguageUpdate(nn.Module):
    """A low-rank map of a branch's input whose r directions the expression scales.

    Args:
        width: C, channels of the branch.
        update: its rank, scale and dropout.
        language: H, width of the hyper-network's hidden vector.
        language_scale: lambda, weight of the part that the expression changes.
    """

    def __init__(self, width: int, update: Update, language: int, language_scale: float) -> None:
        super().__init__()
        self.scale, self.language_scale = update.scale, language_scale
        self.dropout = nn.Dropout(update.dropout)
        self.down = nn.Linear(width, update.rank, bias=False)
        # a bias would scale the directions whatever the expression says, which `down` can do already
        self.phi = nn.Linear(language, update.rank, bias=False)
        self.up = nn.Linear(update.rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, branch_in: Tensor, language: Tensor) -> Tensor:
        """Returns what joins the branch, shaped like `branch_in` (B, ..., C); `language` is (B, H)."""
        phi = self.phi(language).view(len(language), *[1] * (branch_in.ndim - 2), -1)
        return self.up((self.scale + self.language_scale * phi) * self.down(self.dropout(branch_in)))


class CoLA(TuningMethod):
    """Cross-modal low-rank adaptation: h = W x + alpha / rank · B A x + lambda · B Phi(c) A x.

    Reconstruction from a digest of the paper (CoLA, 2026: BERT and Swin encoders, Phi made by a hyper-network from
    pooled tokens c of the other modality); the paper itself was not available. Choices and departures:

    - One way only: the text tower runs first and its layers get plain LoRA; the words change the vision tower's
      updates, the image does not change the text tower's.
    - A branch (attention or MLP) counts as one linear map: the update runs from the branch's input to its output,
      beside it, where the paper updates single layers. So it fits towers without attention and Swin V2.
    - c is the mean of the final words, normalised without learned parameters, since not every tower ends in a norm.
    - Phi is diagonal: the expression scales each of the rank directions, by rank values instead of rank². The
      hyper-network is one hidden layer that all updates share and one linear map to rank values for each of them.

    B starts at zero, Phi does not. With Swin-B and BERT-base 124,928 · rank + 49,216 parameters (rank 16: 2.05 M,
    1.05 % of the towers).

    Args:
        rank: of all updates, text and vision.
        alpha: the part without language is scaled by `alpha / rank`; None is the rank, so that the scale is 1.
        language_scale: lambda.
        hidden: width of the hyper-network's shared layer.
        dropout: of the updates' inputs, active in training.
        branches: the branches of a vision block that get an update, of `attn` and `mlp`; a block that lacks one does
            without.
        text_layers: as in `LoRA`; an empty list leaves the text tower alone.

    Raises:
        S4ecaError: a setting that cannot be.
    """

    name = "cola"
    capabilities = Capabilities(language=True)
    width = Width(("rank",))

    def __init__(
        self,
        rank: int = 16,
        alpha: float | None = None,
        language_scale: float = 1.0,
        hidden: int = 64,
        dropout: float = 0.0,
        branches: Sequence[Branch] = ("attn", "mlp"),
        text_layers: Layers = "attention",
    ) -> None:
        super().__init__()
        self.update = Update(rank, alpha, dropout)
        self.language_scale, self.hidden = language_scale, hidden
        self.branches, self.text_layers = list(branches), text_layers
        if not language_scale > 0:
            raise S4ecaError(
                f"tuning.language_scale={language_scale} must be above 0; without language in the updates, use "
                "tuning=lora."
            )
        if type(hidden) is not int or hidden < 1:
            raise S4ecaError(f"tuning.hidden={hidden} cannot be; give a whole number from 1 up.")
        if not self.branches or set(self.branches) - {"attn", "mlp"}:
            raise S4ecaError(f"tuning.branches={self.branches} must name attn, mlp, or both.")

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Builds the hyper-network and the vision updates, and replaces the text tower's layers.

        Raises:
            S4ecaError: see `find_layers`, or the vision tower has none of the branches.
        """
        super().attach(text, vision, scope)
        layers = find_layers(text, self.text_layers, self.name)
        places = [(step, [site for site in self.branches if site in step.sites]) for step in scope.steps(vision)]
        if not any(sites for _, sites in places):
            raise S4ecaError(
                f"tuning.branches={self.branches} is in no block of the {vision.family} tower; name both, attn and mlp."
            )
        add_updates(text, text.steps, layers, self.update)
        self.hyper = nn.Sequential(nn.Linear(text.widths[-1], self.hidden), nn.GELU())
        self.updates = nn.ModuleDict(
            {
                str(step.index): nn.ModuleDict(
                    {site: LanguageUpdate(step.width, self.update, self.hidden, self.language_scale) for site in sites}
                )
                for step, sites in places
                if sites
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
        """Reads the final words, and adds an update to each branch of the vision tower that has one."""
        if step.tower == "text":
            if site == "stage_out":
                kept = context.word_mask[..., None]
                mean = x.masked_fill(~kept, 0).sum(1) / kept.sum(1)
                carry = {**carry, "language": self.hyper(F.layer_norm(mean, mean.shape[-1:]))}
        elif branch_in is not None and str(step.index) in self.updates:
            updates = self.updates[str(step.index)]
            if site in updates:  # type: ignore[operator]  # a ModuleDict
                x = x + updates[site](branch_in, carry["language"])  # type: ignore[index]
        return x, carry

    def language_enters(self, vision: VisionTower) -> int:
        """Returns the first block with an update."""
        return min(map(int, self.updates))

    def before_language(self) -> list[nn.Module]:
        """Returns what reads the words; the text tower's updates are in the tower."""
        return [self.hyper]

    def set_mode(self, text: TextTower, vision: VisionTower, training: bool) -> None:
        """Of the towers, only the text updates' own dropout follows `training`."""
        vision.eval()
        set_update_mode(text, training)
