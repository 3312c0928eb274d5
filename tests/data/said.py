"""An independent reading of generated expressions: what a sentence says, held against where the things are."""

import math
import re
from dataclasses import dataclass
from itertools import pairwise

SLACK = 1e-9
NAMES = ("small vehicle", "vehicle", "storage tank", "ship", "bridge", "harbor")
NAME = rf"({'|'.join(NAMES)})"
CELLS = {
    "on the upper left": (0, 0), "on the top": (1, 0), "at the top": (1, 0), "on the upper right": (2, 0),
    "on the left": (0, 1), "in the middle": (1, 1), "on the right": (2, 1),
    "on the lower left": (0, 2), "at the bottom": (1, 2), "on the lower right": (2, 2),
}  # fmt: skip
AHEAD = {"above": (0, -1), "below": (0, 1), "on the left of": (-1, 0), "on the right of": (1, 0)}
ORDER = {"second": 2, "third": 3, "fourth": 4}
# from where things are counted, and which way they get larger
SIDES = {"left": (1, 0), "right": (-1, 0), "top": (0, 1), "bottom": (0, -1)}


@dataclass(frozen=True)
class Thing:
    id: int
    name: str
    x: float
    y: float
    area: int = 100
    cut: bool = False

    def turned(self, turn):
        return Thing(self.id, self.name, *turn.point(self.x, self.y), self.area, self.cut)


def called(things, words):
    """Everything that may be called so: a small vehicle is a vehicle."""
    wanted = words.split()
    return [thing for thing in things if thing.name.split()[-len(wanted) :] == wanted]


def check(text, target, things, margins, barred=(), aspect=1.0):
    """Asserts that a sentence is true of one thing alone, by the margins; returns the kind of the sentence."""
    for kind, (pattern, reading) in GRAMMAR.items():
        match = re.fullmatch(pattern, text)
        if match:
            name = match.group("name") if "name" in match.groupdict() else match.group(1)
            assert target.name == name, (text, target)
            assert not [one for one in barred if one.split()[-len(name.split()) :] == name.split()], text
            members = called(things, name)
            others = [thing for thing in members if thing.id != target.id]
            assert len(others) == len(members) - 1, text
            assert bool(others) == (kind != "class"), (text, "words that decide nothing")
            reading(match, target, others, things, margins, barred, aspect)
            return kind
    raise AssertionError(f"{text!r} is no sentence of the grammar")


def read_class(match, target, others, *_):
    assert not others


def read_place(match, target, others, things, margins, barred, aspect):
    column, row = CELLS[match["place"]]
    # how far a centre can go before it is in (negative: out of) another ninth; the image's edge is no limit
    borders = [(-math.inf, 1 / 3), (1 / 3, 2 / 3), (2 / 3, math.inf)]

    def inside(thing):
        (left, right), (top, bottom) = borders[column], borders[row]
        return min(thing.x - left, right - thing.x, thing.y - top, bottom - thing.y)

    assert inside(target) >= margins.place - SLACK
    assert all(inside(thing) <= -margins.place + SLACK for thing in others)


def place_along(thing, side):
    x, y = SIDES[side]
    return thing.x * x + thing.y * y


def read_extreme(match, target, others, things, margins, barred, aspect):
    own = place_along(target, match["side"])
    assert all(place_along(thing, match["side"]) - own >= margins.extreme - SLACK for thing in others)


def read_size(match, target, others, things, margins, barred, aspect):
    assert not any(thing.cut for thing in [target, *others])
    for thing in others:
        larger, smaller = (target, thing) if match["size"] == "largest" else (thing, target)
        assert larger.area / smaller.area >= margins.size - SLACK


def read_ordinal(match, target, others, things, margins, barred, aspect):
    number, side = ORDER[match["number"]], match["side"]
    line = sorted(place_along(thing, side) for thing in [target, *others])
    assert line.index(place_along(target, side)) == number - 1
    assert len(line) > number
    assert all(after - before >= margins.ordinal - SLACK for before, after in pairwise(line[: number + 1]))


def the_only(things, name, barred):
    assert not [one for one in barred if one.split()[-len(name.split()) :] == name.split()]
    (found,) = called(things, name)
    return found


def read_relation(match, target, others, things, margins, barred, aspect):
    anchor = the_only(things, match["other"], barred)
    assert anchor not in [target, *others]
    x, y = AHEAD[match["relation"]]
    for scale in (1.0, aspect):  # as resized to a square, and as in the file
        across, down = (target.x - anchor.x) * scale, target.y - anchor.y
        angle = math.degrees(math.acos((across * x + down * y) / math.hypot(across, down)))
        assert angle <= 45 + 1e-5
    assert (target.x - anchor.x) * x + (target.y - anchor.y) * y >= margins.relation - SLACK
    assert all((thing.x - anchor.x) * x + (thing.y - anchor.y) * y <= SLACK for thing in others)


def read_closest(match, target, others, things, margins, barred, aspect):
    anchor = the_only(things, match["other"], barred)
    assert anchor not in [target, *others]
    for scale in (1.0, aspect):
        far = [math.hypot((thing.x - anchor.x) * scale, thing.y - anchor.y) for thing in [target, *others]]
        assert all(distance > 0 and distance >= margins.closest * far[0] - SLACK for distance in far[1:])


GRAMMAR = {
    "class": (f"the {NAME}", read_class),
    "place": (f"the {NAME} (?P<place>{'|'.join(CELLS)})", read_place),
    "extreme": (f"the (?P<side>left|right|top|bottom)most (?P<name>{NAME})", read_extreme),
    "size": (f"the (?P<size>largest|smallest) (?P<name>{NAME})", read_size),
    "ordinal": (
        f"the (?P<number>{'|'.join(ORDER)}) (?P<name>{NAME}) from the (?P<side>{'|'.join(SIDES)})",
        read_ordinal,
    ),
    "relation": (f"the {NAME} (?P<relation>{'|'.join(AHEAD)}) the (?P<other>{NAME})", read_relation),
    "closest": (f"the {NAME} closest to the (?P<other>{NAME})", read_closest),
}
