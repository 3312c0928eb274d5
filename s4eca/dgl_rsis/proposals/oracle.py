"""The ceiling of any selector: the truth itself, among another proposer's masks. It is no method."""

from typing import Any

import numpy as np

from s4eca.dgl_rsis.base import Proposer
from s4eca.dgl_rsis.parts import Proposals, View
from s4eca.dgl_rsis.proposals.screens import nothing
from s4eca.errors import S4ecaError


class Oracle(Proposer):
    """Proposes the truth mask and the masks of a proposer that does not know it.

    What a selector reaches with it is a bound on what proposals can give it; never report it as a result.

    Args:
        distractors: makes the other masks; None for the truth alone.

    Raises:
        S4ecaError: `distractors` looks at the truth itself.
    """

    needs_truth = True

    def __init__(self, distractors: Proposer | None = None) -> None:
        super().__init__()
        if distractors is not None and distractors.needs_truth:
            raise S4ecaError("proposer.distractors must not look at the truth; choose another proposer for it.")
        self.distractors = distractors

    def identity(self) -> dict[str, Any]:
        """Returns the identity of the distractors."""
        return {"oracle": 1, "distractors": None if self.distractors is None else self.distractors.identity()}

    def inputs(self, view: View) -> dict[str, Any]:
        """Returns those of the distractors."""
        return {} if self.distractors is None else self.distractors.inputs(view)

    def propose(self, view: View) -> Proposals:
        """Returns the truth with score 1 above all others, then the distractors; without a truth pixel these alone.

        Raises:
            S4ecaError: the view has no truth, or one of another size.
        """
        if view.truth is None or view.truth.shape != view.size:
            raise S4ecaError(
                f"The image {view.name!r} comes without a truth mask of its size; choose another proposer than oracle."
            )
        others = nothing(view.size) if self.distractors is None else self.distractors.propose(view)
        if not view.truth.any():
            return others
        masks = np.concatenate([view.truth[None].astype(bool), others.masks()])
        top = max(1.0, float(others.scores.max(initial=0.0)))
        return Proposals.from_masks(masks, np.append(top, others.scores), ("oracle", *others.sources))
