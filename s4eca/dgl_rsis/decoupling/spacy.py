"""Decoupling by the dependency parse of spaCy, an optional extra."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from s4eca.dgl_rsis.decoupling.grammar import IMAGES, find_words, is_function, overlaps, places_in
from s4eca.dgl_rsis.knowledge import Knowledge
from s4eca.dgl_rsis.parts import Phrase, Relation, Span
from s4eca.errors import S4ecaError


class SpacyDecoupler:
    """Takes an expression apart by its parse; needs no vocabulary.

    The head is in the noun chunk that holds the root of the parse, else in that of the first of the root's children
    that stands in one; without either the whole text is taken (`no noun`). This is how Global-Local CLIP finds its noun
    phrase (Yu et al., CVPR 2023). The head is the chunk's root with the compounds directly before it ("storage tank"),
    the attributes are the chunk's words before it. A preposition below the head, below the root, or below an adjective
    of the root ("larger than") is an absolute place where its object is a direction without "of", else a relation.

    It has been run against parses that were made by hand only, never against a model of spaCy: their parses of short
    aerial expressions may be wrong in ways that are not known here.

    Args:
        knowledge: names of classes for heads and reference nouns, or what `Knowledge.load` reads; with None a head is
            the noun as written, and is in no category.
        model: spaCy's name of a model, or the path of one.
        nlp: a loaded pipeline to be used in its place.

    Raises:
        S4ecaError: spaCy or the model is not installed, or the knowledge cannot be loaded.
    """

    def __init__(
        self,
        knowledge: Knowledge | str | None = None,
        model: str = "en_core_web_sm",
        nlp: Callable[[str], Any] | None = None,
    ) -> None:
        self._knowledge = Knowledge.load(knowledge) if isinstance(knowledge, str) else knowledge
        self._nlp = nlp or _load(model)

    def __call__(self, expression: str) -> Phrase:
        """Returns the decoupled expression; any text will do."""
        words = find_words(expression)
        whole = Phrase(expression, words, local=tuple(range(len(words))), fallback="no noun")
        parse = self._nlp(expression)
        roots = [token for token in parse if token.dep_ == "ROOT"]
        chunk = _chunk(parse, roots[0]) if roots else None
        if chunk is None:
            return whole
        first, head = chunk.root, chunk.root
        for token in reversed([token for token in chunk if token.i < head.i]):
            if token.dep_ != "compound" or token.i != first.i - 1:
                break
            first = token
        head_span = first.idx, _end(head)
        local = tuple(i for i, word in enumerate(words) if overlaps((word.start, word.end), [head_span]))
        if not local:  # the parser takes punctuation for a noun
            return whole

        place: dict[str, None] = {}
        place_span: Span | None = None
        relations: list[Relation] = []
        tails: list[Span] = []
        for start, preposition in _prepositions(head, roots[0]):
            target = next((child for child in preposition.children if child.dep_ == "pobj"), None)
            if target is None:
                continue
            of = next((child for child in target.children if child.dep_ == "prep" and child.text.lower() == "of"), None)
            other = next((child for child in of.children if child.dep_ == "pobj"), None) if of else None
            said = places_in(expression[start : _end(target)])
            absolute = other is None or other.text.lower() in IMAGES
            if said and places_in(target.text) and absolute:
                place_span = place_span or (start, _end(target))
                place.update(dict.fromkeys(said))
                if of is not None and other is not None:
                    tails.append((of.idx, _last(other)))
            else:
                # "on the left of the harbor" is about the harbor, "on the roof of the harbor" about the roof
                noun = other if other is not None and places_in(target.text) else target
                relations.append(Relation((start, _last(preposition)), self._name(_compound(noun)) or noun.text))
        spans = [(word.start, word.end) for word in words]
        free = [i for i, span in enumerate(spans) if i not in local and not is_function(words[i].text)]
        category = self._name(expression[slice(*head_span)])
        chunk_start = min(token.idx for token in chunk)
        attributes = [i for i in free if chunk_start <= spans[i][0] < head_span[0]]
        said_before = [i for i in attributes if places_in(words[i].text)]
        if said_before and place_span is None:  # "the upper left ship"
            place.update((name, None) for i in said_before for name in places_in(words[i].text))
            place_span = spans[said_before[0]][0], spans[said_before[-1]][1]
        return Phrase(
            text=expression,
            words=words,
            head=category or expression[slice(*head_span)],
            category=category,
            head_span=head_span,
            local=local,
            context=tuple(i for i in free if not overlaps(spans[i], tails)),
            attributes=tuple(i for i in attributes if i not in said_before),
            place=tuple(place),
            place_span=place_span,
            relations=tuple(sorted(relations, key=lambda relation: relation.span)),
            fallback="no known noun" if self._knowledge and category is None else None,
        )

    def _name(self, words: str) -> str | None:
        return self._knowledge.find(words) if self._knowledge else None


def _load(model: str) -> Callable[[str], Any]:
    try:
        spacy = importlib.import_module("spacy")
    except ImportError as error:
        raise S4ecaError(
            "decoupler=spacy needs the package spacy, which is not installed; install the extra with `pip install"
            " 's4eca[spacy]'`, or take decoupler=rules."
        ) from error
    try:
        return spacy.load(model)
    except OSError as error:
        raise S4ecaError(
            f"spaCy has no model {model}; get it with `python -m spacy download {model}`, or give the path of one with"
            " decoupler.model=PATH."
        ) from error


def _chunk(parse: Any, root: Any) -> Any | None:
    """Returns the noun chunk with the root, or with the first of its children that is in one."""
    chunks = list(parse.noun_chunks)
    for token in (root, *root.children):
        for chunk in chunks:
            if any(member.i == token.i for member in chunk):
                return chunk
    return None


def _prepositions(head: Any, root: Any) -> Iterator[tuple[int, Any]]:
    """Yields the prepositions that are about the head, and where what they say begins."""
    for anchor in [head] if head.i == root.i else [head, root]:
        # a verb says it too ("parked at"), a copula or a noun does not
        verb = anchor.i == root.i and anchor.i != head.i and not is_function(anchor.text)
        for child in anchor.children:
            if child.dep_ == "prep":
                yield (anchor.idx if verb else child.idx), child
            elif child.dep_ in ("acomp", "advmod", "attr", "acl", "amod") and child.i > head.i:
                # of "similar in size to" the last one has the other object
                for inner in [inner for inner in child.children if inner.dep_ == "prep"][-1:]:
                    yield min(token.idx for token in child.subtree), inner


def _compound(noun: Any) -> str:
    """Returns a noun with its compounds."""
    return " ".join([*(child.text for child in noun.children if child.dep_ == "compound"), noun.text])


def _end(token: Any) -> int:
    return token.idx + len(token.text)


def _last(token: Any) -> int:
    """Returns where the words below a token end."""
    members = [member for member in token.subtree if any(letter.isalnum() for letter in member.text)]
    return max((_end(member) for member in members), default=_end(token))
