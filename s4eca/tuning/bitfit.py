"""BitFit: of both towers, the biases are learned and nothing else."""

from s4eca.towers.base import TextTower, VisionTower
from s4eca.tuning.base import INSIDE, Capabilities, Scope, TuningMethod

KEY_BIASES = ("key.bias", "k_lin.bias", "k_proj.bias")
"""How transformers calls the bias of an attention's keys: BERT and RoBERTa, DistilBERT, CLIP."""


class BitFit(TuningMethod):
    """Bias-term fine-tuning (Ben-Zaken et al., ACL 2022).

    The paper lists the biases of the encoder's layers; its code with all bias terms also trains that of the embeddings'
    norm, which is done here: every parameter called `bias` or `*_bias`, of the whole text tower and, with
    `start_stage=1`, of the whole vision tower (patch embedding and downsampling included); with a later one, of the
    blocks from there on. Tables of position biases are no bias terms.

    Departure: the biases of keys stay frozen. They add the same number to all of a query's scores, which the softmax
    cancels, so that their gradient is rounding noise. Where queries, keys and values share one tensor (Swin, ViT), it
    is learned as a whole and its middle third has no effect. The paper trains text towers; here both are trained.
    """

    name = "bitfit"
    capabilities = Capabilities(language=False)

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Makes the biases trainable."""
        super().attach(text, vision, scope)
        for place in (text, *scope.modules(vision)):
            for name, parameter in place.named_parameters():
                last = name.rpartition(".")[2]
                if (last == "bias" or last.endswith("_bias")) and not name.endswith(KEY_BIASES):
                    parameter.requires_grad_(True)
