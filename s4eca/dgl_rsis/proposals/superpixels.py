"""Proposals without weights: superpixels and the unions of neighbouring ones, by scikit-image."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import torch
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb, slic
from torchvision.ops import nms

from s4eca.dgl_rsis.base import Proposer
from s4eca.dgl_rsis.parts import Proposals, View
from s4eca.dgl_rsis.proposals.merging import complete, merge_tree, objectness, region_boxes, window_of
from s4eca.dgl_rsis.proposals.screens import check_screens, nothing
from s4eca.errors import S4ecaError


class Superpixels(Proposer):
    """Segments of an image, all regions of their merge tree, scored by `objectness`; the best become proposals.

    Of regions whose boxes overlap the best is taken, and then made whole by `complete`. The settings were chosen on
    small objects, see `docs/dgl_rsis.md`.

    Args:
        max_side: the longer side at which it works, in pixels; smaller images stay as they are.
        min_area: fewest pixels of the image that a region has.
        max_share: largest share of the image.
        extent: least share of its box that a region fills.
        box_iou: most that the boxes of two proposals overlap.
        weight: of the scores, against other proposers' in a union.
        limit: most proposals.

    Raises:
        S4ecaError: a setting makes no sense.
    """

    def __init__(
        self,
        max_side: int = 800,
        min_area: int = 60,
        max_share: float = 0.25,
        extent: float = 0.3,
        box_iou: float = 0.2,
        weight: float = 1.0,
        limit: int = 100,
    ) -> None:
        super().__init__()
        if max_side < 16:
            raise S4ecaError(f"proposer.max_side={max_side} must be at least 16 pixels.")
        for name, value in (("extent", extent), ("box_iou", box_iou)):
            if not 0 <= value <= 1:
                raise S4ecaError(f"proposer.{name}={value} must lie between 0 and 1.")
        if weight <= 0:
            raise S4ecaError(f"proposer.weight={weight} must be above 0.")
        check_screens(min_area=min_area, max_share=max_share, max_components=None, nms_iou=1.0, limit=limit)
        self.max_side, self.min_area, self.max_share = max_side, min_area, max_share
        self.extent, self.box_iou, self.weight, self.limit = extent, box_iou, weight, limit

    def segment(self, image: np.ndarray) -> list[np.ndarray]:
        """Returns label maps (H, W) of an RGB image, numbered from 0 without gaps."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Returns what `segment` depends on."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Returns all settings and the versions of the libraries."""
        shared = ("max_side", "min_area", "max_share", "extent", "box_iou", "weight", "limit")
        return {
            "superpixels": 4,
            "libraries": [version("scikit-image"), cv2.__version__],
            **{name: getattr(self, name) for name in shared},
            **self.settings(),
        }

    def propose(self, view: View) -> Proposals:
        """Returns the best regions of the image."""
        height, width = view.size
        factor = min(1.0, self.max_side / max(height, width))
        small = (max(1, round(height * factor)), max(1, round(width * factor)))
        image = cv2.resize(view.image, small[::-1], interpolation=cv2.INTER_AREA) if factor < 1 else view.image
        colour = rgb2lab(image).astype(np.float32)
        trees = [merge_tree(labels, colour) for labels in self.segment(image)]
        places, boxes, scores = [], [], []
        for number, tree in enumerate(trees):
            around, areas = region_boxes(tree)
            sides = around[:, 2:] - around[:, :2]
            large = (areas >= self.min_area * factor**2) & (areas <= self.max_share * small[0] * small[1])
            for region in np.flatnonzero(large & (areas >= self.extent * sides.prod(axis=1))).tolist():
                window = window_of(around[region])
                places.append((number, region))
                boxes.append(around[region])
                scores.append(
                    objectness(tree.mask(region, window), int(areas[region]), colour[window], small[0] * small[1])
                )
        if not places:
            return nothing(view.size)
        corners, values = torch.tensor(np.stack(boxes), dtype=torch.float32), torch.tensor(scores)
        kept = nms(corners, values, self.box_iou)[: self.limit].tolist()
        masks = [complete(trees[number].mask(region)) for number, region in (places[place] for place in kept)]
        if factor < 1:
            masks = [
                cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
                for mask in masks
            ]
        best = self.weight * np.array([scores[place] for place in kept])
        return Proposals.from_masks(np.stack(masks), best, type(self).__name__.lower())


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
        self, scales: Sequence[float] = (200,), sigma: float = 0.5, min_size: int = 20, **screens: Any
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

    def __init__(self, segments: int = 4000, compactness: float = 10.0, **screens: Any) -> None:
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
