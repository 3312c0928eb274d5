"""Draws synthetic scenes seen from above: ground, shadows and things, with exact masks."""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from s4eca.data.synthetic.scenes import Scene, Thing

Points = list[tuple[float, float]]

_FINE = 3  # supersampling of the things
_SHIFT = 4  # fractional bits of OpenCV's polygon corners

_RGB = {
    "red": (196, 48, 42),
    "orange": (236, 142, 38),
    "green": (34, 150, 74),
    "blue": (42, 88, 200),
    "white": (240, 240, 236),
    "gray": (126, 128, 136),
}
_GROUNDS = ((172, 154, 120), (118, 124, 86), (142, 118, 90), (134, 142, 102), (158, 146, 128), (104, 112, 80))
_WATER = (62, 88, 104)
_ROAD = (112, 108, 104)
_PALE = (228, 226, 218)
_DARK = (44, 44, 50)
_SAND = (198, 168, 122)


@dataclass(frozen=True)
class Shape:
    """A thing's outline and what is drawn inside it, inside the unit circle; x is the long axis.

    Attributes:
        outline: polygons whose union is the thing.
        details: polygons with a factor on the thing's colour or a colour of their own.
    """

    outline: list[Points]
    details: list[tuple[Points, float | tuple[int, int, int]]] = field(default_factory=list)


