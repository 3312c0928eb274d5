"""Augmentation of training samples; the only module that knows albumentations."""

import importlib.metadata
import os
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s4eca.errors import S4ecaError


@dataclass(frozen=True)
class Photometric:
    """Strengths of the photometric augmentation; 0 switches a part off, and all are 0 by default.

    Only what leaves the expression true is offered. There is no change of hue or saturation, since expressions name
    colours, and no flip, rotation or crop, since they say "left" and "upper".

    Attributes:
        brightness: largest shift, as a share of the full range.
        contrast: largest change of the contrast factor from 1.
        blur: largest standard deviation of a Gaussian, in pixels at model input size.
        noise: largest standard deviation of Gaussian noise, as a share of the full range.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        # beyond these a "gray" roof turns into a "white" one and a small object disappears
        limits = {"brightness": 0.3, "contrast": 0.3, "blur": 3.0, "noise": 0.2}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise S4ecaError(f"data.photometric.{name}={value} is out of range: choose a value from 0 to {limit}.")

    @property
    def active(self) -> bool:
        """Whether any part is on."""
        return any(astuple(self))


class Augmentation:
    """Applies `Photometric` so that the result is a function of (image, seed, epoch, index) alone."""

    def __init__(self, photometric: Photometric) -> None:
        self.photometric = photometric
        self._parts = _build(photometric)

    def __call__(
        self, image: Tensor, mask: Tensor, expression: str, seed: int, epoch: int, index: int
    ) -> tuple[Tensor, Tensor, str]:
        """Returns a changed copy of an image (3, S, S) uint8, its mask (S, S) bool and its expression."""
        array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        seeds = np.random.SeedSequence([seed, epoch, index]).generate_state(max(1, len(self._parts.transforms)))
        # one seed each: with a common one the noise would be strong exactly where the image is bright
        for part, part_seed in zip(self._parts.transforms, seeds, strict=False):
            part.set_random_seed(int(part_seed))
        result = self._parts(image=array)["image"]
        return torch.from_numpy(np.ascontiguousarray(result)).permute(2, 0, 1).contiguous(), mask, expression


def _build(photometric: Photometric) -> Any:
    """Returns the albumentations `Compose`; imported here because it costs seconds and most runs do without."""
    _refuse_albumentationsx()
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the package index at import otherwise
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)  # the loader's workers are the parallelism
    parts: list[Any] = []
    if photometric.brightness or photometric.contrast:
        parts.append(
            A.RandomBrightnessContrast(
                brightness_limit=photometric.brightness, contrast_limit=photometric.contrast, p=1.0
            )
        )
    if photometric.blur:
        parts.append(A.GaussianBlur(blur_limit=0, sigma_limit=(0.0, photometric.blur), p=1.0))
    if photometric.noise:
        parts.append(A.GaussNoise(std_range=(0.0, photometric.noise), mean_range=(0.0, 0.0), p=1.0))
    return A.Compose(parts)


def _refuse_albumentationsx() -> None:
    try:
        importlib.metadata.version("albumentationsx")
    except importlib.metadata.PackageNotFoundError:
        return
    raise S4ecaError(
        "The package albumentationsx (AGPL) takes the import name of albumentations:"
        " run `pip uninstall albumentationsx` and `pip install --force-reinstall albumentations==2.0.8`."
    )
