from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from s4eca.build import instantiate
from s4eca.dgl_rsis.decoupling.rules import RuleDecoupler
from s4eca.dgl_rsis.decoupling.whole import WholeDecoupler
from s4eca.dgl_rsis.knowledge import Entry, Knowledge
from s4eca.errors import S4ecaError

ROOT = Path(__file__).resolve().parents[3]
DECOUPLE = RuleDecoupler("rrsis_d")


def words(phrase, positions):
    return " ".join(phrase.words[position].text for position in positions)


def cut(phrase, span):
    return None if span is None else phrase.text[slice(*span)]


# expression; category, local, attributes; place, its text; relations as (text, noun)
TABLE = [
    ("The orange bridge", "bridge", "bridge", "orange", "", None, []),
    ("A long and slender black dam", "dam", "dam", "long slender black", "", None, []),
    ("The white and blue airplane on the lower right", "airplane", "airplane", "white blue", "bottom right",
     "on the lower right", []),
    ("A airport in the middle", "airport", "airport", "", "middle", "in the middle", []),
    ("The tiny harbor at the bottom", "harbor", "harbor", "tiny", "bottom", "at the bottom", []),
    ("A red overpass in the bottom", "overpass", "overpass", "red", "bottom", "in the bottom", []),
    ("The purple stadium on the top", "stadium", "stadium", "purple", "top", "on the top", []),
    ("A storage tank on the far left", "storagetank", "storage tank", "", "left", "on the far left", []),
    ("The huge expressway service area on the upper left", "Expressway-Service-area", "expressway service area", "huge",
     "top left", "on the upper left", []),
    ("The ship is on the upper right of the dam", "ship", "ship", "", "", None,
     [("on the upper right of the dam", "dam")]),
    ("A tiny car on the left of the flyover", "vehicle", "car", "tiny", "", None,
     [("on the left of the flyover", "overpass")]),
    ("The windmill is smaller than the windmill on the right", "windmill", "windmill", "", "", None,
     [("smaller than the windmill on the right", "windmill")]),
    ("A ship is a little smaller than the green ship", "ship", "ship", "", "", None,
     [("a little smaller than the green ship", "ship")]),
    ("The bridge is much bigger than the bridge at the bottom", "bridge", "bridge", "", "", None,
     [("much bigger than the bridge at the bottom", "bridge")]),
    ("A chimney is similar in size to the chimney on the top", "chimney", "chimney", "", "", None,
     [("similar in size to the chimney on the top", "chimney")]),
    ("The golf course is below the golf field in the middle", "golffield", "golf course", "", "", None,
     [("below the golf field in the middle", "golffield")]),
    ("The gray train station is above the tennis court on the lower left", "trainstation", "train station", "gray", "",
     None, [("above the tennis court on the lower left", "tenniscourt")]),
    ("A ground track field is in the large oval stadium", "groundtrackfield", "ground track field", "", "", None,
     [("in the large oval stadium", "stadium")]),
    ("A vehicle is parked at the small airport", "vehicle", "vehicle", "", "", None,
     [("parked at the small airport", "airport")]),
    ("A ship is going through the bridge", "ship", "ship", "", "", None, [("going through the bridge", "bridge")]),
    ("The ship is anchored with the harbor at the bottom", "ship", "ship", "", "", None,
     [("anchored with the harbor at the bottom", "harbor")]),
    ("A gray frustum of a cone chimney on the right", "chimney", "chimney", "gray frustum cone", "right",
     "on the right", []),
    ("The frustum of a cone red chimney", "chimney", "chimney", "frustum cone red", "", None, []),
    ("A bridge near the frustum of a cone chimney", "bridge", "bridge", "", "", None,
     [("near the frustum of a cone chimney", "chimney")]),
    ("the BASEBALL-FIELD, to the right!", "baseballfield", "BASEBALL FIELD", "", "right", "to the right", []),
    ("Airplanes next to the storagetanks", "airplane", "Airplanes", "", "", None,
     [("next to the storagetanks", "storagetank")]),
    ("the ferries right beside a wharf", "ship", "ferries", "", "", None, [("right beside a wharf", "harbor")]),
    ("the upper-left basketball court", "basketballcourt", "basketball court", "", "top left", "upper-left", []),
    ("The ship in the lower left corner of the image", "ship", "ship", "", "bottom left",
     "in the lower left corner", []),
    ("On the right of the picture is a black ship", "ship", "ship", "black", "right", "On the right", []),
    ("On the right of the dam is a black ship", "ship", "ship", "black", "", None,
     [("On the right of the dam", "dam")]),
    ("The ship near the dam, on the left", "ship", "ship", "", "left", "on the left", [("near the dam", "dam")]),
    ("A bus on the left bridge", "vehicle", "bus", "", "", None, [("on the left bridge", "bridge")]),
    ("A truck in the parking lot", "vehicle", "truck", "", "", None, [("in the parking lot", "lot")]),
    ("The van with a red roof", "vehicle", "van", "", "", None, []),
    ("The dam between the bridge and the airport", "dam", "dam", "", "", None,
     [("between the bridge and the airport", "bridge")]),
    ("The ship on the top, above the dam near a bridge", "ship", "ship", "", "top", "on the top",
     [("above the dam", "dam"), ("near a bridge", "bridge")]),
    ("The tank at the left, in the middle", "storagetank", "tank", "", "left middle", "at the left, in the middle", []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "category", "local", "attributes", "place", "place_text", "relations"),
    TABLE,
    ids=[row[0] for row in TABLE],
)
def test_expressions(text, category, local, attributes, place, place_text, relations):
    phrase = DECOUPLE(text)
    assert (phrase.head, phrase.category, phrase.fallback) == (category, category, None)
    assert words(phrase, phrase.local) == local
    assert words(phrase, phrase.attributes) == attributes
    assert " ".join(phrase.place) == place
    assert cut(phrase, phrase.place_span) == place_text
    assert [(cut(phrase, relation.span), relation.noun) for relation in phrase.relations] == relations


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("The orange and black bridge", "orange black"),
        ("A large ship is on the lower left of the red dam in the middle", "large on lower left red dam in middle"),
        ("The van with a red roof", "with red roof"),
        ("The ship on the left of the image", "on left"),
        ("the bridge", ""),
    ],
)
def test_context_is_what_modifies_the_head(text, context):
    phrase = DECOUPLE(text)
    assert words(phrase, phrase.context) == context


