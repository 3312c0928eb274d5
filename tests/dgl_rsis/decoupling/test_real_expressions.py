"""The rules on RRSIS-D's validation expressions, which stay outside of the repository.

`labelled.csv` holds 100 of them, by the id of the entry, labelled by reading each of them and not by running the rules:
places, the characters of the words that say them, and the characters and the class of a relation. Which 100 is fixed by
`choose`.
"""

import csv
import random
import re
from pathlib import Path

import pytest

from s4eca.data.readers.refer_files import read_refer_entries
from s4eca.dgl_rsis.decoupling.rules import RuleDecoupler

TABLE = Path(__file__).with_name("labelled.csv")
REFS = Path(__file__).resolve().parents[4] / "shared" / "data" / "rrsisd_refs" / "refs_val.p"

# category ids and names as `instances.json` has them
CATEGORY_NAMES = """
Expressway-Service-area Expressway-toll-station airplane airport baseballfield basketballcourt bridge chimney dam
golffield groundtrackfield harbor overpass ship stadium storagetank tenniscourt trainstation vehicle windmill
"""
CATEGORIES = CATEGORY_NAMES.split()
NOUN = (
    r"\b(expressway (service area|toll station)|airplane|airport|(baseball|golf|ground track) field"
    r"|(basketball|tennis) court|bridge|chimney|dam|harbor|overpass|ship|stadium|storage tank|train station|vehicle"
    r"|windmill)\b"
)
LOOK = (
    r"\b(gray|large|green|small|tiny|slender|huge|orange|red|blue|black|long|oval|white|cyan|rectangular|rounded|yellow"
    r"|purple|brown|light)\b"
)


@pytest.fixture(scope="module")
def entries():
    if not REFS.is_file():
        pytest.skip("the real refs of RRSIS-D's validation split are not in ../shared/data")
    return {entry.ref_id: entry for entry in read_refer_entries(REFS)}


@pytest.fixture(scope="module")
def decouple():
    return RuleDecoupler("rrsis_d")


def form(text):
    """The sentence with one sign for each noun, run of adjectives, side and first article."""
    text = re.sub(LOOK, "A", re.sub(NOUN, "N", text.lower()))
    text = re.sub(r"A(( and)? A)*", "A", text)
    text = re.sub(r"\b(left|right)\b", "SIDE", re.sub(r"\b(upper|lower) (left|right)\b", "DIAG", text))
    return re.sub(r"^(the|an?)\b", "D", text)


def choose(entries, count):
    """One sentence of each form, the most frequent form first, then a second of each, and so on."""
    forms = {}
    for _, entry in sorted(entries.items()):
        forms.setdefault(form(entry.sentences[0]), []).append(entry.ref_id)
    for name, ids in forms.items():
        random.Random(name).shuffle(ids)
    order = sorted(forms, key=lambda name: (-len(forms[name]), name))
    longest = max(map(len, forms.values()))
    return [forms[name][turn] for turn in range(longest) for name in order if turn < len(forms[name])][:count]


def test_the_head_of_every_expression_is_its_category(entries, decouple):
    assert len(entries) == 1_740
    phrases = {id: decouple(entry.sentences[0]) for id, entry in entries.items()}
    wrong = {
        id: phrase.head for id, phrase in phrases.items() if phrase.category != CATEGORIES[entries[id].category_id]
    }
    assert wrong == {}
    assert all(phrase.fallback is None for phrase in phrases.values())


def test_the_labelled_ones_are_chosen_by_the_rule(entries):
    with TABLE.open(newline="") as stream:
        ids = [int(row["id"]) for row in csv.DictReader(stream)]
    assert ids == sorted(choose(entries, 100))


def test_places_and_relations_are_as_labelled(entries, decouple):
    def said(span):
        return "" if span is None else f"{span[0]}:{span[1]}"

    right = {"places": 0, "relations": 0, "both": 0}
    with TABLE.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        phrase = decouple(entries[int(row["id"])].sentences[0])
        place = (" ".join(phrase.place), said(phrase.place_span)) == (row["place"], row["place_span"])
        relations = [(said(relation.span), relation.noun) for relation in phrase.relations]
        relation = relations == ([(row["relation_span"], row["relation_noun"])] if row["relation_span"] else [])
        right["places"] += place
        right["relations"] += relation
        right["both"] += place and relation
    assert len(rows) == 100
    assert min(right.values()) >= 95, right
