"""How a mask was found, in pictures: the proposals, the activation map, and what was chosen."""

import colorsys

import matplotlib
import numpy as np
from PIL import Image

from s4eca.dgl_rsis.grounding.activation import upsample
from s4eca.dgl_rsis.parts import Proposals, Selection
from s4eca.evaluation.pictures import PREDICTION, TRUTH, paint

GOLDEN = 0.618034  # steps of this size around the colour wheel never come close to an earlier one


def draw_steps(
    image: np.ndarray, truth: np.ndarray | None, proposals: Proposals, selection: Selection
) -> dict[str, Image.Image]:
    """Draws the stages of one expression.

    Args:
        image: (H, W, 3) uint8.
        truth: (H, W) bool, outlined where it is given.
        proposals: of the image.
        selection: of the expression.

    Returns:
        RGB pictures (H, W) by title.
    """
    picture = Image.fromarray(image)
    outlined = picture if truth is None else paint(picture, truth, TRUTH)
    return {
        f"{len(proposals)} proposals": draw_proposals(picture, proposals),
        "activation": draw_activation(outlined, selection.activation),
        "chosen": paint(picture, selection.mask, PREDICTION),
    }


def draw_proposals(picture: Image.Image, proposals: Proposals) -> Image.Image:
    """Tints every mask in a colour of its own, the smaller ones over the larger."""
    colours = np.asarray(picture, np.float32)
    for number, place in enumerate(np.argsort(-proposals.areas, kind="stable").tolist()):
        colour = 255 * np.array(colorsys.hsv_to_rgb((number * GOLDEN) % 1, 0.75, 1.0), np.float32)
        mask = proposals.mask(place)
        colours[mask] = 0.6 * colours[mask] + 0.4 * colour
        edge = mask & ~_shrunk(mask)
        colours[edge] = colour
    return Image.fromarray(colours.clip(0, 255).astype(np.uint8))


def draw_activation(picture: Image.Image, activation: np.ndarray) -> Image.Image:
    """Lays an activation map (rows, columns) in [0, 1] over the picture, from transparent blue to red."""
    values = np.clip(upsample(activation, (picture.height, picture.width)), 0, 1)
    heat = 255 * matplotlib.colormaps["turbo"](values)[..., :3]
    strength = (0.15 + 0.5 * values)[..., None]
    mixed = (1 - strength) * np.asarray(picture, np.float32) + strength * heat
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def _shrunk(mask: np.ndarray) -> np.ndarray:
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner
