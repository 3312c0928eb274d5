"""The network: towers, tuning method, fusion, decoder and refinement. It knows nothing about training."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.decoders import Decoder
from s4eca.decoders.memory import put_channels_first, put_channels_last
from s4eca.errors import S4ecaError
from s4eca.frozen_dtype import TOWER_DTYPES, check_autocast, hold_in_bf16
from s4eca.fusion import Fusion
from s4eca.fusion.none import NoFusion
from s4eca.modes import in_mode
from s4eca.runner import Encoded, Runner
from s4eca.sharing import Shared
from s4eca.towers.base import TextTower, VisionTower
from s4eca.tuning.base import Placement, Scope, TuningMethod
from s4eca.walking import check_shareable

GROUPS = ("method", "norms", "fusion", "decoder")


class ReferringSegmenter(nn.Module):
    """An image and an expression in, one logit per pixel out.

    Args:
        text: text tower.
        vision: vision tower.
        method: tuning method; it is attached here.
        decoder: called as `decoder(channels=..., out_channels=...)`.
        fusion: called as `fusion(channels=..., text_dim=...)`; None for no fusion.
        head_logits: the decoder's output channels: 1, or 2 (background, target) as in LAVT and RMSIN, whose difference
            is the logit; both have the same loss values.
        placement: `inside` the towers, or at their `side`, where nothing is back-propagated through them.
        start_stage: first vision stage, from 1, where the method acts; those below run without gradients.
        grad_checkpointing: see `Runner`.
        compile: see `Runner`.
        tower_dtype: `fp32`, or `bf16` for frozen weights that bf16 autocast, under which alone it works, would cast
            anyway; the results are equal bit for bit.
        channels_last: the decoder works on feature maps with their channels last, as the towers give them; otherwise
            they are copied first.
        encode_once: what samples of a batch have in common goes through the towers once (see `Shared`). Kernels are
            chosen by the number of rows, so last bits change as with another batch size: in fp32 the towers' words and
            pyramid by less than 2e-6, logits by less than 1e-5 of the largest. True in training and evaluation, None in
            evaluation alone where nothing is compiled, False never.
        refine: called as `refine(channels=...)` with those of the decoder's finest features, it corrects the logits at
            the image's size (see `ContourRefinement`); None for no refinement.

    Raises:
        S4ecaError: no part of it would bring language into the image, or settings that do not go together.
    """

    def __init__(
        self,
        text: TextTower,
        vision: VisionTower,
        method: TuningMethod,
        decoder: Callable[..., Decoder],
        fusion: Callable[..., Fusion] | None = None,
        head_logits: Literal[1, 2] = 1,
        placement: Placement = "inside",
        start_stage: int = 1,
        grad_checkpointing: Literal["none", "block", "stage"] = "none",
        compile: str = "none",
        tower_dtype: Literal["fp32", "bf16"] = "fp32",
        channels_last: bool = True,
        encode_once: bool | None = None,
        refine: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.fusion: Fusion
        if head_logits not in (1, 2):
            raise S4ecaError(f"model.segmenter.head_logits={head_logits} is neither 1 nor 2.")
        if placement not in ("inside", "side"):
            raise S4ecaError(f"model.segmenter.placement={placement} is neither inside nor side.")
        if tower_dtype not in TOWER_DTYPES:
            raise S4ecaError(f"model.segmenter.tower_dtype={tower_dtype} is neither {' nor '.join(TOWER_DTYPES)}.")
        if type(channels_last) is not bool:
            raise S4ecaError(f"model.segmenter.channels_last={channels_last} is neither true nor false.")
        if encode_once is not None and type(encode_once) is not bool:
            raise S4ecaError(f"model.segmenter.encode_once={encode_once} is neither true nor false nor null.")
        self.text, self.vision, self.method = text, vision, method
        self.scope = Scope(placement, start_stage)
        method.attach(text, vision, self.scope)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in vision.widths)
        self.fusion = (fusion or NoFusion)(channels=vision.widths, text_dim=text.widths[-1])
        self.decoder = decoder(channels=vision.widths, out_channels=head_logits)
        self.refine = refine(channels=self.decoder.classifier.in_channels) if refine is not None else None
        if isinstance(self.fusion, NoFusion) and not method.capabilities.language:
            raise S4ecaError(
                f"tuning={method.name} brings no language into the image, so every expression would get the same "
                "mask; set fusion=pwam or fusion=film."
            )
        if isinstance(self.fusion, NoFusion) and method.capabilities.last_words:
            raise S4ecaError(
                f"tuning={method.name} learns in the last text layer too, whose words only a fusion reads; set "
                "fusion=pwam or fusion=film."
            )
        if self.fusion.feedback and self.scope != Scope():
            raise S4ecaError(
                "a fusion with feedback acts inside the vision tower from its first stage on, where "
                f"model.segmenter.placement={placement} and start_stage={start_stage} allow no gradients; set "
                "fusion.feedback=false."
            )
        self.runner = Runner(text, vision, method, self.scope, grad_checkpointing, compile)
        if self.fusion.feedback and not self.runner.words_first:
            raise S4ecaError(
                f"tuning={method.name} walks both towers in turn, so a fusion cannot feed the words back into the "
                "vision tower; set fusion.feedback=false."
            )
        learned = any(part.requires_grad for module in (text, vision, method) for part in module.parameters())
        if grad_checkpointing != "none" and not learned and not self.fusion.feedback:
            raise S4ecaError(
                f"tuning={method.name} lets no gradient into the towers, so there is nothing to recompute; set "
                "model.segmenter.grad_checkpointing=none."
            )
        self.tower_dtype, self.channels_last, self.encode_once = tower_dtype, channels_last, encode_once
        if tower_dtype == "bf16":
            hold_in_bf16(text, vision, method.name)
        if channels_last:
            put_channels_last(self.decoder)
            if self.refine is not None:
                put_channels_last(self.refine)
        if encode_once:
            self._check_sharing()

    def forward(
        self,
        image: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        encoded: Encoded | None = None,
        shared: Shared | None = None,
    ) -> Tensor:
        """Returns logits (B, S, S) in fp32; a pixel belongs to the target where its logit is above 0.

        Args:
            image: (B, 3, S, S) uint8.
            input_ids: (B, L).
            attention_mask: (B, L), 1 for words.
            encoded: what the frozen towers gave for this batch, where a method at their side has it already.
            shared: what samples of the batch have in common, as `Batch` says it.

        Raises:
            S4ecaError: towers in bf16 outside of bf16 autocast.
        """
        if self.tower_dtype == "bf16":
            check_autocast(image.device.type)
        word_mask = attention_mask.bool()
        fused: list[Tensor] = []

        def feed_back(stage: int, grid: Tensor, words: Tensor) -> Tensor:
            onward, seen = self.fusion.stage(stage, grid, words, word_mask)
            fused.append(seen)
            return onward

        at_stage = feed_back if self.fusion.feedback else None
        walked = self.runner(
            image, input_ids, attention_mask, at_stage, encoded, shared if self._encodes_once() else None
        )
        pyramid = fused if self.fusion.feedback else self.fusion(walked.pyramid, walked.words, word_mask)
        normed = [norm(grid) for norm, grid in zip(self.norms, pyramid, strict=True)]
        features = self.decoder.features(normed if self.channels_last else put_channels_first(normed))
        scores = self.decoder.classifier(features).float()
        logits = scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores[:, 0]
        # align_corners as in LAVT's decoder and final resize
        logits = F.interpolate(logits[:, None], size=image.shape[-2:], mode="bilinear", align_corners=True)
        return (logits if self.refine is None else self.refine(image, logits, features))[:, 0]

    def train(self, mode: bool = True) -> "ReferringSegmenter":
        """Sets train mode on everything that is learned; frozen towers stay in eval mode."""
        super().train(mode)
        self.method.set_mode(self.text, self.vision, mode)
        return self

    def predict(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns masks (B, S, S) bool; arguments as in `forward`.

        They are those of evaluation mode, without gradients; the mode of every part is afterwards what it was.
        """
        with in_mode(self, training=False), torch.no_grad():
            return self(image, input_ids, attention_mask) > 0

    def _encodes_once(self) -> bool:
        if self.encode_once is not None:
            return self.encode_once
        return not self.training and not self.runner.compiled  # every number of rows would be compiled anew

    def _check_sharing(self) -> None:
        """Refuses what does not go together with `encode_once=True`."""
        if self.runner.compiled:
            raise S4ecaError(
                "model.segmenter.encode_once=true walks another number of rows in every batch, and each would be "
                "compiled anew; set model.segmenter.compile=none, or encode_once=false."
            )
        # beside them, the towers are walked as they were loaded; where they meet at once, nothing is shared
        if self.scope.placement == "inside" and self.runner.meeting != self.runner.schedule[0]:
            depths = self.vision.stage_depths()
            enters = self.method.language_enters(self.vision)
            check_shareable(self, self.method, min(enters, depths[0]) if self.fusion.feedback else enters)

    def learned_state(self) -> dict[str, Tensor]:
        """Returns everything that can change in training, by name; frozen tower weights are not in it."""
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        towers = ("text.", "vision.")
        buffers = {name for name, _ in self.named_buffers() if name.startswith(towers)}
        return {name: value for name, value in self.state_dict().items() if name not in frozen | buffers}


def group_of(name: str) -> str:
    """Returns which of `GROUPS` a learned tensor belongs to.

    Trained tower weights belong to the method, a refinement to the decoder.
    """
    head = name.partition(".")[0]
    return "decoder" if head == "refine" else head if head in GROUPS else "method"
