"""Deep prompts: every block gets learned tokens of its own, which all other tokens attend to."""

from typing import Any

import torch
from torch import Tensor, nn

from s4eca.checks import check_whole
from s4eca.errors import S4ecaError
from s4eca.towers.base import Site, Step, TextTower, VisionTower
from s4eca.tuning.base import INSIDE, Capabilities, Carry, Context, Scope, TuningMethod, Width


class DeepPrompts(TuningMethod):
    """VPT-Deep (Jia et al., ECCV 2022, section 3.2), by default for the words.

    The tokens enter before a block, after the class token and registers where there are any, and leave behind it; the
    next block gets fresh ones. Values are drawn uniformly from ±sqrt(3 / C) for a tower of width C: VPT's Xavier bound
    sqrt(6 / (3 * patch area + C)) with C in place of the patch's values, which for ViT-B/16 are equal.

    Departures: the paper prompts vision transformers; in a text tower the tokens stand before the first word, without
    position embedding, are seen by all words and see all words that are no padding, under a causal mask too. The
    authors' optional projection of and dropout on the prompts are left out.

    Args:
        tokens: learned tokens per block.
        text: whether the text tower gets prompts.
        vision: whether the vision tower gets prompts; its attention must be global.

    Raises:
        S4ecaError: fewer than one token, or no tower to prompt.
    """

    name = "prompt"
    capabilities = Capabilities(language=False, identity=False)
    width = Width(("tokens",))

    def __init__(self, tokens: int = 10, text: bool = True, vision: bool = False) -> None:
        super().__init__()
        check_whole("tuning.tokens", tokens)
        if not text and not vision:
            raise S4ecaError(
                "tuning=prompt has prompts in neither tower; set tuning.text=true or tuning.vision=true, or use "
                "tuning=frozen."
            )
        self.tokens = tokens
        self.towers = {"text": text, "vision": vision}

    def attach(self, text: TextTower, vision: VisionTower, scope: Scope = INSIDE) -> None:
        """Builds the prompts for these towers.

        Raises:
            S4ecaError: a tower that is to get prompts has no attention over all of its tokens.
        """
        super().attach(text, vision, scope)
        for tower in (text, vision):
            if self.towers[tower.kind] and not tower.takes_tokens:
                raise S4ecaError(
                    f"tuning=prompt adds tokens that all others attend to, and {tower.family} has attention inside "
                    f"windows only, or none; set tuning.{tower.kind}=false."
                )
        steps = {"text": text.steps, "vision": scope.steps(vision)}
        self.layers = nn.ModuleDict(
            {
                kind: nn.ModuleDict(
                    {str(step.index): Prompts(self.tokens, step.width) for step in steps[kind] if wanted}
                )
                for kind, wanted in self.towers.items()
            }
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
        """Inserts a block's prompts before it and takes them away behind it."""
        layers: Any = self.layers[step.tower]
        key, first = str(step.index), step.prefix
        if site == "in" and key in layers:
            prompts = layers[key].prompts.to(x.dtype).expand(x.shape[0], -1, -1)
            x = torch.cat([x[:, :first], prompts, x[:, first:]], dim=1)
        elif site == "out" and key in layers:
            x = torch.cat([x[:, :first], x[:, first + self.tokens :]], dim=1)
        return x, carry


class Prompts(nn.Module):
    """The learned tokens of one block.

    Attributes:
        prompts: (tokens, width).
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        bound = (3 / width) ** 0.5
        self.prompts = nn.Parameter(torch.empty(tokens, width).uniform_(-bound, bound))
