"""Expressions that are true of exactly one instance of an image, by stated margins.

Centres are shares of the image's width and height, y downwards. A name stands for all whose words end in it: "the
vehicle" is true of a small vehicle too.
"""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from s4eca.data.augmentation.directions import rewrite
from s4eca.data.augmentation.turns import Turn
from s4eca.data.synthetic.scenes import PLACES
from s4eca.errors import S4ecaError

KINDS = ("class", "place", "extreme", "size", "ordinal", "relation")

_EXTREMES = {"leftmost": ("x", 1), "rightmost": ("x", -1), "topmost": ("y", 1), "bottommost": ("y", -1)}
_ORDINALS = ("second", "third", "fourth")
_SIDES = {"left": "x", "top": "y"}
_RELATIONS = {"above": (0, -1), "below": (0, 1), "on the left of": (-1, 0), "on the right of": (1, 0)}


@dataclass(frozen=True)
class Margins:
    """By how much an expression is true of its target and untrue of everything else.

    Attributes:
        place: how far the target's centre is inside its ninth of the image, and the others' outside of it; a share.
        extreme: between the outermost centre and the next, a share.
        ordinal: between neighbouring centres, from the first to the one after the target; a share.
        size: the larger area over the smaller.
        relation: how far the target's centre is on its side of the other's, a share; no other of its class is there.
        closest: the second smallest distance over the smallest.

    Raises:
        S4ecaError: a share is not above 0, or a ratio not above 1.
    """

    place: float = 0.04
    extreme: float = 0.05
    ordinal: float = 0.04
    size: float = 1.4
    relation: float = 0.08
    closest: float = 1.4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 1 if name in ("size", "closest") else 0
            if not value > least:
                raise S4ecaError(f"The margin {name}={value} leaves open what is meant: set it above {least}.")


@dataclass(frozen=True, slots=True)
class Instance:
    """What is said about an instance goes by this.

    Attributes:
        id: of its annotation.
        name: of its class, as words.
        x: of its mask's centre of gravity.
        y: see `x`.
        area: of its mask, in pixels.
        cut: it reaches the image's border, so that its size is not known.
    """

    id: Any
    name: str
    x: float
    y: float
    area: int
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Expression:
    """A sentence, its kind (one of `KINDS`) and the one instance that it is true of."""

    target: Instance
    kind: str
    text: str


Said = Iterator[tuple[Instance, str]]


def describe(
    instances: Sequence[Instance],
    barred: Collection[str] = (),
    aspect: float = 1.0,
    margins: Margins | None = None,
) -> list[Expression]:
    """Returns every expression of the grammar that is true of one instance alone.

    - class: "the ship", of the only one.
    - place: "the ship on the upper left", one of nine.
    - extreme: "the leftmost ship", rightmost, topmost, bottommost.
    - size: "the largest ship", smallest; not where one of the class is cut by the image's border.
    - ordinal: "the second ship from the left", third, fourth, from the top; never the last.
    - relation: "the ship above the harbor", below, on the left of, on the right of, closest to; the harbor is the only
      one. Above is within 45 degrees of straight above, and no other ship's centre is higher than the harbor's.

    All but the first are said of classes with several instances, where the words decide.

    Args:
        instances: of one image.
        barred: names of classes that nothing is said about, since not all of their instances are known.
        aspect: the image's width over its height; distances and angles have to hold in pixels as well as in shares, as
            images are resized to squares.
        margins: the default ones where it is None.
    """
    margins = margins or Margins()
    certain = {
        name: [item for item in instances if is_a(item.name, name)]
        for name in dict.fromkeys(item.name for item in instances)
        if not any(is_a(other, name) for other in barred)
    }
    anchors = [members[0] for members in certain.values() if len(members) == 1]
    found = []
    for name, members in certain.items():
        if len(members) == 1:
            said: dict[str, Said] = {"class": iter([(members[0], f"the {name}")])}
        else:
            said = {
                "place": _places(members, name, margins.place),
                "extreme": _extremes(members, name, margins.extreme),
                "size": _sizes(members, name, margins.size),
                "ordinal": _ordinals(members, name, margins.ordinal),
                "relation": _relations(members, name, anchors, aspect, margins),
            }
        found += [
            Expression(target, kind, text)
            for kind, pairs in said.items()
            for target, text in pairs
            if target.name == name
        ]
    return found


