"""CoLA, cross-modal LoRA: what each encoder sees changes the low-rank updates of the other one, layer by layer."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.checks import check_whole
from s4eca.errors import S4ecaError
from s4eca.towers.base import Kind, Site, Step, TextTower, VisionTower
from s4eca.tuning.base import (
    INSIDE,
    Capabilities,
    Carry,
    Context,
    Schedule,
    Scope,
    TuningMethod,
    Walk,
    Width,
)
from s4eca.tuning.lora import Update

LEAST_HIDDEN = 4
EPSILON = 1e-6  # of the hyper-networks' norms, as in the official code

Pair = tuple[range, range]


class Condition:
    """What the updates of an encoder's block are told while the block runs.

    Attributes:
        value: the other modality's mean token (B, C), None outside a block.
    """

    value: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Condition":
        """Returns an empty one: a copy of a network is in no walk."""
        return Condition()


class CrossModalLinear(nn.Module):
    """A frozen linear layer with an update within its modality and one across: W x + alpha / r · B A x + s · D Phi C x.

    A and C (r, in) start Kaiming uniform, B and D (out, r) at zero, the learned weight s at alpha / r. Phi (r, r) is
    made from the condition c by a hyper-network of this layer's own. A layer that holds query, key and value in one has
    all of it three times, so that it learns what three layers would.

    Args:
        layer: W and its bias.
        parts: 3 for query, key and value in one layer, else 1.
        condition: c, set while the layer's block runs.
        features: C, width of the condition.
        update: r, alpha and dropout.
        reduction: the hyper-network's hidden width is `features / reduction`.
    """

    def __init__(
        self, layer: nn.Linear, parts: int, condition: Condition, features: int, update: Update, reduction: int
    ) -> None:
        super().__init__()
        self.layer, self.parts, self.condition = layer, parts, condition
        self.scale, self.dropout = update.scale, update.dropout
        downs, ups = (parts * update.rank, layer.in_features), (parts, layer.out_features // parts, update.rank)
        self.down, self.up = nn.Parameter(torch.empty(downs)), nn.Parameter(torch.zeros(ups))
        self.cross_down, self.cross_up = nn.Parameter(torch.empty(downs)), nn.Parameter(torch.zeros(ups))
        for weight in (self.down, self.cross_down):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.cross_scale = nn.Parameter(torch.full((parts,), update.scale))
        self.hyper = nn.ModuleList(hyper_network(features, update.rank, reduction) for _ in range(parts))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, ..., in) to (N, ..., out); N is the batch, or samples times windows, a sample's in a row."""
        condition = self.condition.value
        assert condition is not None
        rows = F.dropout(x, self.dropout, self.training).reshape(len(condition), -1, x.shape[-1])
        phi = torch.stack([hyper(condition) for hyper in self.hyper], 1) * self.cross_scale[:, None, None]
        within = self.scale * F.linear(rows, self.down).unflatten(-1, (self.parts, -1))
        across = F.linear(rows, self.cross_down).unflatten(-1, (self.parts, -1))
        across = torch.einsum("bnps,bprs->bnpr", across, phi)
        up = torch.cat([self.up, self.cross_up], -1)
        update = torch.einsum("bnpr,por->bnpo", torch.cat([within, across], -1), up)
        return self.layer(x) + update.reshape(*x.shape[:-1], -1)


def hyper_network(features: int, rank: int, reduction: int) -> nn.Sequential:
    """Returns the MLP that makes Phi (B, rank, rank) from a condition (B, features).

    It has at least `LEAST_HIDDEN` hidden values: of one or two, a norm leaves next to nothing of the condition.
    """
    hidden = max(LEAST_HIDDEN, features // reduction)
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.GELU(),
        nn.LayerNorm(hidden, EPSILON),
        nn.Linear(hidden, rank * rank),
        nn.LayerNorm(rank * rank, EPSILON),
        nn.Unflatten(1, (rank, rank)),
    )