def draw_scene(scene: Scene, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws a scene.

    Args:
        scene: what to draw.
        size: side of the picture in pixels.
        rng: for the ground and small variations; the things are where the scene says.

    Returns:
        The picture (size, size, 3) uint8 and the target's mask (size, size) bool: the pixels that it covers by at
        least half, its shadow not included.
    """
    margin = 4 + size // 16  # shadows and patches may reach over the border
    canvas = _draw_ground(size + 2 * margin, rng)
    patches = [_draw_thing(thing, size, margin, rng) for thing in scene.things]

    direction = rng.uniform(0, 2 * math.pi)
    for thing, (left, top, _, cover) in zip(scene.things, patches, strict=True):
        length = 0.16 * thing.radius * size
        x, y = left + round(length * math.cos(direction)), top + round(length * math.sin(direction))
        canvas[y : y + len(cover), x : x + len(cover)] *= 1 - 0.5 * cover[..., None]

    mask = np.zeros(canvas.shape[:2], dtype=bool)
    for number, (left, top, colour, cover) in enumerate(patches):
        rows, columns = slice(top, top + len(cover)), slice(left, left + len(cover))
        alpha = cover[..., None]
        canvas[rows, columns] = canvas[rows, columns] * (1 - alpha) + colour * alpha
        if number == scene.target:
            mask[rows, columns] = cover >= 0.5

    inside = slice(margin, margin + size)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * 4
    picture = np.clip(canvas[inside, inside] + grain, 0, 255).astype(np.uint8)
    return picture, mask[inside, inside]


def _draw_thing(
    thing: Thing, size: int, margin: int, rng: np.random.Generator
) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Returns left and top on the canvas, the colours (n, n, 3) and the covered share (n, n) of a thing's patch."""
    centre = np.array([thing.x, thing.y]) * size + margin
    half = math.ceil(thing.radius * size) + 1
    left, top = (int(value) - half for value in centre)
    turn = math.radians(thing.angle)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])

    def corners(points: Points) -> np.ndarray:
        placed = np.array(points) @ rotation.T * thing.radius * size + centre - (left, top)
        # OpenCV's integer coordinates are pixel centres
        return np.rint((placed * _FINE - 0.5) * 2**_SHIFT).astype(np.int32)

    shape = SHAPES[thing.kind]
    base = np.array(_RGB[thing.colour]) + rng.integers(-8, 9, size=3)
    side = 2 * half + 1
    cover = np.zeros((side * _FINE, side * _FINE), dtype=np.uint8)
    colour = np.empty((side * _FINE, side * _FINE, 3), dtype=np.uint8)
    colour[:] = np.clip(base, 0, 255)
    for polygon in shape.outline:
        cv2.fillPoly(cover, [corners(polygon)], 255, shift=_SHIFT)
    for polygon, tone in shape.details:
        paint = base * tone if isinstance(tone, float) else tone
        cv2.fillPoly(colour, [corners(polygon)], tuple(float(value) for value in paint), shift=_SHIFT)
    small = cv2.resize(colour, (side, side), interpolation=cv2.INTER_AREA)
    share = cv2.resize(cover, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return left, top, small, share


def _draw_ground(side: int, rng: np.random.Generator) -> np.ndarray:
    """Returns farmland with fields, roads and sometimes water: (side, side, 3) float32."""
    first, second = (np.array(_GROUNDS[number], dtype=np.float32) for number in rng.choice(len(_GROUNDS), 2, False))
    blend = _smooth_noise(rng, 5, side)[..., None]
    ground = np.ascontiguousarray(first * (1 - blend) + second * blend)
    for _ in range(rng.integers(2, 5)):
        _draw_field(ground, rng)
    ground += (_smooth_noise(rng, max(6, side // 8), side)[..., None] - 0.5) * 26
    if rng.random() < 0.35:
        angle = rng.uniform(0, 2 * math.pi)
        rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
        shore = (columns - 0.5) * math.cos(angle) + (rows - 0.5) * math.sin(angle)
        wet = np.clip((shore + 0.25 * _smooth_noise(rng, 5, side) - rng.uniform(0.25, 0.45)) * side / 3, 0, 1)[
            ..., None
        ]
        ripples = np.array(_WATER, dtype=np.float32) + 8 * _smooth_noise(rng, max(6, side // 5), side)[..., None]
        ground = ground * (1 - wet) + ripples * wet
    for _ in range(rng.integers(0, 3)):
        _draw_road(ground, rng)
    return ground


def _draw_field(ground: np.ndarray, rng: np.random.Generator) -> None:
    side = len(ground)
    angle, span = rng.uniform(0, math.pi), rng.uniform(0.2, 0.5, size=2) * side
    box = cv2.boxPoints((tuple(rng.uniform(0.1, 0.9, size=2) * side), tuple(span), math.degrees(angle)))
    tint = np.array(_GROUNDS[rng.integers(len(_GROUNDS))], dtype=np.float32)
    frequency = rng.uniform(120, 260) / side

    left, top = (int(value) for value in np.maximum(box.min(axis=0), 0))
    right, bottom = (min(side, math.ceil(value)) for value in box.max(axis=0))
    inside = np.zeros((bottom - top, right - left), dtype=np.uint8)
    cv2.fillPoly(inside, [np.rint(box - (left, top)).astype(np.int32)], 1)
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
    furrows = 5 * np.sin((columns * math.cos(angle) + rows * math.sin(angle)) * frequency)
    patch = ground[top:bottom, left:right]
    patch[:] = np.where(inside[..., None] > 0, 0.5 * patch + 0.5 * tint + furrows[..., None], patch)


def _draw_road(ground: np.ndarray, rng: np.random.Generator) -> None:
    side = len(ground)
    angle, middle = rng.uniform(0, math.pi), rng.uniform(0.15, 0.85, size=2) * side
    along = np.array([math.cos(angle), math.sin(angle)])
    width = rng.uniform(0.035, 0.06) * side
    for share, colour in ((1.25, _PALE), (1.0, _ROAD)):
        ends = [np.rint((middle + sign * 2 * side * along) * 16).astype(int) for sign in (-1, 1)]
        thickness = max(1, round(width * share))
        line = [tuple(int(value) for value in end) for end in ends]
        cv2.line(ground, line[0], line[1], colour, thickness, cv2.LINE_AA, shift=4)


def _smooth_noise(rng: np.random.Generator, cells: int, side: int) -> np.ndarray:
    """Returns noise between 0 and 1 that varies over `side / cells` pixels: (side, side) float32."""
    coarse = rng.random((cells, cells), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _arc(x: float, y: float, radius: float, start: float = 0, stop: float = 360) -> Points:
    angles = np.radians(np.linspace(start, stop, 37))
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def _turned(points: Points, degrees: float) -> Points:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cosine - y * sine, x * sine + y * cosine) for x, y in points]


def _mirrored(points: Points) -> Points:
    return [(x, -y) for x, y in points]


_WING: Points = [(0.24, 0.0), (-0.30, 0.92), (-0.52, 0.84), (-0.24, 0.0)]
_TAIL: Points = [(-0.62, 0.0), (-0.92, 0.36), (-0.99, 0.30), (-0.86, 0.0)]
_BLADE: Points = [(0.0, -0.12), (0.35, -0.24), (0.98, -0.10), (0.98, 0.06), (0.0, 0.12)]

SHAPES = {
    "ship": Shape(
        outline=[[(1, 0), (0.6, 0.27), (-0.9, 0.30), (-0.95, 0), (-0.9, -0.30), (0.6, -0.27)]],
        details=[
            ([(0.85, 0), (0.55, 0.19), (-0.82, 0.21), (-0.82, -0.21), (0.55, -0.19)], 0.82),
            (_box(-0.70, -0.16, -0.35, 0.16), _PALE),
            (_box(-0.15, -0.13, 0.10, 0.13), 0.60),
            (_box(0.22, -0.13, 0.46, 0.13), 0.60),
        ],
    ),
    "vehicle": Shape(
        outline=[[(0.9, 0.28), (0.78, 0.43), (-0.9, 0.43), (-0.9, -0.43), (0.78, -0.43), (0.9, -0.28)]],
        details=[(_box(0.22, -0.34, 0.46, 0.34), _DARK), (_box(-0.74, -0.32, -0.58, 0.32), _DARK)],
    ),
    "airplane": Shape(
        outline=[
            [(1, 0), (0.86, 0.12), (-0.9, 0.10), (-0.98, 0), (-0.9, -0.10), (0.86, -0.12)],
            _WING,
            _mirrored(_WING),
            _TAIL,
            _mirrored(_TAIL),
        ],
        details=[
            (_box(0.76, -0.08, 0.86, 0.08), _DARK),
            (_box(-0.16, 0.30, 0.10, 0.40), 0.6),
            (_box(-0.16, -0.40, 0.10, -0.30), 0.6),
        ],
    ),
    "storage tank": Shape(
        outline=[_arc(0, 0, 0.98)],
        details=[
            (_arc(0, 0, 0.98), 0.80),
            (_arc(0, 0, 0.86), 1.0),
            (_arc(0, 0, 0.14), 0.65),
            (_box(0.14, -0.05, 0.86, 0.05), 0.72),
        ],
    ),
    "tennis court": Shape(
        outline=[_box(-0.86, -0.50, 0.86, 0.50)],
        details=[
            (_box(-0.86, -0.50, 0.86, 0.50), 0.80),
            (_box(-0.68, -0.36, 0.68, 0.36), _PALE),
            (_box(-0.63, -0.31, -0.36, 0.31), 1.0),
            (_box(0.36, -0.31, 0.63, 0.31), 1.0),
            (_box(-0.31, -0.31, 0.31, -0.03), 1.0),
            (_box(-0.31, 0.03, 0.31, 0.31), 1.0),
            (_box(-0.03, -0.44, 0.03, 0.44), _DARK),
        ],
    ),
    "baseball field": Shape(
        outline=[[(-0.72, 0), *_arc(-0.72, 0, 1.38, -45, 45)]],
        details=[
            ([(-0.72, 0), *_arc(-0.72, 0, 0.72, -45, 45)], _SAND),
            ([(-0.54, 0), (-0.30, 0.24), (-0.06, 0), (-0.30, -0.24)], 1.0),
            (_arc(-0.30, 0, 0.06), _SAND),
        ],
    ),
    "windmill": Shape(
        outline=[_BLADE, _turned(_BLADE, 120), _turned(_BLADE, 240), _arc(0, 0, 0.26)],
        details=[(_arc(0, 0, 0.17), 0.6)],
    ),
    "chimney": Shape(
        outline=[[(-0.62, -0.34), (0.93, -0.22), (0.93, 0.22), (-0.62, 0.34)], _arc(-0.62, 0, 0.36)],
        details=[
            (_arc(-0.62, 0, 0.22), _DARK),
            (_box(0.10, -0.5, 0.30, 0.5), 0.62),
            (_box(0.55, -0.5, 0.75, 0.5), 0.62),
        ],
    ),
}