def is_a(name: str, other: str) -> bool:
    """Returns whether what has a name may be called by another one: a small vehicle is a vehicle."""
    return f" {name}".endswith(f" {other}")


def words_of(category: str) -> str:
    """Returns a category's name as words in lower case: "storage tank" for `Storage_tank` and `storage-tank`."""
    return " ".join(re.split(r"[\s_-]+", category.strip(" \t\n_-"))).lower()


def is_plain(name: str) -> bool:
    """Returns whether a name is one that no turn of the image changes; "upper deck" is not, nor is one beyond ASCII."""
    said = f"the {name}"
    return bool(name) and all(rewrite(said, turn) == said for turn in Turn)


def is_turnable(text: str) -> bool:
    """Returns whether an expression can be rewritten for every flip and quarter turn.

    "The bridge above the road" cannot, since it may mean the higher one.
    """
    return all(rewrite(text, turn) is not None for turn in Turn)


def _places(members: Sequence[Instance], name: str, margin: float) -> Said:
    for item in members:
        row, column = min(2, int(item.y * 3)), min(2, int(item.x * 3))
        depths = {other.id: _depth(other, row, column) for other in members}
        if depths.pop(item.id) >= margin and all(depth <= -margin for depth in depths.values()):
            yield item, f"the {name} {PLACES[row][column]}"


def _depth(item: Instance, row: int, column: int) -> float:
    """Returns how far a centre is inside a ninth of the image, negative where it is outside."""
    sides = [(item.x, column), (item.y, row)]
    lower = [value - place / 3 for value, place in sides if place > 0]
    upper = [(place + 1) / 3 - value for value, place in sides if place < 2]
    return min(lower + upper)


def _extremes(members: Sequence[Instance], name: str, margin: float) -> Said:
    for word, (axis, sign) in _EXTREMES.items():
        first, second = _sorted(members, axis, sign)[:2]
        if sign * (getattr(second, axis) - getattr(first, axis)) >= margin:
            yield first, f"the {word} {name}"


def _sizes(members: Sequence[Instance], name: str, ratio: float) -> Said:
    if any(item.cut for item in members):
        return
    order = _sorted(members, "area")
    if order[-1].area >= ratio * order[-2].area:
        yield order[-1], f"the largest {name}"
    if order[1].area >= ratio * order[0].area:
        yield order[0], f"the smallest {name}"


def _ordinals(members: Sequence[Instance], name: str, margin: float) -> Said:
    for side, axis in _SIDES.items():
        order = _sorted(members, axis)
        steps = [getattr(after, axis) - getattr(before, axis) for before, after in pairwise(order)]
        for place, word in enumerate(_ORDINALS, start=1):
            if place < len(steps) and min(steps[: place + 1]) >= margin:
                yield order[place], f"the {word} {name} from the {side}"


def _relations(
    members: Sequence[Instance], name: str, anchors: Sequence[Instance], aspect: float, margins: Margins
) -> Said:
    for anchor in anchors:
        if anchor in members:
            continue
        for word, (x, y) in _RELATIONS.items():
            ahead = [item for item in members if _along(anchor, item, x, y) > 0]
            if len(ahead) == 1 and _along(anchor, ahead[0], x, y) >= margins.relation:
                across = abs(_along(anchor, ahead[0], y, x)) * max(1.0, 1 / aspect if x else aspect)
                if across <= _along(anchor, ahead[0], x, y):
                    yield ahead[0], f"the {name} {word} the {anchor.name}"
        nearest = min(members, key=lambda item: _distance(anchor, item, 1.0))
        if all(
            _distance(anchor, other, scale) > margins.closest * _distance(anchor, nearest, scale)
            for other in members
            for scale in (1.0, aspect)
            if other is not nearest
        ):
            yield nearest, f"the {name} closest to the {anchor.name}"


def _along(origin: Instance, item: Instance, x: int, y: int) -> float:
    """Returns how far an instance is from another in a direction."""
    return (item.x - origin.x) * x + (item.y - origin.y) * y


def _distance(origin: Instance, item: Instance, aspect: float) -> float:
    return math.hypot((item.x - origin.x) * aspect, item.y - origin.y)


def _sorted(members: Sequence[Instance], key: str, sign: int = 1) -> list[Instance]:
    return sorted(members, key=lambda item: sign * getattr(item, key))
