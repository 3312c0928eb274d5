"""Masks that the user made elsewhere (FreeSOLO, CutLER, Mask2Former), read from a folder."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from s4eca.data.rle import paint, read_rle
from s4eca.dgl_rsis.base import Proposer
from s4eca.dgl_rsis.parts import Proposals, View
from s4eca.dgl_rsis.proposals.screens import check_screens, nothing, screen
from s4eca.errors import S4ecaError
from s4eca.text import read_json

# a header that promises more than there is memory for is as damaged as any other
_UNREADABLE = (
    *(ValueError, TypeError, KeyError, OSError, EOFError, AttributeError, zipfile.BadZipFile),
    *(RecursionError, MemoryError),
)


class Precomputed(Proposer):
    """Reads `NAME.npz` or `NAME.json` for the image NAME.

    An `.npz` holds `masks` (K, H, W) bool or uint8 (not 0 is inside) and may hold `scores` (K,). A `.json` is a list of
    COCO RLE dicts, each of which may hold a `score`. Masks of another size than the view's are resized to it by nearest
    neighbour; those without a pixel are left out, the others screened.

    Args:
        folder: where the files are.
        min_area: see `screen`, as the four below.
        max_share: see `screen`.
        max_components: see `screen`.
        nms_iou: see `screen`.
        limit: see `screen`.

    Raises:
        S4ecaError: the folder does not exist, or a setting makes no sense.
    """

    def __init__(
        self,
        folder: str,
        min_area: int = 16,
        max_share: float = 0.9,
        max_components: int | None = None,
        nms_iou: float = 0.8,
        limit: int | None = 100,
    ) -> None:
        super().__init__()
        if not Path(folder).is_dir():
            raise S4ecaError(f"proposer.folder={folder} is not a folder; give the one that holds the masks' files.")
        self.folder = Path(folder)
        self.screens = check_screens(
            min_area=min_area, max_share=max_share, max_components=max_components, nms_iou=nms_iou, limit=limit
        )

    def identity(self) -> dict[str, Any]:
        """Returns the screens; the files' content is in `inputs`."""
        return {"precomputed": 1, **self.screens}

    def inputs(self, view: View) -> dict[str, Any]:
        """Returns the sha256 of the image's file of masks: part of the cache key beside the view's own."""
        path = self._path(view)
        return {"kind": path.suffix, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def propose(self, view: View) -> Proposals:
        """Returns the masks of the image's file.

        Raises:
            S4ecaError: the image has no file, or one that cannot be read as masks.
        """
        path = self._path(view)
        try:
            masks, scores = _read_npz(path) if path.suffix == ".npz" else _read_json(path)
            if scores.shape != (len(masks),) or not np.isfinite(scores).all():
                raise ValueError("its scores are not one finite number a mask")
        except _UNREADABLE as error:
            raise S4ecaError(f"The masks in {path} cannot be read ({error}); write them as documented.") from error
        height, width = view.size
        fitted = [_fit(mask, (height, width)) for mask in masks]
        kept = [place for place, mask in enumerate(fitted) if mask.any()]
        if not kept:
            return nothing(view.size)
        found = Proposals.from_masks(np.stack([fitted[place] for place in kept]), scores[kept], "precomputed")
        return screen(found, **self.screens)

    def _path(self, view: View) -> Path:
        for suffix in (".npz", ".json"):
            path = self.folder / f"{view.name}{suffix}"
            if view.name and path.is_file():
                return path
        raise S4ecaError(f"proposer.folder={self.folder} has neither {view.name}.npz nor {view.name}.json; add one.")


def _read_npz(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        masks = content["masks"]
        scores = content["scores"] if "scores" in content else np.ones(len(masks))
    if masks.ndim != 3 or masks.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"its masks are {masks.dtype} of shape {masks.shape}, not bool or uint8 of (K, H, W)")
    return list(masks != 0), scores.astype(np.float32)


def _read_json(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    regions = read_json(path)
    if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
        raise ValueError("it is not a list of RLE dicts")
    masks = [paint(*read_rle(region)) for region in regions]
    return masks, np.array([float(region.get("score", 1.0)) for region in regions], np.float32)


def _fit(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if mask.shape == size:
        return mask
    return cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).view(bool)
