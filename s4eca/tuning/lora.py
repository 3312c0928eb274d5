"""LoRA through peft: low-rank updates of the towers' linear layers, which merging folds into their weights."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer

from s4eca.errors import S4ecaError
from s4eca.frozen_dtype import holds_bf16
from s4eca.towers.base import Step, TextTower, Tower, VisionTower
from s4eca.tuning.base import INSIDE, Capabilities, Scope, TuningMethod, Width

Layers = Literal["attention", "all"] | Sequence[str]


@dataclass(frozen=True)
class Update:
    """The form of a low-rank update.

    Attributes:
        rank: of the update.
        alpha: the update is scaled by `alpha / rank`; None is the rank, whichever it is.
        dropout: of the update's input, active in training.

    Raises:
        S4ecaError: a value that cannot be.
    """

    rank: int
    alpha: float | None
    dropout: float

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise S4ecaError(f"tuning.rank={self.rank} cannot be; give a whole number from 1 up.")
        if self.alpha is not None and not self.alpha > 0:
            raise S4ecaError(f"tuning.alpha={self.alpha} must be above 0; null makes it the rank.")
        if not 0 <= self.dropout < 1:
            raise S4ecaError(f"tuning.dropout={self.dropout} is no share from 0 to below 1.")

    @property
    def scale(self) -> float:
        """What the update is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class LoRA(TuningMethod):
    """Low-rank adaptation (Hu et al., ICLR 2022, section 4.1): y = W x + alpha / rank · B A x, with W frozen.

    A (rank, in) starts random and B (out, rank) at zero, as peft draws them. A layer's update has rank · (in + out)
    parameters: for Swin-B and BERT-base (195.77 M) 145,920 · rank on the attentions (rank 16: 2.33 M, 1.19 %) and
    358,400 · rank on all linear layers (rank 8: 1.46 %, rank 16: 2.93 %). Departures from the paper, which updates
    the query and value projections: `attention` takes all four, and timm's Swin holds query, key and value in one
    layer `qkv`, so they share A and their updates share one rank.

    Args:
        rank: of the update.
        alpha: the update is scaled by `alpha / rank`. None is the rank, so that the scale stays 1 whatever rank a
            budget chooses; a number stays what it is, and a budget then changes the scale.
        dropout: of the update's input, active in training.
        text_layers: the text tower's layers that get an update: `attention`, `all` (attention and MLP), or a list of
            names; a name is a layer of a block as the tower lists it (`attention.self.query`), or the end of such
            names (`dense`), then every layer that it ends.
        vision_layers: the same for the vision tower, in the blocks from the start stage on.

    Raises:
        S4ecaError: a setting that cannot be.
    """

    name = "lora"
    capabilities = Capabilities(language=False)
    width = Width(("rank",))

    def __init__(
        self,
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.0,
        text_layers: Layers = "attention",
        vision_layers: Layers = "attention",
    ) -> None:
        super().__init__()
        self.update = Update(rank, alpha, dropout)
        self.layers = {"text": text_layers, "vision": vision_layers}

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Puts peft's layers in place of the chosen linear layers.

        Raises:
            S4ecaError: see `find_layers`, or no layer is chosen at all.
        """
        super().attach(text, vision, scope)
        chosen = {tower.kind: find_layers(tower, self.layers[tower.kind], self.name) for tower in (text, vision)}
        if not any(chosen.values()):
            raise S4ecaError(
                "tuning=lora has neither text nor vision layers to update; name some in tuning.text_layers or "
                "tuning.vision_layers, or use tuning=frozen."
            )
        add_updates(text, text.steps, chosen["text"], self.update)
        add_updates(vision, scope.steps(vision), chosen["vision"], self.update)

    def merge(self, text: TextTower, vision: VisionTower) -> None:
        """Folds every update into its layer's own weight and puts the plain layer back; nothing is learned then.

        The network computes the same, but for rounding.

        Raises:
            S4ecaError: an update is not finite, or the weights are held in bf16, which would round the sum.
        """
        for tower in (text, vision):
            if holds_bf16(tower):
                raise S4ecaError(
                    f"the {tower.kind} tower holds its weights in bf16, and updates are merged into those in fp32; set "
                    "model.segmenter.tower_dtype=fp32."
                )
            for name, layer in list(tower.model.named_modules()):
                if not isinstance(layer, BaseTunerLayer):
                    continue
                try:
                    layer.merge(safe_merge=True)
                except ValueError as error:
                    raise S4ecaError(
                        f"the update of {tower.kind}.{name} holds NaN or infinite values and cannot be merged; take "
                        "an earlier checkpoint of the run."
                    ) from error
                tower.model.set_submodule(name, layer.get_base_layer())
            if hasattr(tower.model, "peft_config"):
                del tower.model.peft_config

    def set_mode(self, text: TextTower, vision: VisionTower, training: bool) -> None:
        """Only the updates' own dropout follows `training`."""
        for tower in (text, vision):
            set_update_mode(tower, training)


def find_layers(tower: Tower, layers: Layers, method: str) -> list[str]:
    """Returns the names, relative to a block, of the layers that a setting chooses.

    Args:
        tower: before any layer is replaced.
        layers: `attention`, `all` or names, see `LoRA`.
        method: the tuning's name, for errors.

    Raises:
        S4ecaError: an unknown word, a tower without linear layers in an attention, a layer that the tower does not
            have, or one whose update would never be computed.
    """
    key = f"tuning.{tower.kind}_layers"
    reached = (*tower.attention_layers, *tower.mlp_layers)
    if isinstance(layers, str):
        if layers not in ("attention", "all"):
            raise S4ecaError(f"{key}={layers} is neither attention nor all nor a list of layers.")
        if layers == "attention" and not tower.attention_layers:
            raise S4ecaError(
                f"tuning={method} with {key}=attention does not fit {tower.family} towers, which have no linear layer "
                f"in an attention; set {key}=all for their MLPs."
            )
        return list(tower.attention_layers if layers == "attention" else reached)
    chosen: list[str] = []
    for name in layers:
        found = [name] if name in reached else [layer for layer in reached if layer.endswith(f".{name}")]
        if not found and tower.family == "swinv2" and name in ("qkv", "attn.qkv"):
            raise S4ecaError(
                f"timm's Swin V2 takes the weight of qkv past the layer, where {method} would learn nothing; set "
                f"{key}=[proj] or another list without qkv."
            )
        if not found:
            raise S4ecaError(
                f"{key} names {name!r}, which is no linear layer of the {tower.family} tower's attentions and MLPs; "
                f"available are {', '.join(reached)}, or the words attention and all."
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def add_updates(tower: Tower, steps: Sequence[Step], layers: Sequence[str], update: Update) -> None:
    """Puts peft's LoRA layers in place of `layers`, names relative to a block, in the blocks of `steps`."""
    if not layers:
        return
    names = {id(module): name for name, module in tower.model.named_modules()}
    paths = [f"{names[id(tower.block(step.index))]}.{layer}" for step in steps for layer in layers]
    config = LoraConfig(
        r=update.rank,
        lora_alpha=update.rank if update.alpha is None else update.alpha,
        lora_dropout=update.dropout,
        # an expression is matched as a whole, where peft would take a list's names for endings too
        target_modules="|".join(re.escape(path) for path in paths),
    )
    inject_adapter_in_model(config, tower.model)


def set_update_mode(tower: Tower, training: bool) -> None:
    """Sets the mode of what `add_updates` added; the tower itself stays in eval mode."""
    tower.eval()
    for name, module in tower.named_modules():
        if ".lora_" in name:
            module.training = training
