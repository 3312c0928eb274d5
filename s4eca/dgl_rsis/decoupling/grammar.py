"""The small grammar of places and relations that the decouplers share; English, over the text as written.

Which forms it reads, and where a place or a relation begins and ends, is our choice (reconstruction): the paper
(arXiv:2509.00598) says only that an expression is taken apart by NLP techniques. Patterns run over the text itself,
never over a lower-cased copy, whose characters may stand elsewhere.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from s4eca.dgl_rsis.parts import Relation, Span, Word

# position -> the first noun of the vocabulary that begins there or later: where it stands, and its class
FindNoun = Callable[[int], tuple[Span, str] | None]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PREPOSITIONS = _words("""
    on in at to from of by with within inside outside near nearby beside besides along alongside above below over under
    underneath beneath behind between among around across through into onto upon against opposite past toward towards
    next close adjacent off than
""")
AUXILIARIES = _words("is are was were be been being has have having")
VERBS = _words("""
    anchored berthed docked moored parked located situated placed positioned standing sitting lying stopped going
    driving driven moving traveling travelling running passing sailing heading crossing connected attached surrounded
    facing
""")
DETERMINERS = _words("the a an this that these those its another some any each two three several both")
FUNCTION = AUXILIARIES | _words(
    "the a an this that these those its it there here which who whose and or but of to than as"
)
"""Words that say neither what nor where."""

PLACES = {
    **dict.fromkeys(("left", "leftmost"), "left"),
    **dict.fromkeys(("right", "rightmost"), "right"),
    **dict.fromkeys(("upper", "top", "topmost", "uppermost"), "top"),
    **dict.fromkeys(("lower", "bottom", "lowermost", "bottommost"), "bottom"),
    **dict.fromkeys(("middle", "center", "centre", "central"), "middle"),
}


def _any(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(sorted(words))})"


_SIDE = rf"\b{_any(PLACES)}\b"
# told apart by group, since lower-casing need not give the key of what matched ("rıght")
_EACH_SIDE = re.compile(rf"\b(?:{'|'.join(f'({word})' for word in PLACES)})\b", re.IGNORECASE)
_SIDES = rf"{_SIDE}(?:(?:-|\s+)(?:and\s+)?{_SIDE}){{0,3}}"
_PART = (
    r"(?:[-\s]hand)?(?:\s+(?:side|corner|part|half|edge|end|border|area|region|section|portion|quadrant|quarter)\b)?"
)
_AREA = rf"{_SIDES}{_PART}"
IMAGES = _words("image picture photo photograph scene frame view map")
_IMAGE = rf"\s+of\s+(?:the|this|an?)\s+(?:(?:whole|entire)\s+)?{_any(IMAGES)}\b"
_THE = r"(?:the\s+)?(?:(?:far|very|extreme)\s+)?"
_TOWARDS = r"(?:on|in|at|to|near|towards?)\s+"
# before another word "left" would be that thing's own side, and "of" makes a relation
_END = rf"(?={_IMAGE}|\s*\Z|\s*[^\w\s]|\s+(?!of\b){_any(PREPOSITIONS | AUXILIARIES | VERBS | FUNCTION)}\b)"
_PLACE = re.compile(
    rf"\b(?:{_TOWARDS}{_THE}|(?={_AREA}{_IMAGE}))(?P<said>{_AREA}){_END}(?P<image>{_IMAGE})?", re.IGNORECASE
)
_BARE_PLACE = re.compile(_AREA, re.IGNORECASE)
_JOINT = re.compile(r"\s*,?\s*(?:and\s+)?", re.IGNORECASE)

_QUALITY = r"(?:size|shape|colou?r|length|width|height)"
_LEAD = re.compile(
    rf"""\b(?:
      (?:(?:a\s+(?:little|bit|lot)|much|slightly|somewhat|far)\s+)?
          (?:(?:more|less)\s+[^\W\d_]+|[^\W\d_]{{2,}}er|less|more)\s+than
    | (?:similar|equal|identical)\s+(?:in\s+{_QUALITY}\s+)?(?:to|with)
    | (?:of\s+)?the\s+same\s+{_QUALITY}\s+as
    | as\s+[^\W\d_]+\s+as
    | (?:crossing | facing | passing)
    | (?:{_any(VERBS)}\s+)? (?:(?:right|just|directly|immediately)\s+)? (?P<where>
          (?:{_TOWARDS}|from\s+)?{_THE}{_AREA}\s+of
        | next\s+to | close\s+to | adjacent\s+to | near(?:by)?(?:\s+to)? | in\s+front\s+of | along(?:\s+with)?
        | opposite(?:\s+(?:to|of))? | across(?:\s+from)? | inside(?:\s+of)? | outside(?:\s+of)? | besides? | alongside
        | above | below | over | under(?:neath)? | beneath | behind | between | among | around | through | into | onto
        | upon | within | against | past | towards? | to | off | by | from | with | on | in | at
      )
    )(?=\s)""",
    re.IGNORECASE | re.VERBOSE,
)


def find_words(text: str) -> tuple[Word, ...]:
    """Returns the words: runs of letters and digits, with the apostrophes inside them."""
    return tuple(Word(match.group(), *match.span()) for match in re.finditer(r"[^\W_]+(?:['\u2019][^\W_]+)*", text))


def is_function(word: str) -> bool:
    """Returns whether a word is an article, a copula, a conjunction or the like."""
    return word.lower() in FUNCTION


def is_link(word: str) -> bool:
    """Returns whether a word ends a noun phrase: a preposition, a verb, a pronoun."""
    word = word.lower()
    return word in PREPOSITIONS | VERBS or (word in FUNCTION - DETERMINERS and word not in ("and", "or"))


def is_noun(word: str) -> bool:
    """Returns whether a word that the vocabulary does not have may be a noun."""
    return any(letter.isalpha() for letter in word) and not is_link(word) and not is_function(word)


def overlaps(span: Span, others: Iterable[Span]) -> bool:
    """Returns whether a span shares a character with one of the others."""
    return any(span[0] < end and start < span[1] for start, end in others)


def noun_phrase(text: str, words: Sequence[Word], through: Sequence[str] = ()) -> Sequence[Word]:
    """Returns the first of some words that make one noun phrase; `through` are links that do not end it."""
    for place, word in enumerate(words):
        before = text[words[place - 1].end : word.start] if place else ""
        following = words[place + 1].text.lower() if place + 1 < len(words) else ""
        if (
            before.strip(" \t\n\r-_/'\"\u2019")
            or (is_link(word.text) and word.text.lower() not in through)
            or (word.text.lower() in ("and", "or") and following in DETERMINERS)
            or (place and word.text.lower() in DETERMINERS and words[place - 1].text.lower() not in through)
        ):
            return words[:place]
    return words


def places_in(text: str) -> tuple[str, ...]:
    """Returns the places that a text names, in its order, each once."""
    names = list(PLACES.values())
    return tuple(dict.fromkeys(names[(match.lastindex or 1) - 1] for match in _EACH_SIDE.finditer(text)))


def find_place(text: str, blanks: Sequence[Span]) -> tuple[tuple[str, ...], Span | None, list[Span]]:
    """Finds the absolute place that is said outside of some spans.

    The first one counts, with those that directly follow it ("on the left, at the bottom"). Where there is no
    preposition, as in "the upper left ship", the direction words alone are the span. An absolute place too is "on the
    left of the image"; "of the image" is no part of its span.

    Returns:
        The places, their span, and where "of the image" stands.
    """
    free = [match for match in _PLACE.finditer(text) if not overlaps(match.span(), blanks)]
    if not free:
        bare = next((match for match in _BARE_PLACE.finditer(text) if not overlaps(match.span(), blanks)), None)
        return (places_in(bare.group()), bare.span(), []) if bare else ((), None, [])
    said = free[:1]
    for match in free[1:]:
        joint = _JOINT.match(text, said[-1].end())
        if joint is None or joint.end() != match.start():
            break
        said.append(match)
    places = dict.fromkeys(place for match in said for place in places_in(match["said"]))
    return tuple(places), (said[0].start(), said[-1].end("said")), [m.span("image") for m in said if m["image"]]


def find_relations(text: str, words: Sequence[Word], find_noun: FindNoun) -> list[Relation]:
    """Finds what is said about other objects, from left to right.

    A relation goes from its first word behind the copula to the end of the other object's words, a place that directly
    follows that object included: it is the other object's ("above the bridge on the left").
    """
    relations: list[Relation] = []
    position = 0
    while lead := _LEAD.search(text, position):
        place = _PLACE.match(text, lead.start("where")) if lead["where"] else None
        if place:
            position = place.end()
            continue
        following = [word for word in words if word.start >= lead.end()]
        # "with a red roof" describes the target; only a class makes another object of it
        reference = _reference(text, following, find_noun, known_only=lead.group().lower() == "with")
        if reference is None:
            position = lead.start() + 1
            continue
        end, noun = reference
        relations.append(Relation((lead.start(), end), noun))
        position = end
    return relations


def _reference(
    text: str, words: Sequence[Word], find_noun: FindNoun, known_only: bool = False
) -> tuple[int, str] | None:
    """Reads the other object that some words begin with: where it ends, and its noun."""
    phrase = noun_phrase(text, words, through=("of",))
    if not phrase:
        return None
    known = find_noun(phrase[0].start)
    nouns = [word for word in phrase if is_noun(word.text)]
    if known and known[0][0] < phrase[-1].end:
        end, noun = known[0][1], known[1]
    elif nouns and phrase[0].text.lower() in DETERMINERS and not known_only:
        end, noun = nouns[-1].end, nouns[-1].text
    else:
        return None
    gap = re.compile(r"\s*").match(text, end)
    if gap and (place := _PLACE.match(text, gap.end())):
        end = place.end("said")
    following = [word for word in words if word.start >= end]
    if len(following) > 1 and following[0].text.lower() == "and" and following[1].text.lower() in DETERMINERS:
        other = _reference(text, following[1:], find_noun)
        end = other[0] if other else end
    return end, noun
