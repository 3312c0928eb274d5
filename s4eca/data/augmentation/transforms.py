"""Augmentation of training samples; the only module that knows albumentations."""

import importlib.metadata
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s4eca.data.augmentation.directions import TOPS, rewrite
from s4eca.data.augmentation.occlusion import is_occluded, occlude
from s4eca.data.augmentation.turns import Turn
from s4eca.errors import S4ecaError

# Beyond these a small object disappears, or grass no longer looks like grass. Within them a "gray" roof can still turn
# into a "white" one, so that light and colour change only where the expression names neither.
_LIMITS = {
    "horizontal_flip": 1.0,
    "vertical_flip": 1.0,
    "rotation": 1.0,
    "brightness": 0.3,
    "contrast": 0.3,
    "hue": 0.1,
    "saturation": 0.5,
    "blur": 3.0,
    "noise": 0.2,
    "occlusion": 1.0,
}
_COLOURS = re.compile(
    r"\b(?:red(?:d(?:er|est|ish))?|(?:blu|whit|pal|purpl|orang)(?:e|er|est|ish)"
    r"|(?:yellow|green|cyan|violet|magenta|pink|brown|beige|tan|cream|gold|golden|silver|black|gr[ae]y|turquoise|teal"
    r"|olive|maroon|navy|khaki|crimson|scarlet|ivory|amber|charcoal|indigo|lavender|burgundy|dark|light|bright|vivid)"
    r"(?:er|est|ish)?"
    r"|rust(?:y|ed)?|monochrom\w*|\w*colou?r\w*)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Augmentation:
    """Changes image, mask and expression of a training sample together; every part is off (0) by default.

    The result is a function of (image, mask, expression, seed, epoch, index) alone: neither workers nor the global
    random state nor earlier calls matter. What is offered leaves the expression true:

    - Flips and rotations rewrite its direction words (`rewrite`). Only turns that leave no doubt about the wording are
      drawn for a sample; one that allows none is not turned.
    - Brightness, contrast, hue and saturation change only where the expression names no colour or lightness ("gray",
      "darker than"), and little; blur and noise change everywhere.
    - Nothing is scaled or cropped, so that words for size ("small", "bigger than") and position stay true.

    Attributes:
        horizontal_flip: probability of exchanging left and right.
        vertical_flip: probability of exchanging top and bottom.
        rotation: probability of a rotation by 90°, 180° or 270°, each as likely; with both flips at 0.5 and 0.75 here
            all eight turns are equally likely.
        brightness: largest shift, as a share of the full range.
        contrast: largest change of the contrast factor from 1.
        hue: largest shift, as a share of the colour circle.
        saturation: largest change of the saturation factor from 1.
        blur: largest standard deviation of a Gaussian, in pixels at model input size.
        noise: largest standard deviation of Gaussian noise, as a share of the full range.
        occlusion: share of the samples that get RMSIN's black squares, see `occlude`; 0.2 there.
        turn_features: the vision tower sees the image upright, and its features are turned with the mask; for
            `model.feature_cache`, which then keeps one entry per image. A turned image has others.
        top: how the dataset names the place at the upper edge: "on the top" (RRSIS-D) or "at the top" (drawn scenes).

    Raises:
        S4ecaError: a value is no number or out of range, or another package has taken albumentations' import name.
    """

    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    occlusion: float = 0.0
    turn_features: bool = False
    top: str = "on the top"

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= limit:
                problem = "out of range" if number else "not a number"
                raise S4ecaError(f"data.augmentation.{name}={value} is {problem}: choose a value from 0 to {limit:g}.")
        if self.top not in TOPS:
            raise S4ecaError(f"data.augmentation.top={self.top!r} is unknown: choose one of {', '.join(TOPS)}.")
        if type(self.turn_features) is not bool:
            raise S4ecaError(f"data.augmentation.turn_features={self.turn_features} is neither true nor false.")
        if self.turn_features and (self.occlusion or any(self._photometric)):
            raise S4ecaError(
                "data.augmentation.turn_features=true keeps the features of an image as it is, and this augmentation "
                "changes more than its direction; leave flips and rotation alone switched on."
            )
        if any(self._photometric):
            _refuse_albumentationsx()

    @property
    def active(self) -> bool:
        """Whether any part is on."""
        return any(getattr(self, name) for name in _LIMITS)

    @property
    def _photometric(self) -> tuple[float, ...]:
        return (self.brightness, self.contrast, self.hue, self.saturation, self.blur, self.noise)

    def __call__(
        self, image: Tensor, mask: Tensor, expression: str, seed: int, epoch: int, index: int
    ) -> tuple[Tensor, Tensor, str, Turn]:
        """Augments a sample; its own tensors are left as they are.

        Args:
            image: (3, S, S) uint8.
            mask: (S, S) bool.
            expression: as the dataset has it.
            seed: of the run.
            epoch: another one gives other random values.
            index: the sample's position in the dataset.

        Returns:
            Image, mask and expression after the same turn, and that turn.
        """
        turn, words = self._draw_turn(expression, np.random.default_rng([seed, epoch, index, 1]))
        if turn is not Turn.IDENTITY:
            image, mask = turn.pixels(image), turn.pixels(mask)
        if any(self._photometric):
            image = self._change_light(image, expression, np.random.SeedSequence([seed, epoch, index]))
        # last, so that the squares are black whatever the light
        if self.occlusion and is_occluded(self.occlusion, seed, index):
            image = occlude(image, seed, epoch, index)
        return image, mask, words, turn

    def wordings(self, expression: str) -> list[str]:
        """Returns every sentence that an expression may be rewritten to; itself alone where nothing is turned."""
        turns = _chances(self.horizontal_flip, self.vertical_flip, self.rotation)
        words = [rewrite(expression, turn, self.top) for turn in turns]
        return list(dict.fromkeys([expression, *(text for text in words if text is not None)]))

    def _draw_turn(self, expression: str, rng: np.random.Generator) -> tuple[Turn, str]:
        """Draws among the turns whose wording is certain, in proportion to their probabilities."""
        chances = dict(_chances(self.horizontal_flip, self.vertical_flip, self.rotation))
        while chances:
            turns, weights = list(chances), np.array(list(chances.values()))
            turn = turns[rng.choice(len(turns), p=weights / weights.sum())]
            words = rewrite(expression, turn, self.top)
            if words is not None:
                return turn, words
            del chances[turn]  # the others keep their proportions
        return Turn.IDENTITY, expression

    def _change_light(self, image: Tensor, expression: str, sequence: np.random.SeedSequence) -> Tensor:
        array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        parts = _build_parts(*self._photometric)
        # one seed each: with a common one the noise would be strong exactly where the image is bright
        for (name, part), part_seed in zip(parts.items(), sequence.generate_state(len(parts)), strict=True):
            if name in ("light", "colour") and _COLOURS.search(expression):
                continue
            part.set_random_seed(int(part_seed))
            array = part(image=array)["image"]
        return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1).contiguous()


