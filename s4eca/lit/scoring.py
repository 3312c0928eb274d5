"""What trained and training-free modules share: their masks are scored under all protocols."""

from collections.abc import Sequence

import numpy as np
from lightning import LightningModule

from s4eca.evaluation.metrics import ReferringMetrics, protocol_scores
from s4eca.evaluation.protocols import PROTOCOLS
from s4eca.evaluation.report import COLUMNS, NO_TARGET_COLUMNS


class ScoringModule(LightningModule):
    """Counts test batches in `test_metrics` and logs the scores when the split is through.

    Args:
        protocols: evaluation protocols; the first one's mIoU and oIoU are logged without its name.

    Attributes:
        scores: of the last validation or test, per protocol, as fractions.
        rows: what they were computed from, per protocol (N, 6) int64 as in `s4eca.evaluation.metrics`, of all
            processes, each sample once, in the dataset's order.
        sizes: (N, 4) int64, index, height, width and pixels of the truth of each sample's image file.
    """

    def __init__(self, protocols: Sequence[str] = tuple(PROTOCOLS)) -> None:
        super().__init__()
        self.primary = protocols[0]
        self.test_metrics = ReferringMetrics(protocols)
        self.scores: dict[str, dict[str, float]] = {}
        self.rows: dict[str, np.ndarray] = {}
        self.sizes = np.zeros((0, 4), np.int64)

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the evaluated split."""
        self.log_scores("test", self.test_metrics)

    def log_scores(self, stage: str, metrics: ReferringMetrics) -> None:
        """Logs what was counted as `STAGE/PROTOCOL/NAME`, and starts counting anew."""
        self.rows, self.sizes = metrics.gathered()
        metrics.reset()
        self.scores = scores = {name: protocol_scores(rows, name) for name, rows in self.rows.items()}
        # every process has the same scores; without sync_dist Lightning warns of each that it might not
        for protocol, values in scores.items():
            for name in (*COLUMNS, *(NO_TARGET_COLUMNS if values["n_no_target"] else ())):
                self.log(f"{stage}/{protocol}/{name}", values[name], sync_dist=True)
        for name in ("mIoU", "oIoU"):
            self.log(f"{stage}/{name}", scores[self.primary][name], prog_bar=True, sync_dist=True)
