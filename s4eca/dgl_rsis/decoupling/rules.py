"""Decoupling by rules over the vocabulary of a dataset."""

import re
from dataclasses import replace

from s4eca.dgl_rsis.decoupling.grammar import (
    find_place,
    find_relations,
    find_words,
    is_function,
    is_link,
    is_noun,
    noun_phrase,
    overlaps,
)
from s4eca.dgl_rsis.knowledge import Knowledge
from s4eca.dgl_rsis.parts import Phrase, Relation, Span, Word


class RuleDecoupler:
    """Takes an expression apart by a list of class names and a small grammar of places and relations.

    The rules are ours (reconstruction): the paper (arXiv:2509.00598) names no list of words. Relations to other objects
    are found first, and their nouns are no candidates for the head. The head is the first known noun that is left, the
    longest name where several begin there; then the last word of the first noun phrase (`no known noun`); then a known
    noun of a relation, which is then none; then the whole text (`no noun`). A direction before the noun ("the left
    ship") is a place and no attribute.

    The vocabulary makes these rules aware of the dataset, as a list of classes does in open-vocabulary segmentation.

    Args:
        knowledge: the vocabulary: all names and synonyms of the classes; or what `Knowledge.load` reads.

    Raises:
        S4ecaError: the knowledge cannot be loaded.
    """

    def __init__(self, knowledge: Knowledge | str) -> None:
        if not isinstance(knowledge, Knowledge):
            knowledge = Knowledge.load(knowledge)
        forms = sorted(knowledge.vocabulary().items(), key=lambda form: (-len(form[0]), form[0]))
        self._classes = [name for _, name in forms]
        # one group for each form: its number gives the class, whatever the capitals, blanks and hyphens are
        self._nouns = re.compile(
            rf"(?<![^\W_])(?:{'|'.join(f'({_pattern(words)})' for words, _ in forms)})(?![^\W_])", re.IGNORECASE
        )

    def __call__(self, expression: str) -> Phrase:
        """Returns the decoupled expression; any text will do."""
        words = find_words(expression)
        known = [
            (match.span(), self._classes[(match.lastindex or 1) - 1]) for match in self._nouns.finditer(expression)
        ]
        relations = find_relations(
            expression, words, lambda start: next((noun for noun in known if noun[0][0] >= start), None)
        )
        head_span, category = self._head(expression, words, known, relations)
        if head_span:
            relations = [relation for relation in relations if not overlaps(head_span, [relation.span])]
        blanks = [relation.span for relation in relations] + ([head_span] if head_span else [])
        place, place_span, tails = find_place(expression, blanks)
        phrase = Phrase(expression, words, place=place, place_span=place_span, relations=tuple(relations))
        if head_span is None:
            return replace(phrase, local=tuple(range(len(words))), fallback="no noun")

        local, context, attributes = [], [], []
        blanks += tails + ([place_span] if place_span else [])
        for position, word in enumerate(words):
            span = word.start, word.end
            if overlaps(span, [head_span]):
                local.append(position)
            elif not is_function(word.text) and not overlaps(span, tails):
                context.append(position)
                if word.start < head_span[0] and not is_link(word.text) and not overlaps(span, blanks):
                    attributes.append(position)
        return replace(
            phrase,
            head=category or expression[slice(*head_span)],
            category=category,
            head_span=head_span,
            local=tuple(local),
            context=tuple(context),
            attributes=tuple(attributes),
            fallback=None if category else "no known noun",
        )

    def _head(
        self, text: str, words: tuple[Word, ...], known: list[tuple[Span, str]], relations: list[Relation]
    ) -> tuple[Span | None, str | None]:
        """Returns where the head stands and its class."""
        blanks = [relation.span for relation in relations]
        for span, name in known:
            if not overlaps(span, blanks):
                return span, name
        _, place_span, tails = find_place(text, blanks)
        blanks += tails + ([place_span] if place_span else [])
        free = [word for word in words if not overlaps((word.start, word.end), blanks)]
        first = next((place for place, word in enumerate(free) if is_noun(word.text)), len(free))
        phrase = [word for word in noun_phrase(text, free[first:]) if is_noun(word.text)]
        if phrase:
            return (phrase[-1].start, phrase[-1].end), None
        return known[0] if known else (None, None)


def _pattern(words: str) -> str:
    return r"[\s_-]*".join(re.escape(part) for part in re.split(r"[\s_-]+", words.strip()))