@cache
def _chances(horizontal_flip: float, vertical_flip: float, rotation: float) -> dict[Turn, float]:
    """Returns the probability of each turn; one that cannot happen is left out."""
    chances: dict[Turn, float] = defaultdict(float)
    rotations = {Turn.IDENTITY: 1 - rotation}
    rotations |= dict.fromkeys((Turn.ROTATE_90, Turn.ROTATE_180, Turn.ROTATE_270), rotation / 3)
    for across, chance_across in ((Turn.IDENTITY, 1 - horizontal_flip), (Turn.HORIZONTAL_FLIP, horizontal_flip)):
        for down, chance_down in ((Turn.IDENTITY, 1 - vertical_flip), (Turn.VERTICAL_FLIP, vertical_flip)):
            for rotated, chance in rotations.items():
                chances[across.then(down).then(rotated)] += chance_across * chance_down * chance
    return {turn: chance for turn, chance in chances.items() if chance}


@cache
def _build_parts(
    brightness: float, contrast: float, hue: float, saturation: float, blur: float, noise: float
) -> dict[str, Any]:
    """Returns the albumentations transforms; imported here because it costs seconds and most runs do without."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the package index at import otherwise
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)  # the loader's workers are the parallelism
    parts: dict[str, Any] = {}
    if brightness or contrast:
        parts["light"] = A.RandomBrightnessContrast(brightness_limit=brightness, contrast_limit=contrast, p=1.0)
    if hue or saturation:
        steady = (1.0, 1.0)
        parts["colour"] = A.ColorJitter(brightness=steady, contrast=steady, saturation=saturation, hue=hue, p=1.0)
    if blur:
        parts["blur"] = A.GaussianBlur(blur_limit=0, sigma_limit=(0.0, blur), p=1.0)
    if noise:
        parts["noise"] = A.GaussNoise(std_range=(0.0, noise), mean_range=(0.0, 0.0), p=1.0)
    return parts


def _refuse_albumentationsx() -> None:
    try:
        importlib.metadata.version("albumentationsx")
    except importlib.metadata.PackageNotFoundError:
        return
    raise S4ecaError(
        "The package albumentationsx (AGPL) takes the import name of albumentations:"
        " run `pip uninstall albumentationsx` and `pip install --force-reinstall albumentations==2.0.8`."
    )
