"""Full fine-tuning: every weight of both towers is learned."""

from s4eca.errors import S4ecaError
from s4eca.towers.base import TextTower, VisionTower
from s4eca.tuning.base import INSIDE, Capabilities, Scope, TuningMethod


class FullFineTuning(TuningMethod):
    """Trains both towers, as LAVT (Yang et al., CVPR 2022) and RMSIN (Liu et al., CVPR 2024) do.

    Args:
        text_layers: how many of the text tower's first layers are trained. None trains all of them and the embeddings;
            a number also freezes the embeddings, which is what LAVT's and RMSIN's optimisers amount to with 10. Here
            the layers that are not trained stay in eval mode; there their dropout is active.
    """

    name = "full"
    capabilities = Capabilities(language=False)

    def __init__(self, text_layers: int | None = None) -> None:
        super().__init__()
        self.text_layers = text_layers

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Makes the towers trainable; with a later `start_stage` only the vision blocks from there on.

        Raises:
            S4ecaError: `text_layers` exceeds the text tower's depth.
        """
        super().attach(text, vision, scope)
        self.scope = scope
        for module in scope.modules(vision):
            module.requires_grad_(True)
        if self.text_layers is None:
            text.requires_grad_(True)
            return
        if not 0 <= self.text_layers <= len(text.steps):
            raise S4ecaError(
                f"tuning.text_layers={self.text_layers}, and the text tower has {len(text.steps)} layers; give a "
                "number up to that."
            )
        for index in range(self.text_layers):
            text.block(index).requires_grad_(True)

    def set_mode(self, text: TextTower, vision: VisionTower, training: bool) -> None:
        """Trained parts follow `training`, so that dropout and stochastic depth act on them."""
        vision.eval()
        for module in self.scope.modules(vision):
            module.train(training)
        text.train(training and self.text_layers is None)
        for index in range(self.text_layers or 0):
            text.block(index).train(training)
