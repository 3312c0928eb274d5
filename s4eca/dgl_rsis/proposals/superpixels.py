"""Proposals without weights: superpixels and the unions of neighbouring ones, by scikit-image."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb, slic

from s4eca.dgl_rsis.base import Proposer
from s4eca.dgl_rsis.parts import Proposals, View
from s4eca.dgl_rsis.proposals.merging import merge_tree, objectness, region_boxes
from s4eca.dgl_rsis.proposals.screens import check_screens, nothing, screen
from s4eca.errors import S4ecaError


class Superpixels(Proposer):
    """Segments of an image at reduced size, all regions of their merge tree, scored by `objectness` and screened.

    Args:
        max_side: the longer side at which it works, in pixels; smaller images stay as they are.
        min_area: in pixels of the image, see `screen`, as the four below.
        max_share: see `screen`.
        max_components: see `screen`.
        nms_iou: see `screen`.
        limit: see `screen`.

    Raises:
        S4ecaError: a setting makes no sense.
    """

    def __init__(
        self,
        max_side: int = 400,
        min_area: int = 16,
        max_share: float = 0.25,
        max_components: int | None = None,
        nms_iou: float = 0.5,
        limit: int | None = 100,
    ) -> None:
        super().__init__()
        if max_side < 16:
            raise S4ecaError(f"proposer.max_side={max_side} must be at least 16 pixels.")
        self.max_side = max_side
        self.screens: dict[str, Any] = {
            "min_area": min_area,
            "max_share": max_share,
            "max_components": max_components,
            "nms_iou": nms_iou,
            "limit": limit,
        }
        check_screens(**self.screens)

    def segment(self, image: np.ndarray) -> list[np.ndarray]:
        """Returns label maps (H, W) of an RGB image, numbered from 0 without gaps."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Returns what `segment` depends on."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Returns all settings and the version of scikit-image."""
        return {
            "superpixels": 1,
            "library": version("scikit-image"),
            "opencv": cv2.__version__,
            "max_side": self.max_side,
            **self.settings(),
            **self.screens,
        }

    def propose(self, view: View) -> Proposals:
        """Returns the best regions of the image."""
        height, width = view.size
        factor = min(1.0, self.max_side / max(height, width))
        small = (max(1, round(height * factor)), max(1, round(width * factor)))
        image = cv2.resize(view.image, small[::-1], interpolation=cv2.INTER_AREA) if factor < 1 else view.image
        colour = rgb2lab(image).astype(np.float32)
        least = self.screens["min_area"] * factor**2
        most = self.screens["max_share"] * small[0] * small[1]
        masks, scores = [], []
        for labels in self.segment(image):
            tree = merge_tree(labels, colour)
            boxes, areas = region_boxes(tree)
            for region in np.flatnonzero((areas >= least) & (areas <= most)).tolist():
                mask = tree.mask(region)
                masks.append(np.packbits(mask))
                scores.append(objectness(mask, boxes[region], colour))
        if not masks:
            return nothing(view.size)
        bits = np.stack(masks)
        unpacked = np.unpackbits(bits, axis=1, count=small[0] * small[1]).view(bool).reshape(-1, *small)
        found = Proposals.from_masks(unpacked, np.array(scores), type(self).__name__.lower())
        kept = screen(found, **{**self.screens, "min_area": 1})
        if not len(kept):
            return nothing(view.size)
        grown = np.stack(
            [
                cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
                for mask in kept.masks()
            ]
        )
        visible = grown.any(axis=(1, 2))
        final = Proposals.from_masks(grown[visible], kept.scores[visible], type(self).__name__.lower())
        return screen(final, **self.screens)


class Felzenszwalb(Superpixels):
    """Felzenszwalb and Huttenlocher's graph-based segments (IJCV 2004) at several scales.

    Args:
        scales: larger ones give larger segments.
        sigma: of the smoothing beforehand, in pixels at the working size.
        min_size: smallest segment, in pixels at the working size.
        screens: as for `Superpixels`.

    Raises:
        S4ecaError: a setting makes no sense.
    """

    def __init__(
        self, scales: Sequence[float] = (800,), sigma: float = 0.4, min_size: int = 16, **screens: Any
    ) -> None:
        super().__init__(**screens)
        if not scales or min(scales) <= 0:
            raise S4ecaError(f"proposer.scales={list(scales)} must hold at least one number, all above 0.")
        if sigma < 0 or min_size < 1:
            raise S4ecaError(
                f"proposer.sigma={sigma} must not be negative and proposer.min_size={min_size} not below 1."
            )
        self.scales = tuple(float(scale) for scale in scales)
        self.sigma, self.min_size = float(sigma), min_size

    def settings(self) -> dict[str, Any]:
        """Returns what `segment` depends on."""
        return {"felzenszwalb": list(self.scales), "sigma": self.sigma, "min_size": self.min_size}

    def segment(self, image: np.ndarray) -> list[np.ndarray]:
        """Returns one label map a scale."""
        return [felzenszwalb(image, scale=scale, sigma=self.sigma, min_size=self.min_size) for scale in self.scales]


class Slic(Superpixels):
    """SLIC superpixels (Achanta et al., TPAMI 2012).

    Args:
        segments: about how many.
        compactness: weight of the distance in space against that in colour.
        screens: as for `Superpixels`.

    Raises:
        S4ecaError: a setting makes no sense.
    """

    def __init__(self, segments: int = 1500, compactness: float = 10.0, **screens: Any) -> None:
        super().__init__(**screens)
        if segments < 2 or compactness <= 0:
            raise S4ecaError(
                f"proposer.segments={segments} must be at least 2 and proposer.compactness={compactness} above 0."
            )
        self.segments, self.compactness = segments, float(compactness)

    def settings(self) -> dict[str, Any]:
        """Returns what `segment` depends on."""
        return {"slic": self.segments, "compactness": self.compactness}

    def segment(self, image: np.ndarray) -> list[np.ndarray]:
        """Returns one label map."""
        labels = slic(image, n_segments=self.segments, compactness=self.compactness, start_label=0)
        return [np.unique(labels, return_inverse=True)[1].reshape(labels.shape)]
