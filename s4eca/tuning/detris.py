"""DETRIS: densely connected convolutions beside the MLPs of two frozen towers; in the image they align to the words."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.checks import check_dropout, check_whole
from s4eca.errors import S4ecaError
from s4eca.towers.base import Site, Step, TextTower, VisionTower, from_grid, to_grid
from s4eca.tuning.base import INSIDE, Capabilities, Carry, Context, Scope, TuningMethod, Width, evenly_spread


class DETRIS(TuningMethod):
    """Dense aligners and text adapters of DETRIS (Huang et al., AAAI 2025, arXiv 2501.08580; `model/adapter.py`).

    The text tower runs first; its adapters mix neighbouring words. Its final words are read by the dense aligners of
    the vision tower. Both stand beside the MLP and are added to it, times a fixed `scale`.

    Departures from the repository:

    - its BatchNorm is a norm over all channels and pixels (or words that are no padding) of one sample: the result
      must not depend on the rest of the batch, and recomputed blocks would count running statistics twice. The
      convolutions in front of it have no bias: before a BatchNorm it has no effect;
    - padding is taken out before every convolution over words and masked in the attention (the repository does
      neither);
    - the words are normalised without learned scale where they leave the text tower: the repository reads them after
      CLIP's own final norm, which other text towers do not have;
    - an aligner is added after the MLP's layer scale, where the vision tower has one, not before it;
    - an aligner reads what the tower's MLP reads: normalised, but not in a Swin V2, which norms after its branches;
    - the attention has `width` channels instead of 128, which is the same at width 128;
    - grids have the size that the stage has, and no leading tokens where the tower has none.

    As in the repository, the aligners start from Kaiming's normal values with zero biases and the text adapters from
    torch's own, so that the towers are disturbed from the first step on, by `scale`.

    Args:
        width: channels of the aligners; a multiple of 16.
        text_width: channels of the text adapters; a multiple of 16.
        density: share of the vision tower's blocks that carry an aligner, evenly spread with the last one included, or
            one such share per stage.
        text_density: share of the text layers that carry an adapter.
        heads: of the attention to the words; must divide `width`.
        scale: of everything that is added.
        dropout: on the attention weights, active in training.

    Raises:
        S4ecaError: widths or heads that do not fit, or densities that leave nothing to learn.
    """

    name = "detris"

    def __init__(
        self,
        width: int = 128,
        text_width: int = 64,
        density: float | Sequence[float] = 0.5,
        text_density: float = 0.5,
        heads: int = 8,
        scale: float = 0.2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        for key, value in (("width", width), ("text_width", text_width)):
            if value % 16 or value < 16:
                raise S4ecaError(
                    f"tuning.{key}={value} cannot be split into the halves, quarters and sixteenths of tuning=detris; "
                    "give a multiple of 16."
                )
        check_whole("tuning.heads", heads)
        check_dropout("tuning.dropout", dropout)
        if width % heads:
            raise S4ecaError(f"tuning.heads={heads} does not divide tuning.width={width}; choose a divisor.")
        self.width = Width(("width", "text_width"), multiple=(math.lcm(16, heads), 16))
        self.channels, self.text_channels = width, text_width
        self.density = density if isinstance(density, int | float) else list(density)
        self.text_density = text_density
        self.heads, self.scale, self.dropout = heads, scale, dropout
        aligned = any(self.density) if isinstance(self.density, list) else self.density > 0
        if not aligned and not text_density:
            raise S4ecaError("tuning=detris has neither visual nor text adapters; use tuning=frozen for that.")
        self.capabilities = Capabilities(language=aligned, identity=False)

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Builds the adapters for these towers.

        Raises:
            S4ecaError: as many densities as the vision tower has stages are needed, or `scope` leaves no aligner.
        """
        super().attach(text, vision, scope)
        words = text.widths[-1]
        self.text_adapters = nn.ModuleDict(
            {
                str(layer): TextAdapter(text.steps[layer].width, self.text_channels)
                for layer in evenly_spread(self.text_density, len(text.steps))
            }
        )
        free = scope.steps(vision)
        self.aligners = nn.ModuleDict(
            {
                str(index): DenseAligner(vision.steps[index].width, words, self.channels, self.heads, self.dropout)
                for index in self._blocks(vision)
                if vision.steps[index] in free
            }
        )
        if self.capabilities.language and not self.aligners:
            raise S4ecaError(
                f"tuning.density={self.density} puts no aligner into stage {scope.start_stage} or later; raise it "
                "there, or lower model.segmenter.start_stage."
            )

    def _blocks(self, vision: VisionTower) -> list[int]:
        """Returns the vision steps that `density` names."""
        if not isinstance(self.density, list):
            return evenly_spread(self.density, len(vision.steps))
        depths = vision.stage_depths()
        if len(self.density) != len(depths):
            raise S4ecaError(
                f"tuning.density has {len(self.density)} shares and the vision tower {len(depths)} stages; give one "
                "share per stage, or one number for all blocks."
            )
        return [
            sum(depths[:stage]) + block
            for stage, depth in enumerate(depths)
            for block in evenly_spread(self.density[stage], depth)
        ]

    def tap(
        self,
        step: Step,
        site: Site,
        x: Tensor,
        branch_in: Tensor | None,
        context: Context,
        carry: Carry,
    ) -> tuple[Tensor, Carry]:
        """Acts beside the MLPs that have an adapter, and keeps the final words for the aligners."""
        key = str(step.index)
        if step.tower == "text":
            if site == "mid" and key in self.text_adapters:
                # the adapter reads the residual stream, the MLP beside it perhaps its norm
                carry = {**carry, "stream": x}
            elif site == "mlp" and key in self.text_adapters:
                x = x + self.scale * self.text_adapters[key](carry["stream"], context.word_mask)
                carry = {name: value for name, value in carry.items() if name != "stream"}
            elif site == "stage_out":
                carry = {**carry, "words": F.layer_norm(x, x.shape[-1:])}
        elif site == "mlp" and key in self.aligners:
            x = x + self.scale * self.aligners[key](branch_in, step, carry["words"], context.word_mask)
        return x, carry

    def language_enters(self, vision: VisionTower) -> int:
        """Returns the first block with an aligner."""
        return min(map(int, self.aligners), default=len(vision.steps))

    def before_language(self) -> list[nn.Module]:
        """Returns the text adapters."""
        return [self.text_adapters]


