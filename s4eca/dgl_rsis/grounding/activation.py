"""From maps to one activation, and the linear algebra between cells and pixels; plain arrays, no model."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from s4eca.dgl_rsis.parts import Maps, Phrase
from s4eca.errors import S4ecaError

KINDS = ("mul", "add", "local", "whole", "average")
"""How `fuse` joins the maps of an expression."""

_CHUNK = 8  # masks that are held as floats at a time: 20 MB at 800 x 800
_FAR = 0.3  # of a ramp, at the edge of the image that is not meant


def normalise(values: np.ndarray) -> np.ndarray:
    """Returns a map as float32 with 0 as its least and 1 as its greatest value; a flat one becomes all zero."""
    exact = values.astype(np.float64)
    low, high = exact.min(), exact.max()
    if high == low:
        return np.zeros(values.shape, np.float32)
    return ((exact - low) / (high - low)).astype(np.float32)


def fuse(maps: Maps, phrase: Phrase, kind: str = "mul", lam: float = 1.0) -> tuple[np.ndarray, str | None]:
    """Joins the maps of local and global words into one activation.

    With N for `normalise`: `mul` is N(N(local)·(1 + lam·N(context))), so that modifiers re-rank the places that the
    noun supports and add none; `add` is N(N(local) + lam·N(context)); `local`, `whole` and `average` are N of that map,
    the last being the mean over all words that DGL-RSIS sets itself against. An expression without modifiers, or whose
    modifiers' map is flat, has N(context) = 0: `mul` and `add` are then N(local), by the rule and not as a fallback.

    The paper (Xu et al., arXiv 2509.00598) says that modifiers refine the Grad-CAM map of the class noun; the formulas
    are our reconstruction.

    Args:
        maps: of the expression.
        phrase: the expression; where no noun was found `mul`, `add` and `local` take the sentence's map.
        kind: one of `KINDS`.
        lam: weight of the modifiers, at least 0.

    Returns:
        the activation (rows, columns) float32 in [0, 1], and the name of the fallback: `no noun` (the sentence's map
        was taken), `flat map` (the activation is all zero, since no place differs from another), or None.

    Raises:
        S4ecaError: an unknown kind.
    """
    if kind not in KINDS:
        raise S4ecaError(f"selector.map={kind} is no way to join maps; choose one of {', '.join(KINDS)}.")
    fallback = None
    if kind in ("mul", "add", "local") and (phrase.fallback == "no noun" or not phrase.local):
        kind, fallback = "whole", "no noun"
    if kind == "mul":
        activation = normalise(normalise(maps.local) * (1 + lam * normalise(maps.context)))
    elif kind == "add":
        activation = normalise(normalise(maps.local) + lam * normalise(maps.context))
    else:
        activation = normalise({"local": maps.local, "whole": maps.whole, "average": maps.average}[kind])
    return activation, fallback if activation.any() else "flat map"


def iterprime_map(maps: Maps) -> tuple[np.ndarray, str | None]:
    """Returns an activation in the manner of IteRPrimE: N of the mean of the sentence's, noun's and modifiers' maps.

    A departure from Wang et al. (AAAI 2025), who normalise head by head, sharpen the primary word against the others
    and run the model again with the strongest places masked; only their three sources are kept. A map that is missing
    does not change the result.

    Returns:
        the activation (rows, columns) float32 in [0, 1], and `flat map` where it is all zero.
    """
    mean = (normalise(maps.whole) + normalise(maps.local) + normalise(maps.context)) / 3
    activation = normalise(mean)
    return activation, None if activation.any() else "flat map"


def spatial_prior(shape: tuple[int, int], place: Sequence[str]) -> np.ndarray:
    """Returns a ramp to multiply an activation with, for expressions that say where in the image the target is.

    Across the image it falls from 1.0 at the edge that is meant to 0.3 at the other one; for `middle` from 1.0 at the
    centre line to 0.3 at both edges, along the axes that no other word names. Several words multiply. Values are those
    at the cells' centres, so that grids of all sizes show the same ramp. Our choice, and off in the faithful preset.

    Args:
        shape: (rows, columns) of the activation.
        place: words out of `left`, `right`, `top`, `bottom`, `middle`; none of them gives all ones.

    Returns:
        (rows, columns) float32 in (0, 1].

    Raises:
        ValueError: another word.
    """
    vertical = _profile(shape[0], place, "top", "bottom")
    horizontal = _profile(shape[1], place, "left", "right")
    unknown = set(place) - {"left", "right", "top", "bottom", "middle"}
    if unknown:
        raise ValueError(f"{sorted(unknown)[0]} is no place in an image")
    if "middle" in place:
        if not {"top", "bottom"} & set(place):
            vertical = _fall(np.abs(2 * _centres(shape[0]) - 1))
        if not {"left", "right"} & set(place):
            horizontal = _fall(np.abs(2 * _centres(shape[1]) - 1))
    return np.outer(vertical, horizontal).astype(np.float32)


def upsample(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a map (rows, columns) at the image's size (H, W) float32, bilinear, corners not aligned."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    return F.interpolate(tensor[None, None], size=size, mode="bilinear", align_corners=False)[0, 0].numpy()


def cell_weights(masks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Returns how much of each mask lies under each cell of a map: the adjoint of `upsample`.

    `(cells[k] * map).sum()` is the sum of the upsampled map inside mask k, so that selectors score masks at the maps'
    resolution without an error. The weights of a mask add up to its area.

    Args:
        masks: (K, H, W) bool.
        rows: of the map.
        columns: of the map.

    Returns:
        (K, rows, columns) float32, pixels.
    """
    count, height, width = masks.shape
    down, across = _interpolation(rows, height), _interpolation(columns, width)
    cells = np.empty((count, rows, columns), np.float32)
    for start in range(0, count, _CHUNK):
        part = masks[start : start + _CHUNK].astype(np.float32)
        cells[start : start + _CHUNK] = down.T @ (part.reshape(-1, width) @ across).reshape(-1, height, columns)
    return cells


@lru_cache(maxsize=32)
def _interpolation(cells: int, pixels: int) -> np.ndarray:
    """Returns the matrix (pixels, cells) float32 that upsamples along one axis."""
    basis = F.interpolate(torch.eye(cells)[None], size=pixels, mode="linear", align_corners=False)
    return basis[0].T.contiguous().numpy()


def _profile(cells: int, place: Sequence[str], near: str, far: str) -> np.ndarray:
    """Returns the ramps of two opposite words along one axis (cells,)."""
    profile = np.ones(cells)
    if near in place:
        profile *= _fall(_centres(cells))
    if far in place:
        profile *= _fall(1 - _centres(cells))
    return profile


def _fall(distance: np.ndarray) -> np.ndarray:
    return 1 - (1 - _FAR) * distance


def _centres(cells: int) -> np.ndarray:
    """Returns where the cells' centres are, the axis being 1 long."""
    return (np.arange(cells) + 0.5) / cells
