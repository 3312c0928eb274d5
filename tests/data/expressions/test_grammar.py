import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.data.augmentation.directions import TOPS, rewrite
from s4eca.data.augmentation.turns import Turn
from s4eca.data.expressions.grammar import Instance, Margins, describe, is_plain, is_turnable, words_of
from s4eca.errors import S4ecaError
from said import NAMES, Thing, check

HUNDREDTHS = st.integers(1, 99).map(lambda number: number / 100)
PLACES = st.one_of(HUNDREDTHS, st.floats(0.001, 0.999))


@st.composite
def layouts(draw):
    """Things of few classes anywhere in an image; centres often on one line and sometimes in one place."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    count = draw(st.integers(1, 9))
    things = [
        Thing(
            number,
            draw(st.sampled_from(names)),
            draw(PLACES),
            draw(PLACES),
            draw(st.integers(1, 1000)),
            draw(st.integers(0, 9)) == 0,
        )
        for number in range(count)
    ]
    barred = draw(st.one_of(st.just([]), st.lists(st.sampled_from(NAMES), max_size=1)))
    return things, barred, draw(st.sampled_from([1.0, 0.4, 1.6, 2.5]))


def said_of(things, *options, **more):
    instances = [Instance(item.id, item.name, item.x, item.y, item.area, item.cut) for item in things]
    return describe(instances, *options, **more)


@settings(max_examples=150, deadline=None)
@given(
    layouts(),
    st.sampled_from(
        [Margins(), Margins(0.1, 0.12, 0.1, 2.0, 0.2, 2.0), Margins(0.001, 0.001, 0.001, 1.001, 0.001, 1.001)]
    ),
)
def test_every_expression_is_true_of_its_target_alone_in_every_turn(layout, margins):
    things, barred, aspect = layout
    found = said_of(things, barred, aspect, margins)
    for item in found:
        kind = check(item.text, things[item.target.id], things, margins, barred, aspect)
        assert item.kind == ("relation" if kind == "closest" else kind)
        for turn in Turn:
            turned = [thing.turned(turn) for thing in things]
            for top in TOPS:
                text = rewrite(item.text, turn, top)
                assert text is not None
                stretch = 1 / aspect if turn.swaps_axes else aspect
                check(text, turned[item.target.id], turned, margins, barred, stretch)
    owners = {}
    for item in found:
        assert owners.setdefault(item.text, item.target.id) == item.target.id
    assert len(owners) == len(found)


def texts(*things, **options):
    return {item.text: item.target.id for item in said_of(list(things), **options)}


def test_a_line_of_four_ships():
    things = [Thing(n, "ship", 0.1 + 0.25 * n, 0.5, area) for n, area in enumerate((100, 150, 150, 300))]
    assert texts(*things) == {
        "the ship on the right": 3,
        "the leftmost ship": 0,
        "the rightmost ship": 3,
        "the largest ship": 3,
        "the smallest ship": 0,
        "the second ship from the left": 1,
        "the third ship from the left": 2,
    }


def test_one_of_its_class_is_named_by_it_and_nothing_more():
    assert texts(Thing(0, "ship", 0.1, 0.1), Thing(1, "harbor", 0.9, 0.9)) == {"the ship": 0, "the harbor": 1}


def test_relations_to_the_only_one():
    ships = Thing(0, "ship", 0.5, 0.2), Thing(1, "ship", 0.4, 0.9)
    found = texts(*ships, Thing(2, "harbor", 0.5, 0.6))
    assert {text: id for text, id in found.items() if "harbor" in text} == {
        "the harbor": 2,
        "the ship above the harbor": 0,
        "the ship below the harbor": 1,
    }
    # a second one is higher than the harbor too, though not above it
    found = texts(*ships, Thing(3, "ship", 0.9, 0.5), Thing(2, "harbor", 0.5, 0.6))
    assert "the ship above the harbor" not in found
    assert found["the ship on the right of the harbor"] == 3
    # nor is anything said of two harbors
    found = texts(*ships, Thing(2, "harbor", 0.5, 0.6), Thing(3, "harbor", 0.5, 0.7))
    assert not any(text.endswith("the harbor") for text in found)


@pytest.mark.parametrize(
    ("across", "aspect", "said"),
    [(0.2, 1.0, True), (0.2, 0.4, True), (0.2, 2.5, False), (0.4, 1.0, False), (0.4, 0.4, False)],
)
def test_above_is_steep_in_the_file_and_in_the_square(across, aspect, said):
    # 0.2 across and 0.3 up: 34 degrees off in a square, 59 in an image that is 2.5 times as wide as high
    # 0.4 across and 0.3 up: 53 degrees off in a square, 28 in an image that is 0.4 times as wide as high
    things = Thing(0, "ship", 0.3 + across, 0.3), Thing(1, "ship", 0.5, 0.9), Thing(2, "harbor", 0.3, 0.6)
    assert ("the ship above the harbor" in texts(*things, aspect=aspect)) == said
    turned = [thing.turned(Turn.TRANSPOSE) for thing in things]
    assert ("the ship on the left of the harbor" in texts(*turned, aspect=1 / aspect)) == said


def test_two_in_one_place_are_equally_close():
    things = Thing(0, "ship", 0.5, 0.5), Thing(1, "ship", 0.5, 0.5), Thing(2, "harbor", 0.5, 0.5)
    assert texts(*things) == {"the harbor": 2}


def test_a_small_vehicle_is_a_vehicle():
    found = texts(Thing(0, "vehicle", 0.2, 0.2), Thing(1, "small vehicle", 0.7, 0.8))
    assert found["the small vehicle"] == 1
    assert found["the leftmost vehicle"] == 0
    assert "the vehicle" not in found
    assert not any(text.endswith(" the small vehicle") for text in found)
    assert "the rightmost vehicle" not in found  # it is one, and would be called by its own name
    assert not any("vehicle" in text.replace("small vehicle", "") for text in found if found[text] == 1)


def test_nothing_is_said_of_a_class_that_is_not_known_whole():
    things = Thing(0, "vehicle", 0.2, 0.2), Thing(1, "ship", 0.8, 0.8)
    assert texts(*things, barred=["small vehicle"]) == {"the ship": 1}
    assert texts(*things, barred=["vehicle", "ship"]) == {}


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("the ship on the left", {"x": 0.30}),
        ("the leftmost ship", {"x": 0.46}),
        ("the smallest ship", {"area": 150}),
        ("the largest ship", {"cut": True}),
        ("the second ship from the left", {"x": 0.47}),
        ("the ship closest to the harbor", {"x": 0.4}),
    ],
)
def test_margins(text, change):
    """Each sentence is said of three ships and a harbor, and no longer where the first ship is a little different."""
    harbor, others = Thing(9, "harbor", 0.1, 0.2), [Thing(1, "ship", 0.5, 0.5, 200), Thing(2, "ship", 0.8, 0.6, 400)]
    first = {"id": 0, "name": "ship", "x": 0.2, "y": 0.45, "area": 100}
    assert text in texts(Thing(**first), *others, harbor)
    assert text not in texts(Thing(**first | change), *others, harbor)


def test_all_kinds_come_up():
    generator = random.Random(0)
    counts = Counter()
    for _ in range(50):
        things = [
            Thing(n, name, generator.random(), generator.random(), generator.randint(50, 500))
            for n, name in enumerate(["ship"] * generator.randint(1, 6) + ["harbor"])
        ]
        counts.update(item.kind for item in said_of(things))
    assert set(counts) == {"class", "place", "extreme", "size", "ordinal", "relation"}


def test_names():
    assert words_of("Storage_tank") == words_of(" storage-tank ") == "storage tank"
    assert words_of("ground  track\nfield") == "ground track field"
    assert words_of("_") == ""
    assert all(map(is_plain, NAMES))
    assert not any(map(is_plain, ["", "upper deck", "schiff links oben rechts top", "船", "first base"]))


def test_what_a_turn_would_make_uncertain_is_known():
    assert is_turnable("the ship above the harbor")
    assert not is_turnable("the bridge above the road")


@pytest.mark.parametrize("options", [{"place": 0}, {"size": 1}, {"closest": 0.5}, {"relation": -0.1}])
def test_margins_that_decide_nothing_are_refused(options):
    with pytest.raises(S4ecaError, match=f"The margin {next(iter(options))}="):
        Margins(**options)
