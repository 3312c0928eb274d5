"""Synthetic scenes as lists of things, and expressions in RRSIS-D's grammar that single one of them out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from s4eca.wording import indefinite

T = TypeVar("T")

COLOURS = ("red", "orange", "green", "blue", "white", "gray")
SIZES = ("small", "large")

# Radius of the circle around a thing, as a share of the image side; it makes small things cover about 3 % of the
# image and large ones about 8 %, whatever their shape.
RADII = {
    "ship": (0.186, 0.297),
    "vehicle": (0.142, 0.235),
    "airplane": (0.191, 0.304),
    "storage tank": (0.113, 0.191),
    "tennis court": (0.142, 0.235),
    "baseball field": (0.154, 0.249),
    "windmill": (0.191, 0.297),
    "chimney": (0.174, 0.275),
}
KINDS = tuple(RADII)

PLACES = (
    ("on the upper left", "at the top", "on the upper right"),
    ("on the left", "in the middle", "on the right"),
    ("on the lower left", "at the bottom", "on the lower right"),
)

# By direction in steps of 45°, counter-clockwise from the right.
RELATIONS = (
    "on the right of",
    "on the upper right of",
    "above",
    "on the upper left of",
    "on the left of",
    "on the lower left of",
    "below",
    "on the lower right of",
)

# Centres keep this far from the lines between two places and directions from the line between two relations, so that a
# person would not argue about the word.
_PLACE_MARGIN = 0.03
_ANGLE_MARGIN = 6.0
_GAP = 0.015

_FORMS = {"attribute": 0.6, "place": 0.3, "relation": 0.1}
# Which of size and colour an expression names, and how often; the size stands first as in "large red ship".
_ATTRIBUTES = {("colour",): 0.75, ("size",): 0.1, ("size", "colour"): 0.15}
_PLACE_ATTRIBUTES: dict[tuple[str, ...], float] = {(): 0.3, ("colour",): 0.5, ("size",): 0.05, ("size", "colour"): 0.15}
_RELATION_ATTRIBUTES: dict[tuple[str, ...], float] = {(): 0.7, ("colour",): 0.3}


@dataclass(frozen=True)
class Thing:
    """One object of a scene; lengths are shares of the image side, y points down, the angle is in degrees."""

    kind: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    angle: float

    @property
    def place(self) -> str:
        """The ninth of the image that holds the centre, in words."""
        return PLACES[min(2, int(self.y * 3))][min(2, int(self.x * 3))]

    def words(self, attributes: tuple[str, ...]) -> str:
        """The class name with the chosen attributes before it."""
        return " ".join([*(getattr(self, name) for name in attributes), self.kind])


@dataclass(frozen=True)
class Description:
    """What an expression says of its target, without the words that depend on where the things are.

    Attributes:
        article: `The` or `A`; the latter is written `An` before a vowel.
        attributes: which of size and colour are named.
        form: `attribute`, `place` or `relation`.
        anchor: number of the thing that a relation leads to, with its own place.
    """

    article: str
    attributes: tuple[str, ...]
    form: str
    anchor: int | None = None


@dataclass(frozen=True)
class Scene:
    """Things that do not overlap, and an expression that is true of `things[target]` alone."""

    things: tuple[Thing, ...]
    target: int
    expression: str
    description: Description


def plan_scene(rng: np.random.Generator) -> Scene:
    """Draws a scene of three to five things and an expression for one of them.

    Few classes share a scene, so that each is there more than once: the target's class always names another thing
    too, and only the other words of the expression decide.
    """
    while True:
        things = _place_things(rng)
        if len(things) < 3:
            continue
        options = _describe(things, rng)
        if options is not None:
            target, description = options
            return Scene(things, target, express(things, target, description), description)


def express(things: Sequence[Thing], target: int, description: Description) -> str:
    """Returns the expression of a description, with places and relations as the things' positions have them."""
    thing, attributes = things[target], description.attributes
    if description.form == "place":
        words = _placed(thing, attributes)
    elif description.anchor is not None:
        words = _related(thing, attributes, things[description.anchor])
    else:
        words = thing.words(attributes)
    said = indefinite(words) if description.article == "A" else f"{description.article} {words}"
    return said[0].upper() + said[1:]


def _place_things(rng: np.random.Generator) -> tuple[Thing, ...]:
    kinds = rng.choice(KINDS, size=rng.integers(1, 3), replace=False)
    colours = rng.choice(COLOURS, size=rng.integers(3, 5), replace=False)
    things: list[Thing] = []
    for _ in range(rng.integers(3, 6)):
        kind, colour = str(rng.choice(kinds)), str(rng.choice(colours))
        sizes = ("large", "small") if rng.random() < 0.5 else ("small",)
        thing = next((thing for size in sizes if (thing := _find_room(rng, kind, colour, size, things))), None)
        if thing is not None:
            things.append(thing)
    return tuple(things)