@pytest.mark.parametrize(
    ("text", "head", "local", "attributes", "fallback"),
    [
        ("The red swimming pool on the left", "pool", "pool", "red swimming", "no known noun"),
        ("The lighthouse is next to the harbor", "lighthouse", "lighthouse", "", "no known noun"),
        ("There is a tent", "tent", "tent", "", "no known noun"),
        ("a field of corn", "field", "field", "", "no known noun"),
        ("the red and white tent", "tent", "tent", "red white", "no known noun"),
        ("Белая лодка", "лодка", "лодка", "Белая", "no known noun"),
        ("next to the harbor", "harbor", "harbor", "", None),
        ("on the left", None, "on the left", "", "no noun"),
        ("12 345", None, "12 345", "", "no noun"),
        ("?!", None, "", "", "no noun"),
        ("", None, "", "", "no noun"),
    ],
)
def test_fallbacks_are_named(text, head, local, attributes, fallback):
    phrase = DECOUPLE(text)
    assert phrase.head == (head if fallback else "harbor")
    assert phrase.category == (None if fallback else "harbor")
    assert phrase.fallback == fallback
    assert words(phrase, phrase.local) == local
    assert words(phrase, phrase.attributes) == attributes
    assert (phrase.head_span is None) == (fallback == "no noun")


def test_the_longest_name_wins_and_words_are_whole():
    knowledge = Knowledge(
        "a {}.", ("a {}",), (), (Entry("tank", "tank"), Entry("oil", "oil tank"), Entry("port", "port"))
    )
    decouple = RuleDecoupler(knowledge)
    assert decouple("an oil tank").category == "oil"
    assert decouple("a tank").category == "tank"
    assert decouple("an airport").category is None
    assert decouple("an airport beside two ports").relations[0].noun == "port"


def test_vocabulary_comes_from_the_knowledge():
    assert RuleDecoupler("isaid")("the swimming pool").category == "swimming_pool"
    assert RuleDecoupler("refsegrs")("bus in the parking area").relations[0].noun == "impervious surface"
    with pytest.raises(S4ecaError, match="knowledge=potsdam is none of isaid, refsegrs, rrsis_d"):
        RuleDecoupler("potsdam")


# letters that match i, s and k without regard to capitals, and are not these when lower-cased
ODD = "r\u0131ght,leftmo\u017ft,\u017fhip,\u0130n the m\u0131ddle,\u212a,\u00e9,\n"
PLAIN = (
    "the,a,left,right,upper,of,on,in,ship,harbor,tennis,court,near,than,larger,image,and,is,with,between,.,-,',on the,"
    "of the,next to,in the middle"
)
PIECES = st.sampled_from([*ODD.split(","), *PLAIN.split(","), ","])


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map(" ".join)))
@example("\u0130n the m\u0131ddle of the \u0131mage")
@example("the leftmo\u017ft \u017fhip")
def test_any_text_is_taken_apart_consistently(text):
    phrase = DECOUPLE(text)
    assert phrase.text == text
    assert all(text[word.start : word.end] == word.text for word in phrase.words)
    assert not set(phrase.local) & set(phrase.context)
    assert set(phrase.attributes) <= set(phrase.context)
    assert set(phrase.place) <= {"left", "right", "top", "bottom", "middle"}
    assert (phrase.place_span is None) == (not phrase.place)
    spans = [relation.span for relation in phrase.relations]
    spans += [span for span in (phrase.place_span, phrase.head_span) if span]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    # head, place and relations share no character
    assert all(end <= start for (_, end), (start, _) in zip(sorted(spans), sorted(spans)[1:], strict=False))
    if phrase.fallback == "no noun":
        assert phrase.local == tuple(range(len(phrase.words)))
        assert phrase.head is None
    else:
        assert phrase.local
        assert (phrase.category is None) == (phrase.fallback == "no known noun")


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([row[0] for row in TABLE]), st.data())
def test_capitals_do_not_matter(text, data):
    flipped = "".join(data.draw(st.sampled_from([letter.lower(), letter.upper()])) for letter in text)
    one, other = DECOUPLE(text), DECOUPLE(flipped)
    for name in ("category", "head_span", "local", "context", "attributes", "place", "place_span", "fallback"):
        assert getattr(one, name) == getattr(other, name)
    assert Counter(relation.span for relation in one.relations) == Counter(
        relation.span for relation in other.relations
    )


@pytest.mark.parametrize(("option", "local"), [("rules", "dam"), ("whole", "the dam on the left")])
def test_the_options_of_the_config(option, local):
    node = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "decoupler" / f"{option}.yaml"))
    phrase = instantiate(node, "decoupler", knowledge=Knowledge.load("rrsis_d"))("the dam on the left")
    assert words(phrase, phrase.local) == local


def test_without_decoupling_all_words_are_local():
    phrase = WholeDecoupler()("The ship, on the left!")
    assert words(phrase, phrase.local) == "The ship on the left"
    assert (phrase.context, phrase.head, phrase.category, phrase.fallback) == ((), None, None, None)
    assert WholeDecoupler(Knowledge.load("isaid"))("").local == ()
