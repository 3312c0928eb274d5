"""Norm tuning: of both towers, the scales and shifts of the normalisation layers are learned and nothing else."""

from timm.layers import RmsNorm
from torch import nn

from s4eca.towers.base import TextTower, VisionTower
from s4eca.tuning.base import INSIDE, Capabilities, Scope, TuningMethod

NORMS = (nn.LayerNorm, nn.RMSNorm, RmsNorm)


class NormTuning(TuningMethod):
    """LN-Tune (Basu et al., "Strong Baselines for Parameter-Efficient Few-Shot Fine-Tuning", AAAI 2024).

    Every LayerNorm and RMSNorm of the whole text tower and, with `start_stage=1`, of the whole vision tower (those of
    patch embedding and downsampling included); with a later one, of the blocks from there on. The norms that the
    segmenter puts on the stages are learned under every method and count to the head. Departure: the paper trains
    vision transformers; here the text tower is trained too.
    """

    name = "norm"
    capabilities = Capabilities(language=False)

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Makes the norms trainable."""
        super().attach(text, vision, scope)
        for place in (text, *scope.modules(vision)):
            for module in place.modules():
                if isinstance(module, NORMS):
                    module.requires_grad_(True)
