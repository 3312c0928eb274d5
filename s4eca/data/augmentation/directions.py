"""What flips and rotations by 90° do to the direction words of an expression."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from s4eca.data.augmentation.turns import Turn, Vector

TOPS = ("on the top", "at the top")


def rewrite(expression: str, turn: Turn, top: str = "on the top") -> str | None:
    """Rewrites the direction words of an expression so that it is true of the turned image.

    All phrases are replaced in one pass, in the wording of RRSIS-D: eight places ("on the left", "on the top", "at the
    bottom", "on the upper left", …) and eight relations ("on the left of", "above", "on the lower right of", …). Those
    sentences are turned as a group acts: by one turn and then by another is the same as by both at once. Other wordings
    are kept as far as the grammar allows ("to the left of", "top-left corner", "leftmost", "from left to right",
    "north-eastern", "vertical"). Capitals and punctuation stay. Words that no turn changes ("middle", "between",
    "large") are left alone.

    A direction word of uncertain meaning ("right next to", "on top of", "under", "highest", "the bridge above the
    river") may stay where every reading of it survives the turn; otherwise the sentence is refused. Refused too are
    sentences that count without saying from where ("the second ship"), that take a turn themselves ("turning left"),
    and those that are not plain ASCII.

    Args:
        expression: an English expression.
        turn: what happens to the image.
        top: how the dataset names the place at the upper edge, one of `TOPS`; RRSIS-D says "on the top".

    Returns:
        The rewritten expression; None where the result could be wrong.
    """
    if turn is Turn.IDENTITY:
        return expression
    if not expression.isascii():
        return None
    if any(turn not in survivors and pattern.search(expression) for pattern, survivors in _GUARDS):
        return None
    pieces: list[str] = []
    position = 0
    while True:
        found = [(match, form) for form in _forms(top) if (match := form.pattern.search(expression, position))]
        if not found:
            return "".join([*pieces, expression[position:]])
        match, form = min(found, key=lambda pair: pair[0].start())  # the first of those that begin together
        rendered = form.render(match, turn)
        if rendered is None:
            return None
        pieces += [_agree(expression[position : match.start()], match.group(), rendered), rendered]
        position = match.end()


_LEFT, _RIGHT, _UP, _DOWN = (-1, 0), (1, 0), (0, -1), (0, 1)
_VECTORS: dict[str, Vector] = {
    **dict.fromkeys(("left", "west"), _LEFT),
    **dict.fromkeys(("right", "east"), _RIGHT),
    **dict.fromkeys(("upper", "top", "above", "up", "north"), _UP),
    **dict.fromkeys(("lower", "bottom", "below", "down", "south"), _DOWN),
}
_SIDES = ("left", "right")
_ENDS = ("top", "bottom")
_HEIGHTS = ("upper", "lower")
_RELATIONS = ("above", "below")
_COURSES = ("up", "down")
_WORD = re.compile(r"left|right|upper|lower|top|bottom|above|below|up|down", re.IGNORECASE)


def _like(model: str, text: str) -> str:
    """Gives a text the capitals of the one that it replaces."""
    if model.isupper():
        return text.upper()
    return text[0].upper() + text[1:] if model[0].isupper() else text


def _agree(before: str, old: str, new: str) -> str:
    """Makes "a" of an "an" before a word that is replaced, or the reverse, where the first sound asks for it."""
    vowels = tuple("aeiouAEIOU")
    if old.startswith(vowels) == new.startswith(vowels):
        return before
    return re.sub(r"\b(a)n?(\s+)$", r"\1n\2" if new.startswith(vowels) else r"\1\2", before, flags=re.IGNORECASE)


def _name(direction: Vector, vertical: tuple[str, str], horizontal: tuple[str, str] = _SIDES) -> str:
    """Returns the word for one of the four directions."""
    x, y = direction
    return horizontal[x > 0] if x else vertical[y > 0]


def _swap(text: str, turn: Turn, vertical: tuple[str, str]) -> str:
    """Replaces every word for one of the four directions; `vertical` is what left and right may become."""

    def replace(match: re.Match[str]) -> str:
        word = match.group().lower()
        own = next((pair for pair in (_ENDS, _HEIGHTS, _RELATIONS, _COURSES) if word in pair), vertical)
        return _like(match.group(), _name(turn.vector(_VECTORS[word]), own))

    return _WORD.sub(replace, text)


def _turn_words(match: re.Match[str], turn: Turn, vertical: tuple[str, str] = _ENDS) -> str:
    """Turns a phrase word by word."""
    return _swap(match.group(), turn, vertical)


def _flip_words(match: re.Match[str], turn: Turn) -> str | None:
    """Turns a phrase word by word; refuses where rows become columns."""
    return None if turn.swaps_axes else _swap(match.group(), turn, _ENDS)


def _turn_pair(match: re.Match[str], turn: Turn) -> str:
    """Turns "upper left", "top-left", "left bottom"; their order and their joint stay."""
    first, joint, second = match.groups()
    words = (first.lower(), second.lower())
    (ax, ay), (bx, by) = (_VECTORS[word] for word in words)
    x, y = turn.vector((ax + bx, ay + by))
    vertical = _name((0, y), _ENDS if set(words) & set(_ENDS) else _HEIGHTS)
    horizontal = _name((x, 0), _ENDS)
    pair = (horizontal, vertical) if words[0] in _SIDES else (vertical, horizontal)
    return _like(first, pair[0]) + joint + _like(second, pair[1])


def _turn_relation(match: re.Match[str], turn: Turn) -> str:
    """Turns "on the left of", "above" and the like."""
    if not turn.swaps_axes:
        return _swap(match.group(), turn, _RELATIONS)
    name = _name(turn.vector(_VECTORS[match.group(1).lower()]), _RELATIONS)
    return _like(match.group(), f"on the {name} of" if name in _SIDES else name)


def _turn_place(match: re.Match[str], turn: Turn, top: str) -> str:
    """Turns "on the left", "at the bottom" and the like."""
    preposition, word = match.group(1).lower(), match.group(2).lower()
    name = _name(turn.vector(_VECTORS[word]), _ENDS)
    if name == word:
        return match.group()
    if not turn.swaps_axes and (word in _SIDES or preposition == "in"):
        return _swap(match.group(), turn, _ENDS)
    return _like(match.group(), {"top": top, "bottom": "at the bottom"}.get(name, f"on the {name}"))


def _turn_adjective(match: re.Match[str], turn: Turn) -> str:
    """Turns "the left side", "the upper half": edges are called top and bottom, anything else upper and lower."""
    edge = re.match(_EDGE, match.group("noun"), re.IGNORECASE)
    return _swap(match.group("words"), turn, _ENDS if edge else _HEIGHTS)


def _turn_origin(match: re.Match[str], turn: Turn) -> str | None:
    """Turns "from the left"; "from the top" may be the viewer's place, unless something is counted from there."""
    if match.group(1).lower() == "top" and not re.search(_ORDINAL, match.string, re.IGNORECASE):
        return _keep(match, turn)
    return _swap(match.group(), turn, _ENDS)


def _turn_compass(match: re.Match[str], turn: Turn) -> str | None:
    """Turns "north", "north-eastern"; north is up. A capital within the sentence makes it a name, as in "West Lake"."""
    vertical, joint, beside, alone, ending = match.groups(default="")
    vectors = [_VECTORS[word.lower()] for word in (vertical, beside, alone) if word]
    direction = (sum(x for x, _ in vectors), sum(y for _, y in vectors))
    x, y = turn.vector(direction)
    if (x, y) == direction:
        return match.group()
    if match.start() > 0 and match.group()[0].isupper():
        return None
    words = [_name((0, y), ("north", "south"))] if y else []
    words += [_name((x, 0), _ENDS, ("west", "east"))] if x else []
    return _like(match.group(), joint.join(words) + ending)


def _turn_axis(match: re.Match[str], turn: Turn) -> str:
    """Turns "horizontal" and "vertical"."""
    if not turn.swaps_axes:
        return match.group()
    other = {"horizontal": "vertical", "vertical": "horizontal"}[match.group(1).lower()]
    return _like(match.group(), other + (match.group(2) or ""))


def _keep(match: re.Match[str], turn: Turn) -> str | None:
    """Keeps a word that may or may not be a direction, where the turn leaves that direction alone.

    Before a noun left and right may be the thing's own ("the left wing"), which every mirror exchanges.
    """
    sideways = re.search(r"left|right|east|(?<!lo)west", match.group(), re.IGNORECASE)
    if sideways and re.match(rf"[- ](?!{_LINK})\w", match.string[match.end() :], re.IGNORECASE):
        return None
    direction = _RIGHT if sideways else _DOWN
    return match.group() if turn.vector(direction) == direction else None


@dataclass(frozen=True)
class _Form:
    """A way to say a direction, and how it is said after a turn (None: that is uncertain)."""

    pattern: re.Pattern[str]
    render: Callable[[re.Match[str], Turn], str | None]


_V, _H = r"(?:upper|lower|top|bottom)", r"(?:left|right)"
_ANY = rf"(?:{_V}|{_H})"
_FOUR = r"(?:left|right|top|bottom)"
_MIDDLE = r"(?:middle|cent(?:er|re))"
_CLOSE = r"(?:next|beside|above|below|behind|by|under|over|along|across|before|after|where|against|opposite)\b"
_LINK = rf"(?:{_CLOSE}|(?:and|or|of|to|in|on|at|is|are|that|which|with|near|between|from)\b)"
_ORDINAL = r"\b(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|\d+(?:st|nd|rd|th))\b"
_DETERMINER = r"(?:the|an?|another|this|that|these|those|its?|them|one|two|three|some|other|both)\b"
_IMAGE = r"of (?:the|this|an?) (?:whole |entire )?(?:image|picture|photo|photograph|scene|frame|view)\b"
# what may follow a place; before a noun the word would be an adjective, and with "of" a relation
_END = rf"(?=\s*(?:$|[.,;:!?)])| (?:{_IMAGE}|(?:and|or|in|on|at|is|are|that|which|with|near|beside|between)\b))"
_EDGE = r"(?:side|edge|end|border|boundary|margin|corner|rim)s?\b"
_PART = r"(?:half|part|portion|section|region|area|quadrant|quarter|zone|one)s?\b"
# no bridge, road or wing: an upper bridge may be the higher one, and a left wing is the airplane's own left
_THING = (
    r"(?:(?:large|small|tiny|huge|little|long|red|orange|yellow|green|cyan|blue|white|gr[ae]y|black|brown|baseball|golf"
    r"|ground|track|basketball|tennis|storage|train|toll|expressway|service) ){0,4}"
    r"(?:ship|boat|vehicle|car|truck|bus|van|airplane|plane|airport|field|court|chimney|harbor|stadium|tank|station"
    r"|windmill|building|house|object|target)s?\b"
)
# between these "above" means higher in space; a ground track field or an expressway's toll station is a thing
_RAISED = r"(?:\w*bridge|overpass|viaduct|flyover|(?:air|aero)?plane|aircraft|helicopter)(?:e?s)?\b"
_GROUND = (
    r"(?:water|river|sea|lake|canal|road|street|highway|expressway|motorway|freeway|railway|track|runway)s?\b"
    r"(?![- ](?:service|toll|field|station)\b)"
)
_OVER = rf".*\b(?:above|below) (?:(?!{_LINK})[\w-]+,? ){{0,5}}"
# and after these
_HIGH = "".join(f"(?<!{word} )" for word in ("from", "flying", "hovering", "passing", "crossing", "running", "going"))


@cache
def _forms(top: str) -> tuple[_Form, ...]:
    """Returns the forms; where two begin at the same letter, the first one counts."""
    table: list[tuple[str, Callable[..., str | None]]] = [
        # "on the top right next to": there the second word belongs to what follows
        (
            rf"\b(?!{_V}[-_ ]?{_V}|{_H}[-_ ]?{_H})({_ANY})([-_ ]?)({_ANY})\b(?! {_CLOSE})",
            _turn_pair,
        ),
        (rf"\b(?:{_MIDDLE}[- ]{_ANY}|{_ANY}[- ]{_MIDDLE})\b", _flip_words),
        (rf"(?:\b(?:on|to|at|in) the |(?<!the )(?<!far )\b)({_H})(?! {_IMAGE}) of(?= {_DETERMINER})", _turn_relation),
        (rf"{_HIGH}\b(above|below)(?= {_DETERMINER})", _turn_relation),
        (rf"\b(on|in|at) the ({_FOUR}){_END}", partial(_turn_place, top=top)),
        # "to the top" and "on the far top" would not be said
        (rf"\b(?:to the|(?:on|in|at|to) the far) {_FOUR}{_END}", _flip_words),
        (rf"\b{_H}[- ]hand\b", _flip_words),
        (rf"(?P<words>\bthe (?:far )?{_ANY})(?=[- ](?P<noun>{_EDGE}|{_PART}|{_THING}))", _turn_adjective),
        (rf"\bfrom (?:the )?{_FOUR} to (?:the )?{_FOUR}{_END}", _turn_words),
        (rf"\bfrom (?:the )?({_FOUR}){_END}", _turn_origin),
        (rf"\b{_ANY}-?most\b", _turn_words),
        (r"\b(?:left|right|up|down)wards?\b", partial(_turn_words, vertical=_COURSES)),
        (rf"\b(?:facing|pointing|heading) (?:left|right|up|down){_END}", partial(_turn_words, vertical=_COURSES)),
        (
            r"\b(?:(north|south)(?:([- ]?)(east|west))?|(east|west))(ern(?:most)?|erly|wards?|bound|most)?\b",
            _turn_compass,
        ),
        (r"\b(horizontal|vertical)(ly)?\b", _turn_axis),
        (
            r"\b(?:(?:left|right|north|south|east|west|upper|lower|bottom)\w*|lowest|high(?:er|est)|top(?:s|most|side)?"
            r"|above|below|under|underneath|beneath|over|atop|up|down|behind|ahead|front|rear|back)\b",
            _keep,
        ),
    ]
    return tuple(_Form(re.compile(pattern, re.IGNORECASE), render) for pattern, render in table)


# What a sentence may not hold, whatever its direction words are, and the turns that it may hold it under after all.
_GUARDS: tuple[tuple[re.Pattern[str], frozenset[Turn]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), frozenset(survivors))
    for pattern, survivors in (
        (r"clockwise|\bstarboard\b|\bport side\b", [turn for turn in Turn if not turn.mirrors]),
        (r"\b(?:rows?|columns?)\b", [turn for turn in Turn if not turn.swaps_axes]),
        (rf"{_ORDINAL}(?!.*\bfrom (?:the )?{_ANY}\b)", []),
        (rf"\b(?:turn|bend|curv|veer)\w*(?: (?:to|towards?|the|slightly|sharply))* {_H}\b", []),
        (rf"\b{_H}[- ](?:turn|bend|curv|veer)", []),
        (
            rf"\b{_RAISED}{_OVER}{_GROUND}|\b{_GROUND}{_OVER}{_RAISED}",
            [turn for turn in Turn if turn.vector(_DOWN) == _DOWN],
        ),
        (r"o'clock|\b(?:NE|NW|SE|SW)\b", []),
    )
)
