"""Evidence made by hand or at random, for the tests of all selectors."""

from typing import Any

import cv2
import numpy as np

from s4eca.dgl_rsis.grounding.activation import cell_weights
from s4eca.dgl_rsis.parts import Evidence, Maps, Phrase, Proposals, Word

CLASSES = ("ship", "plane", "bare ground")
SHIP = Phrase("ship", (Word("ship", 0, 4),), "ship", "ship", (0, 4), (0,))
UNKNOWN = Phrase("ferry", (Word("ferry", 0, 5),), "ferry", None, (0, 5), (0,), fallback="no known noun")
NOUNLESS = Phrase("on the left", (Word("left", 7, 11),), place=("left",), fallback="no noun")


def proposals(masks: np.ndarray, size: tuple[int, int] | None = None, **options: Any) -> Proposals:
    """Packs masks (K, H, W); none of them where only a size is given."""
    if size is not None:
        return Proposals.from_masks(np.ones((1, *size), bool)).take([])
    return Proposals.from_masks(masks, **options)


def maps(local: Any, context: Any = None, whole: Any = None, average: Any = None) -> Maps:
    """Maps that are all zero where they are not given; the sentence's is the local one."""
    local = np.asarray(local, np.float32)
    given = [np.zeros_like(local) if item is None else np.asarray(item, np.float32) for item in (context, average)]
    whole = local if whole is None else np.asarray(whole, np.float32)
    return Maps(local, given[0], whole, given[1], 0.0)


def evidence(
    found: Proposals,
    of_words: Maps,
    probabilities: Any = None,
    phrase: Phrase = SHIP,
    sentence: Any = None,
    noun_phrase: Any = None,
) -> Evidence:
    """Evidence whose class probabilities at tau 1 are those given; without them all classes are equal."""
    count = len(found)
    if probabilities is None:
        probabilities = np.ones((count, len(CLASSES)))
    rows, columns = of_words.local.shape
    return Evidence(
        phrase=phrase,
        proposals=found,
        maps=of_words,
        cells=cell_weights(found.masks(), rows, columns),
        classes=CLASSES,
        n_background=1,
        similarity=np.log(np.asarray(probabilities, np.float64)).astype(np.float32).reshape(count, len(CLASSES)),
        sentence=np.zeros(count, np.float32) if sentence is None else np.asarray(sentence, np.float32),
        noun_phrase=np.zeros(count, np.float32) if noun_phrase is None else np.asarray(noun_phrase, np.float32),
    )


def perfect(masks: np.ndarray, truth: int, grid: tuple[int, int]) -> Evidence:
    """What ideal models would give: maps are the truth's share of each cell, features tell the truth from the rest."""
    known = cv2.resize(masks[truth].astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    is_truth = np.arange(len(masks)) == truth
    similarity = np.eye(len(CLASSES), dtype=np.float32)[np.where(is_truth, 0, 1 + np.arange(len(masks)) % 2)]
    found, of_words = proposals(masks), maps(known, known, known, known)
    cosine = is_truth.astype(np.float32)
    return Evidence(SHIP, found, of_words, cell_weights(masks, *grid), CLASSES, 1, similarity, cosine, cosine)


def scene(seed: int, size: tuple[int, int], count: int, apart: bool = False) -> tuple[np.ndarray, int]:
    """A truth and others, (K, H, W) bool, and the truth's position: blobs, parts of it, more than it.

    With `apart` no other shares a pixel with the truth.
    """
    generator = np.random.default_rng(seed)
    height, width = size
    truth = np.zeros(size, bool)
    while truth.sum() < 16 or truth.mean() > 0.6:
        truth = _blob(generator, height, width)
    others: list[np.ndarray] = []
    while len(others) < count - 1:
        other = _blob(generator, height, width)
        change = generator.integers(5)
        if change == 0:
            other &= truth
        elif change == 1:
            other |= truth
        elif change == 2:
            other = cv2.dilate(truth.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        elif change == 3:
            other = cv2.erode(truth.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        if apart:
            other &= ~truth
        if other.any() and (other != truth).any():
            others.append(other)
    place = int(generator.integers(count))
    others.insert(place, truth)
    return np.stack(others), place


def _blob(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    y0, x0 = generator.integers(height), generator.integers(width)
    ry, rx = generator.integers(1, height // 2), generator.integers(1, width // 2)
    if generator.random() < 0.5:
        return (abs(y - y0) <= ry) & (abs(x - x0) <= rx)
    return ((y - y0) / ry) ** 2 + ((x - x0) / rx) ** 2 <= 1
