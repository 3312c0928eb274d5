"""Proposals without weights: superpixels and the unions of neighbouring ones, by scikit-image."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from s4eca.dgl_rsis.proposals.joining import hull_of, join_parts
from s4eca.dgl_rsis.proposals.merging import Tree, complete, merge_tree, objectness, region_boxes, window_of
from s4eca.dgl_rsis.proposals.screens import check_screens, nothing
from s4eca.errors import S4ecaError

_CANDIDATES = 4  # times the limit: regions among which the parts of objects are looked for


@dataclass(frozen=True, eq=False)
class _Region:
    """One region of a merge tree, its box x0, y0, x1, y1 and its pixels."""

    tree: Tree
    number: int
    box: np.ndarray
    area: int

    def mask(self) -> np.ndarray:
        return self.tree.mask(self.number)

    def hull(self) -> np.ndarray:
        x0, y0, x1, y1 = self.box.tolist()
        return hull_of(self.tree.mask(self.number, (slice(y0, y1), slice(x0, x1))), (x0, y0))


class Superpixels(Proposer):
    """Segments of an image, all regions of their merge tree, scored by `objectness`; the best become proposals.

    Of regions whose boxes overlap the best is taken, joined with the part at its end (`join_parts`) and made whole by
    `complete`. The settings were chosen on small objects, see `docs/dgl_rsis.md`.

    Args:
        max_side: the longer side at which it works, in pixels; smaller images stay as they are.
        min_area: fewest pixels of the image that a region has.
        max_share: largest share of the image.
        extent: least share of its box that a region fills.
        box_iou: most that the boxes of two regions overlap.
        gap: widest gap between a region and the part at its end, as a share of the region's width.
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
        gap: float = 0.5,
        weight: float = 1.0,
        limit: int = 100,
    ) -> None:
        super().__init__()
        if max_side < 16:
            raise S4ecaError(f"proposer.max_side={max_side} must be at least 16 pixels.")
        for name, value in (("extent", extent), ("box_iou", box_iou)):
            if not 0 <= value <= 1:
                raise S4ecaError(f"proposer.{name}={value} must lie between 0 and 1.")
        if gap < 0:
            raise S4ecaError(f"proposer.gap={gap} must not be negative.")
        if weight <= 0:
            raise S4ecaError(f"proposer.weight={weight} must be above 0.")
        check_screens(min_area=min_area, max_share=max_share, max_components=None, nms_iou=1.0, limit=limit)
        self.max_side, self.min_area, self.max_share = max_side, min_area, max_share
        self.extent, self.box_iou, self.gap, self.weight, self.limit = extent, box_iou, gap, weight, limit

    def segment(self, image: np.ndarray) -> list[np.ndarray]:
        """Returns label maps (H, W) of an RGB image, numbered from 0 without gaps."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Returns what `segment` depends on."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Returns all settings and the versions of the libraries."""
        shared = ("max_side", "min_area", "max_share", "extent", "box_iou", "gap", "weight", "limit")
        return {
            "superpixels": 5,
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
        regions: list[_Region] = []
        scores: list[float] = []
        for labels in self.segment(image):
            tree = merge_tree(labels, colour)
            around, areas = region_boxes(tree)
            sides = around[:, 2:] - around[:, :2]
            large = (areas >= self.min_area * factor**2) & (areas <= self.max_share * small[0] * small[1])
            for number in np.flatnonzero(large & (areas >= self.extent * sides.prod(axis=1))).tolist():
                region = _Region(tree, number, around[number], int(areas[number]))
                window = window_of(region.box)
                regions.append(region)
                scores.append(objectness(tree.mask(number, window), region.area, colour[window], small[0] * small[1]))
        if not regions:
            return nothing(view.size)
        corners = torch.tensor(np.stack([region.box for region in regions]), dtype=torch.float32)
        best = nms(corners, torch.tensor(scores), self.box_iou)[: _CANDIDATES * self.limit].tolist()
        values, areas = np.array(scores)[best], np.array([regions[place].area for place in best])
        objects = join_parts([regions[place].hull() for place in best], areas, values, self.limit, self.gap)
        masks = [_whole([regions[best[member]] for member in members]) for members in objects]
        if factor < 1:
            masks = [
                cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
                for mask in masks
            ]
        values = self.weight * values[[members[0] for members in objects]]
        return Proposals.from_masks(np.stack(masks), values, type(self).__name__.lower())


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


def _whole(members: list[_Region]) -> np.ndarray:
    """Returns the mask of an object: completed, and of several regions the hull, which closes the gap between them."""
    joined = np.logical_or.reduce([member.mask() for member in members])
    return complete(joined) if len(members) == 1 else complete(joined, solidity=0.0)
