"""S4ECA as a tuning method: where its adapters sit in the two towers and how the proxies travel between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.errors import S4ecaError
from s4eca.towers.base import Site, Step, TextTower, VisionTower
from s4eca.tuning.base import Capabilities, Carry, Context, TuningMethod, evenly_spread
from s4eca.tuning.s4eca.dense_extractor import DenseExtractor
from s4eca.tuning.s4eca.selection import ScaleSelection, SpatialSelection
from s4eca.tuning.s4eca.text_query import TextQueryAdapter

Language = Literal["proxies", "words", "mean_word"]


@dataclass
class TextSettings:
    """The textual query adapters.

    Attributes:
        enabled: False leaves the text tower alone; then `language` must be `words` or `mean_word`.
        density: share of the text layers that carry one, evenly spread, the last included.
        width: of words and proxies inside.
        proxies: number of proxies.
        heads: of the cross-attentions.
        recurrent: each adapter starts from the proxies of the one before.
        dropout: active in training.
    """

    enabled: bool = True
    density: float = 0.5
    width: int = 128
    proxies: int = 8
    heads: int = 4
    recurrent: bool = True
    dropout: float = 0.0


@dataclass
class VisualSettings:
    """The visual adapters.

    Attributes:
        density: share of each stage's blocks that carry one, evenly spread, the last included; 0 for none.
        width: of the bottleneck.
        kernels: of the multi-scale extractor; empty leaves the extractor out.
        dense: later kernels see the earlier ones' maps.
        scale: what selects the scale: `both`, `text`, `visual`, or `uniform` for a plain mean.
        granularity: of the scale selection, `channel` or `scalar`.
        temperature: of the scale selection.
        gate: the gate half of the spatial selection.
        context: the context half of the spatial selection.
        dropout: before the up-projection, active in training.
    """

    density: Sequence[float] = (1.0, 1.0, 5 / 9, 1.0)
    width: int = 64
    kernels: Sequence[int] = (1, 3, 5, 7)
    dense: bool = True
    scale: Literal["both", "text", "visual", "uniform"] = "both"
    granularity: Literal["channel", "scalar"] = "channel"
    temperature: float = 1.0
    gate: bool = True
    context: bool = True
    dropout: float = 0.0

    @property
    def reads_language(self) -> bool:
        """Whether a visual adapter depends on the expression."""
        return any(self.density) and (self.scale in ("both", "text") or self.gate or self.context)


class VisualAdapter(nn.Module):
    """Bottleneck, extractor, scale selection, spatial selection, and a projection that starts at zero.

    Args:
        channels: width C of the vision tower at this place.
        language_width: channels of proxies or words.
        settings: which parts are there.
        single: the language is one vector.
    """

    def __init__(self, channels: int, language_width: int, settings: VisualSettings, single: bool) -> None:
        super().__init__()
        width, kernels = settings.width, settings.kernels
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, width)
        self.extractor = DenseExtractor(width, kernels, settings.dense) if kernels else None
        self.scale: ScaleSelection | None = None
        if settings.scale != "uniform":
            self.scale = ScaleSelection(
                len(kernels), width, language_width, settings.scale, settings.granularity, settings.temperature
            )
        self.spatial: SpatialSelection | None = None
        if settings.gate or settings.context:
            self.spatial = SpatialSelection(width, language_width, settings.gate, settings.context, single)
        self.dropout = nn.Dropout(settings.dropout)
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, language: Tensor | None, mask: Tensor | None) -> Tensor:
        """Returns x (B, H, W, C) refined by language.

        Args:
            x: the block's output.
            language: (B, N, R_t); None where the settings read none.
            mask: (B, N) bool, False for padded words; None where there is no padding.
        """
        inner = F.gelu(self.down(self.norm(x))).permute(0, 3, 1, 2)
        maps = self.extractor(inner) if self.extractor is not None else [inner]
        if self.scale is not None:
            inner = self.scale(maps, None if language is None else masked_mean(language, mask))
        else:
            inner = sum(maps[1:], start=maps[0]) / len(maps)
        if self.spatial is not None:
            inner = self.spatial(inner, language, mask)
        return x + self.up(self.dropout(inner.permute(0, 2, 3, 1)))


class S4ECA(TuningMethod):
    """Language proxies from the text tower guide scale and spatial selection in the vision tower.

    Reconstruction from the abstract of arXiv 2606.30244; the paper's body was not available. With Swin-B and BERT-base
    the adapters are 2.40 % of the towers' parameters.

    Args:
        text: settings of the textual query adapters.
        visual: settings of the visual adapters.
        language: what the visual adapters read: `proxies`, the tower's final `words`, or their mean as one
            vector (`mean_word`).
        routing: `last` gives every stage the last proxies; a list names, for each vision stage, the text layer whose
            proxies it reads.

    Raises:
        S4ecaError: settings that leave a part without a reader or a source, each named.
    """

    name = "s4eca"

    def __init__(
        self,
        text: TextSettings | None = None,
        visual: VisualSettings | None = None,
        language: Language = "proxies",
        routing: Literal["last"] | Sequence[int] = "last",
    ) -> None:
        super().__init__()
        self.text, self.visual = text or TextSettings(), visual or VisualSettings()
        self.language = language
        self.routing = routing if isinstance(routing, str) else list(routing)
        self._check()
        self.capabilities = Capabilities(language=self.visual.reads_language)

    def _check(self) -> None:
        text, visual = self.text, self.visual
        if self.language not in ("proxies", "words", "mean_word"):
            raise S4ecaError(f"tuning.language={self.language} is none of proxies, words, mean_word.")
        if visual.scale not in ("both", "text", "visual", "uniform"):
            raise S4ecaError(f"tuning.visual.scale={visual.scale} is none of both, text, visual, uniform.")
        if visual.granularity not in ("channel", "scalar"):
            raise S4ecaError(f"tuning.visual.granularity={visual.granularity} is neither channel nor scalar.")
        if visual.temperature <= 0:
            raise S4ecaError(f"tuning.visual.temperature={visual.temperature} must be above 0.")
        if text.enabled and text.width % text.heads:
            raise S4ecaError(
                f"tuning.text.heads={text.heads} does not divide tuning.text.width={text.width}; choose a divisor."
            )
        if self.language == "proxies" and not text.enabled and visual.reads_language:
            raise S4ecaError(
                "tuning.language=proxies needs the text adapters that make them; set tuning.text.enabled=true, or "
                "tuning.language=words or mean_word."
            )
        if text.enabled and self.language == "proxies" and not visual.reads_language and any(visual.density):
            raise S4ecaError(
                "no visual adapter reads the proxies (scale, gate and context are off); switch one of them on, or set "
                "tuning.text.enabled=false."
            )
        if len(visual.kernels) < 2 and visual.scale != "uniform":
            raise S4ecaError(
                f"tuning.visual.kernels={list(visual.kernels)} leaves no scale to select; set "
                "tuning.visual.scale=uniform."
            )
        if any(kernel < 1 or kernel % 2 == 0 for kernel in visual.kernels):
            raise S4ecaError(f"tuning.visual.kernels={list(visual.kernels)} must be odd numbers from 1 on.")
        if not text.enabled and not any(visual.density):
            raise S4ecaError("tuning=s4eca has neither text nor visual adapters; use tuning=frozen for that.")
        if self.routing != "last" and (self.language != "proxies" or not text.enabled):
            raise S4ecaError("tuning.routing names text layers, which only tuning.language=proxies can route.")

    def attach(self, text: TextTower, vision: VisionTower) -> None:
        """Builds the adapters for these towers.

        Raises:
            S4ecaError: densities or routing do not fit the towers' stages and layers.
        """
        super().attach(text, vision)
        depths = vision.stage_depths()
        if len(self.visual.density) != len(depths):
            raise S4ecaError(
                f"tuning.visual.density has {len(self.visual.density)} shares and the vision tower {len(depths)} "
                "stages; give one share per stage."
            )
        layers = evenly_spread(self.text.density, len(text.steps)) if self.text.enabled else []
        if self.text.enabled and not layers:
            raise S4ecaError("tuning.text.density=0 leaves no text adapter; say tuning.text.enabled=false instead.")
        if self.routing != "last":
            fits = len(self.routing) == len(depths) and set(self.routing) <= set(layers)
            if not fits or layers[-1] not in self.routing:
                raise S4ecaError(
                    f"tuning.routing={self.routing} must name {len(depths)} text layers out of {layers}, one per stage "
                    f"and {layers[-1]} among them."
                )
        width = text.widths[-1]
        proxies_read = self.language == "proxies" and self.visual.reads_language
        self.text_adapters = nn.ModuleDict(
            {
                str(layer): TextQueryAdapter(
                    width,
                    self.text.width,
                    self.text.proxies,
                    self.text.heads,
                    self.text.dropout,
                    # the last words are read by the fusion alone; their refinement by proxies stays out
                    read_back=layer != layers[-1] or not proxies_read,
                )
                for layer in layers
            }
        )
        single = self.language == "mean_word" or (self.language == "proxies" and self.text.proxies == 1)
        self.visual_adapters = nn.ModuleDict()
        first = 0
        for share, depth in zip(self.visual.density, depths, strict=True):
            for block in evenly_spread(share, depth):
                step = vision.steps[first + block]
                self.visual_adapters[str(step.index)] = VisualAdapter(
                    step.width, self.text.width if self.language == "proxies" else width, self.visual, single
                )
            first += depth

    def tap(
        self,
        step: Step,
        site: Site,
        x: Tensor,
        branch_in: Tensor | None,
        context: Context,
        carry: Carry,
    ) -> tuple[Tensor, Carry]:
        """Acts after blocks that carry an adapter."""
        key = str(step.index)
        if step.tower == "text":
            if site == "out" and key in self.text_adapters:
                previous = carry.get("proxies") if self.text.recurrent else None
                x, proxies = self.text_adapters[key](x, context.word_mask, previous)
                carry = {**carry, "proxies": proxies}
                if self.routing != "last" and step.index in self.routing:
                    carry[f"proxies@{step.index}"] = proxies
            if site == "stage_out" and self.language != "proxies":
                carry = {**carry, "words": x}
        elif site == "out" and key in self.visual_adapters:
            language = self._language(step.stage, context, carry) if self.visual.reads_language else (None, None)
            x = self.visual_adapters[key](x, *language)
        return x, carry

    def _language(self, stage: int, context: Context, carry: Carry) -> tuple[Tensor, Tensor | None]:
        """Returns what a vision stage reads, (B, N, R_t), and its mask."""
        if self.language == "words":
            return carry["words"], context.word_mask
        if self.language == "mean_word":
            return masked_mean(carry["words"], context.word_mask)[:, None], None
        proxies = carry["proxies" if self.routing == "last" else f"proxies@{self.routing[stage]}"]
        # a residual stream: without a norm its size would depend on how many adapters have added to it
        return F.layer_norm(proxies, proxies.shape[-1:]), None


def masked_mean(language: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the mean (B, R) of (B, N, R) over the positions where `mask` (B, N) is True; over all without one."""
    if mask is None:
        return language.mean(dim=1)
    weights = mask.to(language.dtype)[..., None]
    return (language * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
