"""What the timm towers share: the model's own pixel statistics, and the checks of image size and options."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from s4eca.errors import S4ecaError
from s4eca.towers.base import State, VisionTower


class TimmTower(VisionTower):
    """A vision tower around a timm model, which takes uint8 pixels and normalises them itself.

    Attributes:
        mean: (1, 3, 1, 1) of the model's pretraining, on the scale 0 to 255.
        std: the same for the deviation.
    """

    mean: Tensor
    std: Tensor

    def take_statistics(self) -> None:
        """Registers what timm says the model's pixels were normalised with."""
        config = self.model.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1) * 255, persistent=False)

    def undecayed(self) -> list[nn.Parameter]:
        """Returns what the model's `no_weight_decay()` names: tokens, position embeddings, bias tables."""
        listed = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else ()
        groups = param_groups_weight_decay(self.model, 1.0, no_weight_decay_list=listed)  # of what is learned
        return [parameter for group in groups if not group["weight_decay"] for parameter in group["params"]]

    def begin(self, image: Tensor) -> State:
        """Normalises (B, 3, S, S) uint8 pixels and embeds them.

        Raises:
            S4ecaError: the image has another size than the tower.
        """
        if image.shape[-2:] != (self.image_size, self.image_size):
            raise S4ecaError(
                f"the vision tower was built for {self.image_size} px and got an image of {tuple(image.shape[-2:])}; "
                "give data and vision the same image_size."
            )
        pixels = (image.float() - self.mean.float()) / self.std.float()
        return self.embed(pixels.to(self.mean.dtype))  # fp32, unless the whole network was cast

    def embed(self, pixels: Tensor) -> State:
        """The same for pixels that are normalised already: (B, 3, S, S) float."""
        raise NotImplementedError


def set_attention(tower: VisionTower, name: str, attention: str) -> None:
    """Chooses how the blocks of a timm model compute their attention, whatever timm's environment variables say.

    Args:
        tower: with its steps.
        name: the model's, for errors.
        attention: `eager` for products and a softmax one after the other, `sdpa` for PyTorch's fused kernel, whose
            results differ in last bits.

    Raises:
        S4ecaError: neither of the two, or there is no fused form.
    """
    if attention not in ("eager", "sdpa"):
        raise S4ecaError(f"vision.attention={attention} is neither eager nor sdpa.")
    for step in tower.steps:
        branch: Any = getattr(tower.block(step.index), "attn", None)
        if hasattr(branch, "fused_attn"):
            branch.fused_attn = attention == "sdpa"
        elif attention == "sdpa":
            why = "no attention" if branch is None else "no fused form of its attention in timm"
            raise S4ecaError(f"vision.name={name} has {why}; set vision.attention=eager.")


def linear_layers(block: nn.Module, part: str) -> tuple[str, ...]:
    """Returns the names, relative to a block, of the linear layers in one part of it, for example `mlp`."""
    named = block.get_submodule(part).named_modules(prefix=part)
    return tuple(name for name, module in named if isinstance(module, nn.Linear))


def plain(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Turns a config's lists into the tuples that timm expects."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in (options or {}).items()}


def check_multiple(image_size: int, multiple: int, name: str, why: str) -> None:
    """Refuses an image size that the model would cut off at the right and at the bottom.

    Raises:
        S4ecaError: with the nearest sizes that fit.
    """
    if image_size < multiple or image_size % multiple:
        below = max(image_size // multiple, 1) * multiple
        sizes = " or ".join(f"image_size={size}" for size in (below, below + multiple) if size != image_size)
        raise S4ecaError(
            f"image_size={image_size} is no multiple of {multiple}, {why} of vision.name={name}; set {sizes}, which "
            "data.image_size and vision.image_size both read."
        )
