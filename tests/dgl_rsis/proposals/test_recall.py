import numpy as np
import pytest

from s4eca.dgl_rsis.parts import Proposals
from s4eca.dgl_rsis.proposals.recall import Recall, best_iou
from s4eca.dgl_rsis.proposals.screens import nothing


def test_best_iou_by_hand():
    masks = np.zeros((2, 5, 7), bool)
    masks[0, :2, :3] = True
    masks[1, 4] = True
    truth = np.zeros((5, 7), bool)
    truth[:2, 1:4] = True
    assert best_iou(Proposals.from_masks(masks), truth) == pytest.approx(4 / 8)
    assert best_iou(nothing((5, 7)), truth) == 0
    with pytest.raises(ValueError, match="without a pixel"):
        best_iou(nothing((5, 7)), np.zeros((5, 7), bool))


def test_recall_by_hand():
    recall = Recall.of([0.4, 0.5, 0.75, 0.95], [1023, 1024, 9215, 9216], [10, 20, 30, 40])
    assert (recall.targets, recall.at_50, recall.at_75, recall.mean_count) == (4, 0.75, 0.5, 25)
    assert recall.mean_best_iou == pytest.approx(0.65)
    assert recall.sizes == pytest.approx({"small": 0.4, "medium": 0.625, "large": 0.95})
    assert np.isnan(Recall.of([], [], []).mean_best_iou)
