"""S4ECA as a tuning method: where its adapters sit in the two towers and how the proxies travel between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.checks import check_dropout, check_whole
from s4eca.errors import S4ecaError
from s4eca.towers.base import Site, Step, TextTower, VisionTower, from_grid, to_grid
from s4eca.tuning.base import INSIDE, Capabilities, Carry, Context, Scope, TuningMethod, Width, evenly_spread
from s4eca.tuning.s4eca.comparison import HEADS
from s4eca.tuning.s4eca.text_query import TextQueryAdapter
from s4eca.tuning.s4eca.visual_adapter import VisualAdapter, VisualSettings, masked_mean

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


class S4ECA(TuningMethod):
    """Language proxies from the text tower guide scale and spatial selection in the vision tower.

    Reconstruction from the abstract of arXiv 2606.30244; the paper's body was not available. With Swin-B and BERT-base
    the adapters are 2.40 % of the towers' parameters.

    The side form (`placement=side`, ours, after the ladder of LST, Sung et al., NeurIPS 2022) reads the finished states
    of both towers: text adapters take the hidden words after their layers and hand on proxies alone, since words cannot
    be changed any more; one visual adapter refines the end of each vision stage, and what it found goes on, pooled and
    projected, into the bottleneck of the next. Unlike LST's side network, which has blocks of its own and a learned
    gate at every rung, it sums the rungs and returns one residual per stage. With Swin-B and BERT-base it is 1.03 % of
    the towers' parameters.

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
        self.width = Width(
            ("visual.width", "text.width"), multiple=(HEADS if self.visual.compare else 1, self.text.heads)
        )
        self.capabilities = Capabilities(language=self.visual.reads_language, side=True)

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
        for key in ("width", "proxies", "heads"):
            check_whole(f"tuning.text.{key}", getattr(text, key))
        check_whole("tuning.visual.width", visual.width)
        for part, settings in (("text", text), ("visual", visual)):
            check_dropout(f"tuning.{part}.dropout", settings.dropout)
        if text.enabled and text.width % text.heads:
            raise S4ecaError(
                f"tuning.text.heads={text.heads} does not divide tuning.text.width={text.width}; choose a divisor."
            )
        if visual.compare and visual.width % HEADS:
            raise S4ecaError(
                f"tuning.visual.compare=true needs a multiple of {HEADS} as tuning.visual.width, not {visual.width}."
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

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Builds the adapters for these towers.

        Raises:
            S4ecaError: densities or routing do not fit the towers' stages and layers, or leave a part without a reader.
        """
        super().attach(text, vision, scope)
        layers = evenly_spread(self.text.density, len(text.steps)) if self.text.enabled else []
        if self.text.enabled and not layers:
            raise S4ecaError("tuning.text.density=0 leaves no text adapter; say tuning.text.enabled=false instead.")
        places = self._places(vision, scope)
        self._check_readers(layers, places, vision, scope)
        beside = scope.placement == "side"
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
                    read_back=not beside and (layer != layers[-1] or not proxies_read),
                )
                for layer in layers
            }
        )
        single = self.language == "mean_word" or (self.language == "proxies" and self.text.proxies == 1)
        language_width = self.text.width if self.language == "proxies" else width
        self.visual_adapters = nn.ModuleDict(
            {
                str(step.index): VisualAdapter(
                    step.width, language_width, self.visual, single, climbs=beside and step is not places[0]
                )
                for step in places
            }
        )
        self.stage_ends = [step for step in vision.steps if step.ends_stage]

    def _places(self, vision: VisionTower, scope: Scope) -> list[Step]:
        """Returns the vision steps that carry an adapter."""
        depths = vision.stage_depths()
        if len(self.visual.density) != len(depths):
            raise S4ecaError(
                f"tuning.visual.density has {len(self.visual.density)} shares and the vision tower {len(depths)} "
                "stages; give one share per stage."
            )
        chosen, first = [], 0
        for share, depth in zip(self.visual.density, depths, strict=True):
            blocks = evenly_spread(share, depth)
            # the side form sees the end of a stage only
            chosen += [first + block for block in (blocks[-1:] if scope.placement == "side" else blocks)]
            first += depth
        return [step for step in scope.steps(vision) if step.index in chosen]

    def _check_readers(self, layers: list[int], places: list[Step], vision: VisionTower, scope: Scope) -> None:
        """Refuses adapters whose result nothing would read."""
        beside = scope.placement == "side"
        if not places and (beside or any(self.visual.density)):
            raise S4ecaError(
                f"tuning.visual.density={list(self.visual.density)} leaves no visual adapter with "
                f"model.segmenter.placement={scope.placement}, start_stage={scope.start_stage}; give a stage from "
                f"{scope.start_stage} on a share above 0."
            )
        if beside and layers and not (self.language == "proxies" and self.visual.reads_language):
            raise S4ecaError(
                f"with model.segmenter.placement=side and tuning.language={self.language} nothing reads the text "
                "adapters, which cannot change the words there; set tuning.text.enabled=false."
            )
        read = set(layers[-1:])
        if self.routing != "last":
            stages = len(vision.widths)
            # stages without an adapter read nothing
            read = {self.routing[step.stage] for step in places} if len(self.routing) == stages else set()
            if not read or not set(self.routing) <= set(layers) or layers[-1] not in read:
                raise S4ecaError(
                    f"tuning.routing={self.routing} must name {stages} text layers out of {layers}, one per stage, and "
                    f"{layers[-1]} for a stage that has visual adapters."
                )
        if beside and not self.text.recurrent and set(layers) - read:
            raise S4ecaError(
                f"with model.segmenter.placement=side and tuning.text.recurrent=false nothing reads the adapters of "
                f"text layers {sorted(set(layers) - read)}; set tuning.text.recurrent=true, or name them in "
                "tuning.routing."
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
        """Acts after blocks that carry an adapter."""
        key = str(step.index)
        if step.tower == "text":
            if site == "out" and key in self.text_adapters:
                x, carry = self._distil(step.index, x, context, carry)
            if site == "stage_out" and self.language != "proxies":
                carry = {**carry, "words": x}
        elif site == "out" and key in self.visual_adapters:
            x, _ = self._refine(step, x, context, carry, None)
        return x, carry

    def language_enters(self, vision: VisionTower) -> int:
        """Returns the first block with a visual adapter, which acts on the block's output."""
        return min(map(int, self.visual_adapters)) if self.visual.reads_language else len(vision.steps)

    def before_language(self) -> list[nn.Module]:
        """Returns the text adapters, and visual ones that read no language."""
        return [self.text_adapters] if self.visual.reads_language else [self]

    def side_layers(self, text: TextTower) -> list[int]:
        """Returns the text layers that carry an adapter."""
        return [int(layer) for layer in self.text_adapters]

    def side(self, words: Sequence[Tensor], stages: Sequence[Tensor], context: Context) -> list[Tensor]:
        """Refines the end of each vision stage; shapes as in `TuningMethod.side`."""
        carry: Carry = {"words": words[-1]}
        for layer, hidden in zip(self.text_adapters, words, strict=False):
            _, carry = self._distil(int(layer), hidden, context, carry)
        refined: list[Tensor] = []
        found: Tensor | None = None
        for step, hidden in zip(self.stage_ends, stages, strict=True):
            if str(step.index) in self.visual_adapters:
                hidden, found = self._refine(step, hidden, context, carry, found)
            refined.append(hidden)
        return refined

    def _distil(self, layer: int, words: Tensor, context: Context, carry: Carry) -> tuple[Tensor, Carry]:
        """Runs a text adapter; its proxies go into the carry."""
        previous = carry.get("proxies") if self.text.recurrent else None
        words, proxies = self.text_adapters[str(layer)](words, context.word_mask, previous)
        carry = {**carry, "proxies": proxies}
        if self.routing != "last" and layer in self.routing:
            carry[f"proxies@{layer}"] = proxies
        return words, carry

    def _refine(
        self, step: Step, x: Tensor, context: Context, carry: Carry, finer: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Runs a visual adapter on a grid or on tokens; see `VisualAdapter.forward`."""
        language = self._language(step.stage, context, carry) if self.visual.reads_language else (None, None)
        front, grid = to_grid(x, step)
        grid, found = self.visual_adapters[str(step.index)](grid, *language, finer)
        return from_grid(front, grid), found

    def _language(self, stage: int, context: Context, carry: Carry) -> tuple[Tensor, Tensor | None]:
        """Returns what a vision stage reads, (B, N, R_t), and its mask."""
        if self.language == "words":
            return carry["words"], context.word_mask
        if self.language == "mean_word":
            return masked_mean(carry["words"], context.word_mask)[:, None], None
        proxies = carry["proxies" if self.routing == "last" else f"proxies@{self.routing[stage]}"]
        # a residual stream: without a norm its size would depend on how many adapters have added to it
        return F.layer_norm(proxies, proxies.shape[-1:]), None
