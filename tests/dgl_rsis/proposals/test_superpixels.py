import numpy as np
import pytest

from s4eca.dgl_rsis.parts import View
from s4eca.dgl_rsis.proposals.merging import merge_tree
from s4eca.dgl_rsis.proposals.recall import best_iou
from s4eca.dgl_rsis.proposals.superpixels import Felzenszwalb, Slic
from s4eca.dgl_rsis.proposals.union import Union
from s4eca.errors import S4ecaError


def scene():
    image = np.full((90, 120, 3), 90, np.uint8)
    image[20:50, 30:50] = (250, 200, 30)
    image[60:80, 80:104] = (240, 240, 240)
    truths = np.zeros((2, 90, 120), bool)
    truths[0, 20:50, 30:50] = truths[1, 60:80, 80:104] = True
    return image, truths


def test_tree_by_hand():
    labels = np.array([[0, 1, 2]])
    colour = np.array([[[0, 0, 0], [1, 0, 0], [9, 0, 0]]], np.float32)
    tree = merge_tree(labels, colour)
    wanted = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]]
    np.testing.assert_array_equal([tree.mask(region)[0] for region in range(5)], wanted)


@pytest.mark.parametrize(
    "proposer", [Felzenszwalb(), Slic(segments=200), Union([Felzenszwalb(max_side=60), Slic(200)])]
)
def test_finds_plain_objects(proposer):
    image, truths = scene()
    found = proposer.propose(View(image, "key"))
    assert 2 <= len(found) <= 100
    assert min(best_iou(found, truth) for truth in truths) > 0.85
    again = proposer.propose(View(image, "key"))
    np.testing.assert_array_equal(found.bits, again.bits)


def test_a_plain_image_has_no_proposal():
    assert len(Felzenszwalb().propose(View(np.full((40, 50, 3), 7, np.uint8), "key"))) == 0


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (Felzenszwalb, {"scales": []}, "scales"),
        (Slic, {"segments": 1}, "segments"),
        (Slic, {"max_side": 3}, "max_side"),
        (Union, {"proposers": []}, "proposers"),
    ],
)
def test_bad_settings_are_named(kind, options, name):
    with pytest.raises(S4ecaError, match=f"proposer.{name}"):
        kind(**options)