class CoLA(TuningMethod):
    """Cross-modal low-rank adaptation (ICML 2026), after what its official code does (peterwisu/CoLA).

    Every linear layer of all blocks of both encoders becomes a `CrossModalLinear`: a low-rank pair within the modality
    and a pair across, with a full matrix Phi between them that a hyper-network makes from the other modality. Query,
    key, value, the attention output and both layers of the MLP have one each.

    Both encoders are walked in lockstep, in as many pairs as the shallower one has blocks: ViT-B and BERT-base (12 and
    12) block by block; of Swin-B's 24 blocks two beside each of BERT's 12 layers; other depths spread evenly, the first
    pairs the longer. In a pair each side reads the mean token of the other as that enters the pair: pixels without
    leading tokens and after a stage's downsampling, words without padding.

    Departures from the official code:

    - the condition is the same for all layers of a pair; there it is taken anew for the attention output (from the
      heads) and for the MLP (after the attention), and words are averaged with their padding;
    - a hyper-network has at least 4 hidden values, for small towers; features / 16 is more from 64 features on;
    - the official code knows ViT and BERT of 12 blocks; Swin, ConvNeXt and other depths are ours. Swin's patch merging
      is no block and stays frozen. Where timm takes the weight of query, key and value past the layer (Swin V2), these
      stay frozen.

    The last text layer is learned through what a fusion makes of the words, as it is there through the decoder: without
    a fusion it would get no gradient, so one is needed.

    The part within the modality is linear and could be folded into W; the part across depends on every sample, so a
    CoLA run is no plain network and `s4eca merge` refuses it.

    With ViT-B and BERT-base rank 16 has 17,826,192 parameters, as the official code's layers give; with Swin-B and
    BERT-base 21,396,552 (10.93 % of the towers). The hyper-networks alone have 40 % and 43 % of that, so a small budget
    needs a larger `reduction`.

    Args:
        rank: of all pairs, at least 2: the norm of a Phi with one element leaves nothing of it.
        alpha: the part within is scaled by `alpha / rank`, and that across starts so; None is the rank.
        reduction: features of the condition by hidden values of a hyper-network.
        dropout: of the updates' inputs, active in training.

    Raises:
        S4ecaError: a setting that cannot be.
    """

    name = "cola"
    capabilities = Capabilities(language=True, last_words=True)
    width = Width(("rank",), least=2)

    def __init__(self, rank: int = 16, alpha: float | None = 8, reduction: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.update, self.reduction = Update(rank, alpha, dropout), reduction
        check_whole("tuning.reduction", reduction)
        if rank < 2:
            raise S4ecaError(f"tuning.rank={rank} leaves tuning=cola no matrix across the modalities; give 2 or more.")
        self.conditions: dict[Kind, Condition] = {"text": Condition(), "vision": Condition()}

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Puts `CrossModalLinear` in place of the linear layers, in the vision tower from the start stage on.

        Raises:
            S4ecaError: a tower has no linear layer in its blocks.
        """
        super().attach(text, vision, scope)
        learned = {step.index for step in scope.steps(vision)}
        self.pairs = lockstep(len(text.steps), len(vision.steps))
        for tower in (text, vision):
            if not (*tower.attention_layers, *tower.mlp_layers):
                raise S4ecaError(
                    f"tuning=cola updates linear layers, and the blocks of this {tower.family} tower have none; choose "
                    f"another {tower.kind} tower or another tuning."
                )
        for layers, blocks in self.pairs:
            for layer in layers:
                self._replace(text, layer, vision.steps[blocks[0]].width)
            for block in blocks:
                if block in learned:
                    self._replace(vision, block, text.steps[layers[0]].width)

    def _replace(self, tower: TextTower | VisionTower, index: int, features: int) -> None:
        block = tower.block(index)
        for name in (*tower.attention_layers, *tower.mlp_layers):
            layer = block.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            parts = 3 if name.endswith("qkv") else 1
            condition = self.conditions[tower.kind]
            block.set_submodule(name, CrossModalLinear(layer, parts, condition, features, self.update, self.reduction))

    def schedule(self, text: TextTower, vision: VisionTower) -> Schedule:
        """Walks pair by pair, the vision tower's part first."""
        return [
            walk
            for layers, blocks in self.pairs
            for walk in (*(Walk("vision", block) for block in blocks), *(Walk("text", layer) for layer in layers))
        ]

    def begin(self, words: Tensor, context: Context) -> Carry:
        """Notes the mean of the embedded words, which the first vision blocks read."""
        return {"words": _mean_word(words, context)}

    def tap(
        self,
        step: Step,
        site: Site,
        x: Tensor,
        branch_in: Tensor | None,
        context: Context,
        carry: Carry,
    ) -> tuple[Tensor, Carry]:
        """Notes the mean tokens at the ends of pairs, and tells the layers of a block that of the other modality."""
        condition = self.conditions[step.tower]
        if site == "in":
            if step.tower == "vision" and any(step.index == blocks[0] for _, blocks in self.pairs):
                carry = {**carry, "pixels": x.flatten(1, -2)[:, step.prefix :].mean(1)}
            condition.value = carry["words" if step.tower == "vision" else "pixels"]
        elif site == "out":
            condition.value = None
            if step.tower == "text" and any(step.index == layers[-1] for layers, _ in self.pairs):
                carry = {**carry, "words": _mean_word(x, context)}
        return x, carry

    def set_mode(self, text: TextTower, vision: VisionTower, training: bool) -> None:
        """Of the towers, only the updates' own dropout follows `training`."""
        for tower in (text, vision):
            tower.eval()
            for module in tower.modules():
                if isinstance(module, CrossModalLinear):
                    module.training = training


def lockstep(layers: int, blocks: int) -> list[Pair]:
    """Splits the text tower's layers and the vision tower's blocks into as many parts as the shallower one has.

    Returns:
        For each pair its text layers and its vision blocks, in order.
    """
    count = min(layers, blocks)
    ends = [(-(-place * layers // count), -(-place * blocks // count)) for place in range(count + 1)]
    return [(range(a, b), range(c, d)) for (a, c), (b, d) in pairwise(ends)]


def _mean_word(words: Tensor, context: Context) -> Tensor:
    """Returns the mean (B, D) of words (B, L, D) that are no padding."""
    kept = context.word_mask[..., None]
    return words.masked_fill(~kept, 0).sum(1) / kept.sum(1)
