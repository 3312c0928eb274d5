"""ETRIS: bridges between two frozen towers, through which pixels read words and words read pixels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.checks import check_dropout, check_whole
from s4eca.errors import S4ecaError
from s4eca.towers.base import Site, Step, TextTower, VisionTower, from_grid, to_grid
from s4eca.tuning.base import INSIDE, Capabilities, Carry, Context, Schedule, Scope, TuningMethod, Walk, Width

PLACES = 3


class ETRIS(TuningMethod):
    """Bridgers of ETRIS (Xu et al., ICCV 2023, arXiv 2307.11545; `model/bridger.py` of its repository).

    Both towers are walked in thirds: the text layers evenly (12 layers: after 4, 8 and 12), the vision tower to the
    ends of its last three stages, as the repository does it for ResNets. At the end of each third a bridge zooms the
    grid in to the middle place's grid and `width` channels, lets pixels attend to words and words to pixels, adds both
    results to the residual streams, and hands what it compared on to the next bridge.

    A bridge acts in the vision tower's tap, where the words of the same third wait in the carry; what it gives the
    words joins them before the next text layer. So it is recomputed and compiled together with its block.

    Departures from the repository:

    - the last bridge has no words-from-pixels half: after the last text layer only a fusion reads the words, and
      without one that half would get no gradient;
    - padded words are masked in both attentions (the repository masks none);
    - a plain transformer gets the same bridges, after its second, third and last quarter (the repository bridges after
      each third); the repository has others for it, which multiply instead of adding,
      without self-attention and feed-forward, and with BatchNorm after each zoom. Its leading tokens are left alone;
    - the feed-forward layer has twice the width instead of 128 channels, which is the same at width 64;
    - where the zoom's stride does not lead exactly to the other grid, the result is resized bilinearly.

    Args:
        width: channels that pixels and words have in a bridge.
        heads: of its attentions.
        dropout: on attention weights and after every layer of a bridge, active in training.

    Raises:
        S4ecaError: `heads` does not divide `width`.
    """

    name = "etris"
    capabilities = Capabilities(language=True, identity=False)

    def __init__(self, width: int = 64, heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        check_whole("tuning.width", width)
        check_whole("tuning.heads", heads)
        check_dropout("tuning.dropout", dropout)
        if width % heads:
            raise S4ecaError(f"tuning.heads={heads} does not divide tuning.width={width}; choose a divisor.")
        self.width = Width(("width",), multiple=heads)
        self.channels, self.heads, self.dropout = width, heads, dropout

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Builds a bridge at the end of each of the last three stages that `scope` leaves free.

        Raises:
            S4ecaError: the text tower has fewer layers than there are bridges.
        """
        super().attach(text, vision, scope)
        ends = [step for step in vision.steps if step.ends_stage][-PLACES:]
        depth = len(text.steps)
        if depth < len(ends):
            raise S4ecaError(
                f"tuning=etris splits the text tower into {len(ends)} parts and it has {depth} layers; take a deeper "
                "text tower."
            )
        layers = [-(-place * depth // len(ends)) - 1 for place in range(1, len(ends) + 1)]
        shared = ends[len(ends) // 2].grid
        assert shared is not None
        free = scope.steps(vision)
        # (text layer, vision block) after which each bridge stands
        self.places = [(layer, end.index) for layer, end in zip(layers, ends, strict=True) if end in free]
        self.bridges = nn.ModuleDict()
        for layer, block in self.places:
            step = vision.steps[block]
            assert step.grid is not None
            self.bridges[str(block)] = Bridge(
                step.width,
                text.steps[layer].width,
                (step.grid, shared),
                self.channels,
                self.heads,
                self.dropout,
                first=not self.bridges,
                last=step is ends[-1],
            )

    def schedule(self, text: TextTower, vision: VisionTower) -> Schedule:
        """Walks the text tower to a bridge, then the vision tower, where the bridge acts."""
        events: Schedule = []
        layer = block = 0
        for last_layer, last_block in self.places:
            events += [Walk("text", index) for index in range(layer, last_layer + 1)]
            events += [Walk("vision", index) for index in range(block, last_block + 1)]
            layer, block = last_layer + 1, last_block + 1
        return events

    def tap(
        self,
        step: Step,
        site: Site,
        x: Tensor,
        branch_in: Tensor | None,
        context: Context,
        carry: Carry,
    ) -> tuple[Tensor, Carry]:
        """Leaves the words in the carry, bridges at the end of a stage, and brings its gift back to the words."""
        if step.tower == "text":
            if site == "in" and "to_words" in carry:
                x = x + carry["to_words"]
                carry = {key: value for key, value in carry.items() if key != "to_words"}
            if site == "out" and step.index in [layer for layer, _ in self.places]:
                carry = {**carry, "words": x}
        elif site == "stage_out" and str(step.index) in self.bridges:
            front, grid = to_grid(x, step)
            before = (carry["pixels"], carry["read"]) if "pixels" in carry else None
            grid, to_words, pixels, read = self.bridges[str(step.index)](
                grid, carry["words"], context.word_mask, before
            )
            x = from_grid(front, grid)
            carry = {"pixels": pixels, "read": read}
            if to_words is not None:
                carry["to_words"] = to_words
        return x, carry

    def language_enters(self, vision: VisionTower) -> int:
        """Returns the block with the first bridge, through which the pixels reach the later words too."""
        return self.places[0][1]

    def before_language(self) -> list[nn.Module]:
        """Returns nothing: all that the method has are its bridges."""
        return []


class Bridge(nn.Module):
    """One bridge.

    With pixels v = zoom_in(grid) and words t = W_d words, both from the second bridge on with the previous bridge's v
    and t added and a LayerNorm: grid + zoom_out(I_v(v, t)) and words + W_u I_t(t, v), I being `Interactor`s. The zooms
    are convolutions or transposed convolutions whose kernel is their stride, as for the repository's ResNets.

    Args:
        channels: C of the grid.
        text_width: D of the words.
        sizes: (rows, columns) of the grid here and of the grid that all bridges share.
        width: channels R in the bridge.
        heads: of the attentions.
        dropout: of the interactors.
        first: no bridge comes before it.
        last: no text layer comes after it, so nothing is given to the words.
    """

    def __init__(
        self,
        channels: int,
        text_width: int,
        sizes: tuple[tuple[int, int], tuple[int, int]],
        width: int,
        heads: int,
        dropout: float,
        first: bool,
        last: bool,
    ) -> None:
        super().__init__()
        here, self.shared = sizes
        self.zoom_in = _zoom(channels, width, here[0], self.shared[0])
        self.zoom_out = _zoom(width, channels, self.shared[0], here[0])
        self.down = nn.Linear(text_width, width)
        self.read_words = Interactor(width, heads, dropout)
        self.norm_pixels = None if first else nn.LayerNorm(width)
        self.norm_words = None if first else nn.LayerNorm(width)
        self.read_pixels = None if last else Interactor(width, heads, dropout)
        self.up = None if last else nn.Linear(width, text_width)
        for module in self.modules():  # the repository's values
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, grid: Tensor, words: Tensor, word_mask: Tensor, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Exchanges between pixels and words.

        Args:
            grid: (B, H, W, C).
            words: (B, L, D).
            word_mask: (B, L) bool, False for padding, which nothing attends to.
            before: v (B, N, R) and t (B, L, R) of the bridge before, None for the first one.

        Returns:
            The grid (B, H, W, C), what is to be added to the words (B, L, D) or None after the last text layer, and
            this bridge's v and t.
        """
        size = grid.shape[1:3]
        v = _resized(self.zoom_in(grid.permute(0, 3, 1, 2)), self.shared).flatten(2).transpose(1, 2)
        t = self.down(words)
        if self.norm_pixels is not None and self.norm_words is not None and before is not None:
            v, t = self.norm_pixels(v + before[0]), self.norm_words(t + before[1])
        seen = self.read_words(v, t, None, ~word_mask).transpose(1, 2).unflatten(2, self.shared)
        grid = grid + _resized(self.zoom_out(seen), size).permute(0, 2, 3, 1)
        if self.read_pixels is None or self.up is None:
            return grid, None, v, t
        return grid, self.up(self.read_pixels(t, v, ~word_mask, None)), v, t


class Interactor(nn.Module):
    """A transformer decoder layer with norms after the branches: self-attention, cross-attention, feed-forward.

    Args:
        width: channels R.
        heads: of both attentions.
        dropout: on attention weights and after every layer.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.among = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.across = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, x_padding: Tensor | None, memory_padding: Tensor | None) -> Tensor:
        """Lets x (B, N, R) read the memory (B, M, R).

        Args:
            x: what reads.
            memory: what is read.
            x_padding: (B, N) bool, True for padding.
            memory_padding: (B, M) bool, the same.
        """
        read, _ = self.among(x, x, x, key_padding_mask=x_padding, need_weights=False)
        x = self.norms[0](x + self.dropout(read))
        read, _ = self.across(x, memory, memory, key_padding_mask=memory_padding, need_weights=False)
        x = self.norms[1](x + self.dropout(read))
        return self.norms[2](x + self.dropout(self.feed(x)))


def _zoom(channels: int, width: int, source: int, target: int) -> nn.Module:
    """A convolution that brings a side of `source` pixels near `target`; its kernel is its stride."""
    if source >= target:
        stride = round(source / target)
        return nn.Conv2d(channels, width, stride, stride, bias=False)
    stride = round(target / source)
    return nn.ConvTranspose2d(channels, width, stride, stride, bias=False)


def _resized(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Returns (B, C, H, W) at another size, itself where it has it."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