def _find_room(rng: np.random.Generator, kind: str, colour: str, size: str, others: list[Thing]) -> Thing | None:
    radius = RADII[kind][SIZES.index(size)] * rng.uniform(0.96, 1.04)
    for x, y in rng.uniform(radius + 0.01, 0.99 - radius, size=(40, 2)):
        if any(abs(value - line) < _PLACE_MARGIN for value in (x, y) for line in (1 / 3, 2 / 3)):
            continue
        if all(math.hypot(x - other.x, y - other.y) > radius + other.radius + _GAP for other in others):
            return Thing(kind, colour, size, float(x), float(y), float(radius), float(rng.uniform(0, 360)))
    return None


def _describe(things: tuple[Thing, ...], rng: np.random.Generator) -> tuple[int, Description] | None:
    """Returns a target and its description, None where none of any form singles a thing out."""
    listings = {"attribute": _by_attribute, "place": _by_place, "relation": _by_relation}
    tables = {"attribute": _ATTRIBUTES, "place": _PLACE_ATTRIBUTES, "relation": _RELATION_ATTRIBUTES}
    for form in _shuffled(_FORMS, rng):
        for attributes in _shuffled(tables[form], rng):
            options = [option for option in listings[form](things, attributes) if _has_rival(things, option[0])]
            if options:
                target, anchor = options[rng.integers(len(options))]
                return target, Description(str(rng.choice(["The", "A"])), attributes, form, anchor)
    return None


def _placed(thing: Thing, attributes: tuple[str, ...]) -> str:
    return f"{thing.words(attributes)} {thing.place}"


def _related(thing: Thing, attributes: tuple[str, ...], anchor: Thing) -> str:
    return f"{thing.words(attributes)} is {RELATIONS[_sector(anchor, thing)]} the {_placed(anchor, ())}"


def _by_attribute(things: tuple[Thing, ...], attributes: tuple[str, ...]) -> Iterator[tuple[int, int | None]]:
    for number, thing in enumerate(things):
        if [other.words(attributes) for other in things].count(thing.words(attributes)) == 1:
            yield number, None


def _by_place(things: tuple[Thing, ...], attributes: tuple[str, ...]) -> Iterator[tuple[int, int | None]]:
    phrases = [_placed(thing, attributes) for thing in things]
    for number, phrase in enumerate(phrases):
        if phrases.count(phrase) == 1:
            yield number, None


def _by_relation(things: tuple[Thing, ...], attributes: tuple[str, ...]) -> Iterator[tuple[int, int | None]]:
    for anchor_number, _ in _by_place(things, ()):
        anchor = things[anchor_number]
        for number, thing in enumerate(things):
            if number == anchor_number:
                continue
            sector = _sector(anchor, thing)
            rivals = [
                other
                for other in things
                if other not in (thing, anchor)
                and other.words(attributes) == thing.words(attributes)
                and _off(anchor, other, sector) < 22.5 + _ANGLE_MARGIN
            ]
            if not rivals and _off(anchor, thing, sector) < 22.5 - _ANGLE_MARGIN:
                yield number, anchor_number


def _sector(origin: Thing, thing: Thing) -> int:
    """Returns which of `RELATIONS` holds between a thing and where it is seen from."""
    return round(_direction(origin, thing) / 45) % 8


def _direction(origin: Thing, thing: Thing) -> float:
    """Returns the direction from one centre to the other, in degrees counter-clockwise from the right."""
    return math.degrees(math.atan2(origin.y - thing.y, thing.x - origin.x)) % 360


def _off(origin: Thing, thing: Thing, sector: int) -> float:
    """Returns by how many degrees a thing is off the middle of a relation's sector."""
    difference = abs(_direction(origin, thing) - 45 * sector) % 360
    return min(difference, 360 - difference)


def _has_rival(things: tuple[Thing, ...], target: int) -> bool:
    return sum(thing.kind == things[target].kind for thing in things) > 1


def _shuffled(weights: Mapping[T, float], rng: np.random.Generator) -> list[T]:
    """Returns the keys in random order, heavier ones more often first."""
    keys = list(weights)
    shares = np.array(list(weights.values()))
    return [keys[number] for number in rng.choice(len(keys), size=len(keys), replace=False, p=shares / shares.sum())]
