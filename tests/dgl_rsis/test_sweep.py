from dataclasses import dataclass

import numpy as np
import pytest

from s4eca.dgl_rsis.parts import Selection
from s4eca.dgl_rsis.sweep import combine, try_all
from s4eca.errors import S4ecaError


@dataclass(frozen=True)
class Stripe:
    """Marks the first `width` columns; the evidence is the image's size."""

    width: int = 1
    noisy: bool = False

    def __post_init__(self):
        if self.width < 0:
            raise S4ecaError("selector.width is at least 0")

    def select(self, evidence):
        mask = np.zeros(evidence, bool)
        mask[:, : self.width] = True
        return Selection(mask, (), np.zeros(0, np.float32), np.zeros((1, 1)), "noise" if self.noisy else None)


def test_all_combinations_in_order():
    found = combine({"width": [1, 2], "noisy": [False, True]}, Stripe())
    assert [settings for settings, _ in found] == [
        {"width": 1, "noisy": False},
        {"width": 1, "noisy": True},
        {"width": 2, "noisy": False},
        {"width": 2, "noisy": True},
    ]
    assert found[3][1] == Stripe(2, True)
    assert combine({"noisy": [True]}, Stripe(7))[0][1] == Stripe(7, True), "what is not swept stays"


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"height": [1]}, r"space.height is no setting of the selector; it has width, noisy"),
        ({"width": 3}, r"space.width=3 is no list"),
        ({"width": "12"}, r"space.width=12 is no list"),
        ({"width": []}, r"space.width=\[\] is no list"),
        ({"width": [-1]}, "at least 0"),
        ({}, "the space is empty"),
    ],
)
def test_what_cannot_be_tried_is_refused(space, said):
    with pytest.raises(S4ecaError, match=said):
        combine(space, Stripe())


def test_scores_by_hand():
    truth = np.zeros((2, 4), bool)
    truth[:, :2] = True
    wide = np.ones((1, 8), bool)
    samples = [((2, 4), truth), ((1, 8), wide), ((2, 4), np.zeros((2, 4), bool))]
    trials = try_all(combine({"width": [1, 2, 4]}, Stripe(noisy=True)), samples)
    assert [trial.settings["width"] for trial in trials] == [2, 4, 1]
    best = trials[0]
    assert best.miou == pytest.approx((4 / 4 + 2 / 8) / 2)
    assert best.oiou == pytest.approx((4 + 2) / (4 + 8))
    assert trials[1].miou == pytest.approx((4 / 8 + 4 / 8) / 2)
    assert best.fallbacks == 2, "a sample without truth is passed over"


def test_a_split_without_truth_is_refused():
    with pytest.raises(S4ecaError, match="no sample of the split has a truth"):
        try_all(combine({"width": [1]}, Stripe()), [((2, 2), np.zeros((2, 2), bool))])