class DenseAligner(nn.Module):
    """z = ReLU(W_d x), o = mixture(z) + z on the grid, W_u (z + W_b attention(W_q o; W_t words)).

    Leading tokens take no part in mixture and attention: for them it is W_u (z + z), as in the repository.

    Args:
        channels: C of the vision tower here.
        text_width: D of the words.
        width: channels R inside.
        heads: of the attention.
        dropout: on the attention weights.
    """

    def __init__(self, channels: int, text_width: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(channels, width)
        self.mixture = DenseMixture(width, nn.Conv2d)
        self.query = nn.Linear(width, width)
        self.words = nn.Linear(text_width, width)
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.back = nn.Linear(width, width)
        self.up = nn.Linear(width, channels)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, step: Step, words: Tensor, word_mask: Tensor) -> Tensor:
        """Returns what is added to the MLP's output, shaped like x.

        Args:
            x: (B, H, W, C), or (B, P + HW, C) tokens, the MLP's input.
            step: the step it comes from.
            words: (B, L, D).
            word_mask: (B, L) bool, False for padding.
        """
        hidden = F.relu(self.down(x))
        front, grid = to_grid(hidden, step)
        mixed = self.mixture(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + grid
        query, memory = self.query(mixed.flatten(1, 2)), self.words(words)
        read, _ = self.attention(query, memory, memory, key_padding_mask=~word_mask, need_weights=False)
        return self.up(from_grid(front, self.back(read).view_as(grid)) + hidden)


class TextAdapter(nn.Module):
    """z = ReLU(W_d x); W_u (mixture(z) + z) over the words, W_u (z + z) for the first token ([CLS]).

    Args:
        channels: D of the text tower here.
        width: channels R inside.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, width)
        self.mixture = DenseMixture(width, nn.Conv1d)
        self.up = nn.Linear(width, channels)

    def forward(self, x: Tensor, word_mask: Tensor) -> Tensor:
        """Returns what is added to the MLP's output (B, L, D) for words x (B, L, D) and their mask (B, L)."""
        hidden = F.relu(self.down(x))
        first, rest = hidden[:, :1], hidden[:, 1:].transpose(1, 2)
        mixed = self.mixture(rest, word_mask[:, None, 1:]).transpose(1, 2)
        return self.up(torch.cat([first, mixed], dim=1) + hidden)


class DenseMixture(nn.Module):
    """Convolutions of size 1, 3 and 5, each seeing what came before, side by side: R/2, R/4 and R/4 channels.

    In front of sizes 3 and 5 a convolution of size 1 goes down to R/16 channels.

    Args:
        width: channels R.
        convolution: `nn.Conv1d` for words, `nn.Conv2d` for grids.
    """

    def __init__(self, width: int, convolution: type[nn.Conv1d] | type[nn.Conv2d]) -> None:
        super().__init__()
        half, quarter, least = width // 2, width // 4, width // 16
        self.one = ConvNormReLU(convolution, width, half, 1)
        self.reduce_three = ConvNormReLU(convolution, width + half, least, 1)
        self.three = ConvNormReLU(convolution, least, quarter, 3)
        self.reduce_five = ConvNormReLU(convolution, width + half + quarter, least, 1)
        self.five = ConvNormReLU(convolution, least, quarter, 5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns (B, R, L) for words (B, R, L) with their mask (B, 1, L) bool, (B, R, H, W) for a grid."""
        one = self.one(x, mask)
        three = self.three(self.reduce_three(torch.cat([x, one], dim=1), mask), mask)
        five = self.five(self.reduce_five(torch.cat([x, one, three], dim=1), mask), mask)
        return torch.cat([one, three, five], dim=1)


class ConvNormReLU(nn.Module):
    """A convolution, a norm over all channels and places of a sample, ReLU.

    Args:
        convolution: `nn.Conv1d` or `nn.Conv2d`.
        channels: that come in.
        width: channels that go out.
        kernel: odd size.
    """

    def __init__(self, convolution: type[nn.Conv1d] | type[nn.Conv2d], channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.convolution = convolution(channels, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(1, width, eps=1e-3)  # the repository's epsilon

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns (B, R, ...) for (B, C, ...); with a mask (B, 1, L) padded words neither reach others nor count."""
        if mask is None:
            return F.relu(self.norm(self.convolution(x)))
        x = self.convolution(x * mask).float()
        real = mask.float()
        count = (real.sum(dim=(1, 2), keepdim=True) * x.shape[1]).clamp(min=1)
        centred = x - (x * real).sum(dim=(1, 2), keepdim=True) / count
        spread = (centred.square() * real).sum(dim=(1, 2), keepdim=True) / count
        normed = centred * (spread + self.norm.eps).rsqrt()
        normed = normed * self.norm.weight[:, None] + self.norm.bias[:, None]
        return F.relu(normed).to(self.convolution.weight.dtype)
