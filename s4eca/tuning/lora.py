"""LoRA through peft: low-rank updates of the towers' attention projections."""

from collections.abc import Sequence

from peft import LoraConfig, inject_adapter_in_model

from s4eca.errors import S4ecaError
from s4eca.towers.base import TextTower, VisionTower
from s4eca.tuning.base import Capabilities, TuningMethod


class LoRA(TuningMethod):
    """Low-rank adaptation (Hu et al., ICLR 2022), the layers replaced by peft.

    Args:
        rank: of the update.
        alpha: the update is scaled by `alpha / rank`.
        dropout: before the update, active in training.
        text_layers: names of the text tower's linear layers that get one.
        vision_layers: the same for the vision tower.
    """

    name = "lora"
    capabilities = Capabilities(language=False, families=frozenset({"bert", "swin", "swinv2"}))

    def __init__(
        self,
        rank: int = 16,
        alpha: float = 16,
        dropout: float = 0.0,
        text_layers: Sequence[str] = ("query", "value"),
        vision_layers: Sequence[str] = ("qkv",),
    ) -> None:
        super().__init__()
        self.settings = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
        self.layers = {"text": list(text_layers), "vision": list(vision_layers)}

    def attach(self, text: TextTower, vision: VisionTower) -> None:
        """Puts peft's LoRA layers in place of the named linear layers.

        Raises:
            S4ecaError: a tower has no layer of a given name, or one that LoRA cannot reach.
        """
        super().attach(text, vision)
        for tower in (text, vision):
            names = self.layers[tower.kind]
            if tower.family == "swinv2" and "qkv" in names:
                raise S4ecaError(
                    "timm's Swin V2 takes the weight of qkv past the layer, where LoRA would learn nothing; set "
                    "tuning.vision_layers=[proj] or another list without qkv."
                )
            known = {name.rpartition(".")[2] for name, _ in tower.named_modules()}
            for name in names:
                if name not in known:
                    raise S4ecaError(f"tuning.{tower.kind}_layers names {name!r}, which the tower does not have.")
            if names:
                inject_adapter_in_model(LoraConfig(target_modules=names, **self.settings), tower.model)

    def set_mode(self, text: TextTower, vision: VisionTower, training: bool) -> None:
        """Only the update's own dropout follows `training`."""
        for tower in (text, vision):
            tower.eval()
            for name, module in tower.named_modules():
                if ".lora_" in name:
                    module.training = training
