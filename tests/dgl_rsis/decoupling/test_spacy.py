"""spaCy is not needed here: the parses are made by hand, and give no more than what spaCy's tokens have."""

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from s4eca.dgl_rsis.decoupling.spacy import SpacyDecoupler
from s4eca.dgl_rsis.knowledge import Knowledge
from s4eca.errors import S4ecaError


@dataclass
class Token:
    i: int
    idx: int
    text: str
    dep_: str
    children: list = field(default_factory=list)

    @property
    def subtree(self):
        tokens = [self, *(token for child in self.children for token in child.subtree)]
        return sorted(tokens, key=lambda token: token.i)


class Chunk(list):
    def __init__(self, tokens, root):
        super().__init__(tokens)
        self.root = root


class Parse(list):
    noun_chunks: list


def pipeline(rows, chunks):
    """A parser that knows one sentence: rows are "text dependency head", chunks are (first, last, root)."""

    def nlp(text):
        parse, position = Parse(), 0
        for i, row in enumerate(rows):
            word, dependency, _ = row.split()
            position = text.index(word, position)
            parse.append(Token(i, position, word, dependency))
            position += len(word)
        for token, row in zip(parse, rows, strict=True):
            head = int(row.split()[2])
            if head != token.i:
                parse[head].children.append(token)
        parse.noun_chunks = [Chunk(parse[first : last + 1], parse[root]) for first, last, root in chunks]
        return parse

    return nlp


def decouple(text, rows, chunks, knowledge=None):
    return SpacyDecoupler(knowledge, nlp=pipeline(rows, chunks))(text)


def words(phrase, positions):
    return " ".join(phrase.words[position].text for position in positions)


def said(phrase):
    return [(phrase.text[slice(*relation.span)], relation.noun) for relation in phrase.relations]


PLACED = (
    "The white storage tank on the upper left",
    [
        "The det 3",
        "white amod 3",
        "storage compound 3",
        "tank ROOT 3",
        "on prep 3",
        "the det 7",
        "upper amod 7",
        "left pobj 4",
    ],
    [(0, 3, 3), (5, 7, 7)],
)


def test_a_noun_phrase_with_a_place():
    phrase = decouple(*PLACED)
    assert (phrase.head, phrase.category, phrase.fallback) == ("storage tank", None, None)
    assert words(phrase, phrase.local) == "storage tank"
    assert words(phrase, phrase.attributes) == "white"
    assert words(phrase, phrase.context) == "white on upper left"
    assert phrase.place == ("top", "left")
    assert phrase.text[slice(*phrase.place_span)] == "on the upper left"
    assert phrase.relations == ()


def test_the_vocabulary_names_the_class():
    phrase = decouple(*PLACED, "rrsis_d")
    assert (phrase.head, phrase.category, phrase.fallback) == ("storagetank", "storagetank", None)
    other = decouple("a tent", ["a det 1", "tent ROOT 1"], [(0, 1, 1)], Knowledge.load("rrsis_d"))
    assert (other.head, other.category, other.fallback) == ("tent", None, "no known noun")


