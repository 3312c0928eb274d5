"""Figures of each proposal, from its cells, an activation map and its similarities; nothing here loops over pixels.

The terms are our reconstruction: of the selection the paper's abstract says only that it integrates the activations of
pixels into the output of masks. Mean activation inside against outside is HybridGL's spatial coherence, the peak is
IteRPrimE's test.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from s4eca.dgl_rsis.grounding.activation import cell_weights
from s4eca.dgl_rsis.parts import Proposals

SCALES = ("rank", "minmax")


class Shares(NamedTuple):
    """How an upsampled activation map lies with regard to each proposal, all (K,) float64.

    Attributes:
        inside: mean activation of the proposal's pixels.
        outside: mean activation of all other pixels, 0 where there are none.
        coverage: share of the image's whole activation that lies inside, 0 where there is none.
    """

    inside: np.ndarray
    outside: np.ndarray
    coverage: np.ndarray


def activation_shares(cells: np.ndarray, proposals: Proposals, activation: np.ndarray) -> Shares:
    """Returns where the activation lies.

    Args:
        cells: (K, rows, columns), as `Evidence.cells`.
        proposals: K of them.
        activation: (rows, columns), ≥ 0.
    """
    # a sum of its own for each proposal: equal proposals have equal sums, which a matrix product does not promise
    exact = activation.astype(np.float64)
    sums = (cells * exact).reshape(len(cells), activation.size).sum(axis=1)
    total = float((_image_cells(proposals.size, *activation.shape) * exact).sum())
    areas = proposals.areas
    others = proposals.size[0] * proposals.size[1] - areas
    # rounding must not turn nothing into less than nothing
    outside = np.maximum(total - sums, 0) / np.maximum(others, 1) * (others > 0)
    coverage = sums / total if total > 0 else np.zeros(len(cells))
    return Shares(sums / areas, outside, coverage)


@lru_cache(maxsize=64)
def _image_cells(size: tuple[int, int], rows: int, columns: int) -> np.ndarray:
    """Returns the cells (rows, columns) of a mask that is the whole image; the same for all images of a size."""
    return cell_weights(np.ones((1, *size), bool), rows, columns)[0]


def peak_cell(activation: np.ndarray) -> tuple[int, int]:
    """Returns row and column of the strongest cell, the first of equal ones row by row."""
    row, column = divmod(int(activation.argmax()), activation.shape[1])
    return row, column


def peak_pixel(activation: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """Returns y and x of the pixel in the centre of the strongest cell, of an image of (height, width).

    Bilinear upsampling puts the maximum there. Of an even number of pixels the centre is the one after the middle.
    """
    row, column = peak_cell(activation)
    rows, columns = activation.shape
    return (2 * row + 1) * size[0] // (2 * rows), (2 * column + 1) * size[1] // (2 * columns)


def contains_pixel(proposals: Proposals, y: int, x: int) -> np.ndarray:
    """Returns which proposals hold a pixel, (K,) bool."""
    byte, bit = divmod(y * proposals.size[1] + x, 8)
    return (proposals.bits[:, byte] >> (7 - bit) & 1).astype(bool)


def touches_peak(proposals: Proposals, activation: np.ndarray) -> np.ndarray:
    """Returns which proposals have a pixel in the strongest cell or in one of its 8 neighbours, (K,) bool.

    A pixel is in the cell where its centre is.
    """
    (height, width), (rows, columns) = proposals.size, activation.shape
    row, column = peak_cell(activation)
    near_y = np.flatnonzero(np.abs((2 * np.arange(height) + 1) * rows // (2 * height) - row) <= 1)
    near_x = np.abs((2 * np.arange(width) + 1) * columns // (2 * width) - column) <= 1
    if not len(near_y):  # cells smaller than a pixel, none of whose centres is near
        return np.zeros(len(proposals), bool)
    # only the bytes that hold these rows are looked at, and they need not start with a row
    first, last = int(near_y[0]) * width // 8, -(-(int(near_y[-1]) + 1) * width // 8)
    window = np.zeros((last - first) * 8, bool)
    start = int(near_y[0]) * width - first * 8
    window[start : start + len(near_y) * width].reshape(len(near_y), width)[:] = near_x
    shared = proposals.bits[:, first:last] & np.packbits(window)
    return np.any(shared, axis=1)


def count_bits(bits: np.ndarray) -> int:
    """Returns how many bits of a row of bytes are set, eight bytes at a time."""
    words = len(bits) // 8 * 8
    whole = np.bitwise_count(bits[:words].view(np.uint64)).sum(dtype=np.int64)
    return int(whole + np.bitwise_count(bits[words:]).sum(dtype=np.int64))


def rescale(values: np.ndarray, kind: str) -> np.ndarray:
    """Returns values (K,) on a scale from 0 to 1; values that are all the same say nothing and become 0.5.

    Values are compared in single precision: what differs by rounding alone has no order.

    Args:
        values: (K,).
        kind: `minmax`, or `rank`: the place in the order, from 0 for the lowest to 1 for the highest, equal values
            sharing the mean of their places.
    """
    values = values.astype(np.float32).astype(np.float64)
    if not len(values) or np.ptp(values) == 0:
        return np.full(len(values), 0.5)
    if kind == "minmax":
        return (values - values.min()) / np.ptp(values)
    below = (values[None, :] < values[:, None]).sum(axis=1)
    equal = (values[None, :] == values[:, None]).sum(axis=1) - 1
    return (below + 0.5 * equal) / (len(values) - 1)


def class_probabilities(similarity: np.ndarray, tau: float) -> np.ndarray:
    """Returns p (K, C) float64, the softmax over the classes of `tau` times the cosines (K, C); 100 is CLIP's own."""
    logits = tau * similarity.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
