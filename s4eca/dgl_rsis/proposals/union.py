"""Several proposers as one."""

from collections.abc import Sequence
from typing import Any

from s4eca.dgl_rsis.base import Proposer
from s4eca.dgl_rsis.parts import Proposals, View
from s4eca.dgl_rsis.proposals.screens import check_screens, join, screen
from s4eca.errors import S4ecaError


class Union(Proposer):
    """Joins the masks of several proposers and screens them together; their scores must be on one scale.

    Args:
        proposers: in order; of equal scores the earlier proposer's comes first.
        min_area: see `screen`, as the four below.
        max_share: see `screen`.
        max_components: see `screen`.
        nms_iou: see `screen`.
        limit: see `screen`.

    Raises:
        S4ecaError: there is no proposer, or a setting makes no sense.
    """

    def __init__(
        self,
        proposers: Sequence[Proposer],
        min_area: int = 16,
        max_share: float = 0.9,
        max_components: int | None = None,
        nms_iou: float = 0.5,
        limit: int | None = 100,
    ) -> None:
        super().__init__()
        if not proposers:
            raise S4ecaError("proposer.proposers is empty; name at least one proposer.")
        self.proposers = list(proposers)
        self.needs_truth = any(proposer.needs_truth for proposer in self.proposers)
        self.screens = check_screens(
            min_area=min_area, max_share=max_share, max_components=max_components, nms_iou=nms_iou, limit=limit
        )

    def identity(self) -> dict[str, Any]:
        """Returns the parts' identities and the screens."""
        return {"union": [proposer.identity() for proposer in self.proposers], **self.screens}

    def inputs(self, view: View) -> dict[str, Any]:
        """Returns those of the parts."""
        return {"parts": [proposer.inputs(view) for proposer in self.proposers]}

    def propose(self, view: View) -> Proposals:
        """Returns the best of all."""
        return screen(join([proposer.propose(view) for proposer in self.proposers], view.size), **self.screens)
