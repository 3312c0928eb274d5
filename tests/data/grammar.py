"""An independent reading of the drawn scenes' grammar and of its words' meaning."""

import math
import re

COLUMNS = {"left": 0, "": 1, "right": 2}
ROWS = {"upper": 0, "top": 0, "": 1, "middle": 1, "lower": 2, "bottom": 2}
DETERMINER = r"(?:The|A(?= [^aeiou])|An(?= [aeiou]))"
NOUN = (
    r"(?:(?P<size{n}>small|large) )?(?:(?P<colour{n}>red|orange|green|blue|white|gray) )?"
    r"(?P<kind{n}>ship|vehicle|airplane|storage tank|tennis court|baseball field|windmill|chimney)"
)
PLACE = r"(?: (?P<place{n}>on the (?:upper |lower )?(?:left|right)|at the (?:top|bottom)|in the middle))"
RELATION = r"(?P<relation>above|below|on the (?:upper |lower )?(?:left|right) of)"
PLAIN = re.compile(f"{DETERMINER} {NOUN}{PLACE}?$".replace("{n}", "1"))
RELATIVE = re.compile(
    f"{DETERMINER} {NOUN} is {RELATION} the ".replace("{n}", "1") + f"{NOUN}{PLACE}?$".replace("{n}", "2")
)


def cell(text):
    words = text.split()
    column = next((COLUMNS[word] for word in words if word in ("left", "right")), 1)
    row = next((ROWS[word] for word in words if word in ROWS), 1)
    return column, row


def matching(things, found, number):
    """Returns the things that a noun with its adjectives and its place is true of."""
    result = []
    for thing in things:
        wanted = {name: found.get(f"{name}{number}") for name in ("size", "colour", "kind")}
        if any(value and getattr(thing, name) != value for name, value in wanted.items()):
            continue
        place = found.get(f"place{number}")
        if place and cell(place) != (math.floor(thing.x * 3), math.floor(thing.y * 3)):
            continue
        result.append(thing)
    return result


def related(things, anchor, relation):
    """Returns the things in the 45° sector around a relation's direction; y points down."""
    words = {"above": (0, -1), "below": (0, 1)}
    text = relation.split()
    column = {"left": -1, "right": 1}.get(text[-2] if len(text) > 1 else "", 0)
    row = {"upper": -1, "lower": 1}.get(text[2] if len(text) > 3 else "", 0)
    x, y = words.get(relation, (column, row))
    result = []
    for thing in things:
        if thing is anchor:
            continue
        dx, dy = thing.x - anchor.x, thing.y - anchor.y
        cosine = (dx * x + dy * y) / math.hypot(dx, dy) / math.hypot(x, y)
        if cosine > math.cos(math.radians(22.5)):
            result.append(thing)
    return result


def referents(things, expression):
    """Returns every thing that the expression is true of."""
    relative = RELATIVE.match(expression)
    if relative:
        found = relative.groupdict()
        anchors = matching(things, found, 2)
        assert len(anchors) == 1, expression
        return matching(related(things, anchors[0], found["relation"]), found, 1)
    plain = PLAIN.match(expression)
    assert plain, expression
    return matching(things, plain.groupdict(), 1)
