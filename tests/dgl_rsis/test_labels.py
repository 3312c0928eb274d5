import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_rsis.selection.made_evidence import proposals
from s4eca.dgl_rsis.labels import label_map
from s4eca.errors import S4ecaError


def pixel(weights, probabilities, **options):
    """The label of one pixel that all proposals cover."""
    found = proposals(np.ones((len(probabilities), 1, 1), bool))
    options = {"weights": np.array(weights, float), "n_background": 1, **options}
    return int(label_map(np.array(probabilities, float), found, **options)[0, 0])


@pytest.mark.parametrize(
    ("weights", "probabilities", "label"),
    [
        ([1.0], [[0.2, 0.7, 0.1]], 2),
        ([1.0], [[0.7, 0.2, 0.1]], 1),
        ([1.0], [[0.1, 0.2, 0.7]], 0),  # a background prompt wins
        ([1.0], [[0.39, 0.31, 0.3]], 0),  # nobody reaches 0.4
        ([1.0, 1.0], [[0.6, 0.3, 0.1], [0.1, 0.6, 0.3]], 2),  # 0.7/2 and 0.9/2
        ([1.0, 1.0], [[0.6, 0.3, 0.1], [0.1, 0.4, 0.5]], 0),  # 0.7/2 at most
        ([3.0, 1.0], [[0.6, 0.3, 0.1], [0.1, 0.5, 0.4]], 1),  # 1.9/4 and 1.4/4
        ([0.0], [[0.9, 0.1, 0.0]], 0),  # no weight, no evidence
    ],
)
def test_one_pixel_by_hand(weights, probabilities, label):
    assert pixel(weights, probabilities) == label


@pytest.mark.parametrize(("threshold", "label"), [(0.0, 1), (0.59, 1), (0.6, 0), (1.0, 0)])
def test_the_threshold_is_on_the_score_of_the_class(threshold, label):
    assert pixel([1.0], [[0.6, 0.3, 0.1]], threshold=threshold) == label  # 0.6 / (1 + 1e-6)


def test_pixels_that_no_mask_covers_are_background():
    masks = np.zeros((2, 2, 3), bool)
    masks[0, 0, :2] = masks[1, :, 1] = True
    probabilities = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    # of the pixel under both: 0.5 and 0.5; the first class wins
    labels = label_map(probabilities, proposals(masks), 1, weights=np.ones(2))
    assert (labels.tolist(), labels.dtype) == ([[1, 1, 0], [0, 2, 0]], np.uint8)
    labels = label_map(probabilities, proposals(masks), 1, weights=np.ones(2), background_label=255)
    assert labels.tolist() == [[1, 1, 255], [255, 2, 255]]


def test_the_proposers_scores_are_the_weights():
    found = proposals(np.ones((2, 1, 2), bool), scores=np.array([3.0, 1.0]))
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.9, 0.0]])
    assert label_map(probabilities, found, 1).tolist() == [[1, 1]]  # 1.9/4 and 1.8/4
    assert label_map(probabilities, found, 1, weights=np.ones(2)).tolist() == [[2, 2]]


def test_without_background_prompts_all_columns_are_classes():
    assert pixel([1.0], [[0.1, 0.2, 0.7]], n_background=0) == 3
    assert pixel([1.0], [[0.1, 0.2, 0.7]], n_background=2) == 0


def test_no_proposal_is_all_background():
    labels = label_map(np.zeros((0, 4)), proposals(None, size=(3, 5)), 1, background_label=9)
    assert labels.tolist() == [[9] * 5] * 3


def plain(probabilities, masks, n_background, weights, threshold):
    """The formula, pixel by pixel."""
    count, height, width = masks.shape
    labels = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            total = sum(weights[k] * masks[k, y, x] for k in range(count))
            scores = [
                sum(weights[k] * probabilities[k, c] * masks[k, y, x] for k in range(count)) / (total + 1e-6)
                for c in range(probabilities.shape[1])
            ]
            best = int(np.argmax(scores))
            covered = masks[:, y, x].any()
            if covered and scores[best] >= threshold and best < probabilities.shape[1] - n_background:
                labels[y, x] = best + 1
    return labels


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5), st.floats(0, 0.9))
@settings(max_examples=25, deadline=None)
def test_labels_are_those_of_a_plain_loop(seed, count, classes, threshold):
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 12, 2)
    masks = generator.random((count, height, width)) < 0.4
    masks[:, 0, 0] = True
    probabilities = generator.dirichlet(np.full(classes, 0.5), count)
    weights = generator.uniform(0.1, 1, count)
    n_background = int(generator.integers(0, classes))
    labels = label_map(probabilities, proposals(masks), n_background, weights=weights, threshold=threshold)
    assert labels.tolist() == plain(probabilities, masks, n_background, weights, threshold).tolist()


def test_large_images_are_worked_on_in_blocks():
    # three blocks of 16,384 pixels and a rest whose bits do not fill a byte
    generator = np.random.default_rng(0)
    masks = generator.random((3, 253, 201)) < 0.5
    probabilities, weights = generator.dirichlet(np.ones(4), 3), np.array([0.9, 0.5, 0.7])
    labels = label_map(probabilities, proposals(masks), 2, weights=weights)
    powers = masks[0] + 2 * masks[1] + 4 * masks[2]
    patterns = np.array([[[i >> k & 1 for i in range(8)]] for k in range(3)], bool)
    expected = plain(probabilities, patterns, 2, weights, 0.4)[0]
    assert (labels == expected[powers]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.1}, r"^threshold=1\.1 "),
        ({"threshold": float("nan")}, r"^threshold=nan "),
        ({"background_label": 2}, r"^background_label=2 is a class's label .* 3 to 255"),
        ({"background_label": 256}, r"^background_label=256 "),
        ({"weights": [-0.5]}, "weight is negative"),
        ({"weights": [float("nan")]}, "weight is negative"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(S4ecaError, match=message):
        pixel(**{"weights": [1.0], "probabilities": [[0.5, 0.3, 0.2]], **options})


def test_more_classes_than_labels_are_refused():
    with pytest.raises(S4ecaError, match="255 classes do not fit"):
        label_map(np.zeros((0, 256)), proposals(None, size=(2, 2)), 1)


def test_another_number_of_proposals_is_refused():
    with pytest.raises(ValueError, match="1 probabilities, 2 weights, 2 proposals"):
        label_map(np.zeros((1, 3)), proposals(np.ones((2, 2, 2), bool)), 1)