@pytest.mark.parametrize(
    ("text", "rows", "chunks", "relation", "noun"),
    [
        (
            "A ship is on the lower left of the harbor",
            [
                "A det 1",
                "ship nsubj 2",
                "is ROOT 2",
                "on prep 2",
                "the det 6",
                "lower amod 6",
                "left pobj 3",
                "of prep 6",
                "the det 9",
                "harbor pobj 7",
            ],
            [(0, 1, 1), (4, 6, 6), (8, 9, 9)],
            "on the lower left of the harbor",
            "harbor",
        ),
        (
            "The car is much smaller than the car on the left",
            [
                "The det 1",
                "car nsubj 2",
                "is ROOT 2",
                "much advmod 4",
                "smaller acomp 2",
                "than prep 4",
                "the det 7",
                "car pobj 5",
                "on prep 7",
                "the det 10",
                "left pobj 8",
            ],
            [(0, 1, 1), (6, 7, 7), (9, 10, 10)],
            "much smaller than the car on the left",
            "vehicle",
        ),
        (
            "A dam is similar in size to the bridge",
            [
                "A det 1",
                "dam nsubj 2",
                "is ROOT 2",
                "similar acomp 2",
                "in prep 3",
                "size pobj 4",
                "to prep 3",
                "the det 8",
                "bridge pobj 6",
            ],
            [(0, 1, 1), (5, 5, 5), (7, 8, 8)],
            "similar in size to the bridge",
            "bridge",
        ),
        (
            "A jet is parked at the small airport",
            [
                "A det 1",
                "jet nsubjpass 3",
                "is auxpass 3",
                "parked ROOT 3",
                "at prep 3",
                "the det 7",
                "small amod 7",
                "airport pobj 4",
            ],
            [(0, 1, 1), (5, 7, 7)],
            "parked at the small airport",
            "airport",
        ),
        (
            "The ship next to the train station",
            [
                "The det 1",
                "ship ROOT 1",
                "next advmod 1",
                "to prep 2",
                "the det 6",
                "train compound 6",
                "station pobj 3",
            ],
            [(0, 1, 1), (4, 6, 6)],
            "next to the train station",
            "trainstation",
        ),
        (
            "The car on the roof of the stadium",
            [
                "The det 1",
                "car ROOT 1",
                "on prep 1",
                "the det 4",
                "roof pobj 2",
                "of prep 4",
                "the det 7",
                "stadium pobj 5",
            ],
            [(0, 1, 1), (3, 4, 4), (6, 7, 7)],
            "on the roof of the stadium",
            "roof",
        ),
    ],
)
def test_relations_follow_the_tree(text, rows, chunks, relation, noun):
    phrase = decouple(text, rows, chunks, "rrsis_d")
    assert said(phrase) == [(relation, noun)]
    assert (phrase.place, phrase.place_span) == ((), None)
    assert words(phrase, phrase.local) == text.split()[1]
    assert phrase.category in ("ship", "vehicle", "dam", "airplane")


def test_left_of_the_image_is_a_place():
    phrase = decouple(
        "The ship on the left of the image",
        ["The det 1", "ship ROOT 1", "on prep 1", "the det 4", "left pobj 2", "of prep 4", "the det 7", "image pobj 5"],
        [(0, 1, 1), (3, 4, 4), (6, 7, 7)],
    )
    assert (phrase.place, phrase.relations) == (("left",), ())
    assert phrase.text[slice(*phrase.place_span)] == "on the left"
    assert words(phrase, phrase.context) == "on left"


def test_a_direction_before_the_noun_is_a_place():
    phrase = decouple("the lower red ship", ["the det 3", "lower amod 3", "red amod 3", "ship ROOT 3"], [(0, 3, 3)])
    assert (phrase.place, words(phrase, phrase.attributes)) == (("bottom",), "red")
    assert phrase.text[slice(*phrase.place_span)] == "lower"


@pytest.mark.parametrize(
    ("text", "rows", "chunks"),
    [("", [], []), ("go left", ["go ROOT 0", "left advmod 0"], []), ("!", ["! ROOT 0"], [(0, 0, 0)])],
)
def test_without_a_noun_the_whole_text_is_taken(text, rows, chunks):
    phrase = decouple(text, rows, chunks)
    assert (phrase.head, phrase.head_span, phrase.fallback) == (None, None, "no noun")
    assert words(phrase, phrase.local) == text.replace("!", "")


def test_spacy_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)  # importing it raises ImportError
    with pytest.raises(S4ecaError, match=r"needs the package spacy, which is not installed; .*s4eca\[spacy\]"):
        SpacyDecoupler()


def test_the_model_is_not_installed(monkeypatch):
    def load(model):
        raise OSError(f"[E050] Can't find model '{model}'")

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=load))
    with pytest.raises(S4ecaError, match="no model en_x; get it with `python -m spacy download en_x`"):
        SpacyDecoupler(model="en_x")


def test_the_named_model_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load={"mine": pipeline(*PLACED[1:])}.__getitem__))
    assert SpacyDecoupler(model="mine")(PLACED[0]).head == "storage tank"
