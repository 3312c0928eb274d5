import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grammar import referents
from layouts import SAMPLES
from s4eca.data.augmentation.directions import rewrite
from s4eca.data.augmentation.turns import Turn
from s4eca.data.readers.rrsis_d import read_refer_entries
from s4eca.data.synthetic.module import scene_at
from s4eca.data.synthetic.scenes import express

# The same eight turns as NumPy does them, and as a position (x, y) in the unit square with y downwards moves.
ARRAYS = {
    Turn.IDENTITY: lambda array: array,
    Turn.HORIZONTAL_FLIP: np.fliplr,
    Turn.VERTICAL_FLIP: np.flipud,
    Turn.ROTATE_90: np.rot90,
    Turn.ROTATE_180: partial(np.rot90, k=2),
    Turn.ROTATE_270: partial(np.rot90, k=3),
    Turn.TRANSPOSE: np.transpose,
    Turn.ANTITRANSPOSE: lambda array: np.rot90(array, 2).T,
}
POSITIONS = {
    Turn.IDENTITY: lambda x, y: (x, y),
    Turn.HORIZONTAL_FLIP: lambda x, y: (1 - x, y),
    Turn.VERTICAL_FLIP: lambda x, y: (x, 1 - y),
    Turn.ROTATE_90: lambda x, y: (y, 1 - x),
    Turn.ROTATE_180: lambda x, y: (1 - x, 1 - y),
    Turn.ROTATE_270: lambda x, y: (1 - y, x),
    Turn.TRANSPOSE: lambda x, y: (y, x),
    Turn.ANTITRANSPOSE: lambda x, y: (1 - y, 1 - x),
}
TURNS = st.sampled_from(list(Turn))
QUARTERS = (Turn.ROTATE_90, Turn.ROTATE_270, Turn.TRANSPOSE, Turn.ANTITRANSPOSE)
STRAIGHT = (Turn.IDENTITY, Turn.HORIZONTAL_FLIP, Turn.VERTICAL_FLIP, Turn.ROTATE_180)

# RRSIS-D's wording, laid out as on the image.
PLACES = [
    ["on the upper left", "on the top", "on the upper right"],
    ["on the left", "in the middle", "on the right"],
    ["on the lower left", "at the bottom", "on the lower right"],
]
RELATIONS = [
    ["on the upper left of", "above", "on the upper right of"],
    ["on the left of", "next to", "on the right of"],
    ["on the lower left of", "below", "on the lower right of"],
]

CORNERS = [("upper", "left"), ("upper", "right"), ("lower", "left"), ("lower", "right")]

PLACED = st.sampled_from([phrase for row in PLACES for phrase in row])
RELATED = st.sampled_from([phrase for row in RELATIONS for phrase in row])
NOUNS = st.sampled_from(["ship", "large red vehicle", "overpass", "light gray dam", "bright airport", "storage tank"])


@st.composite
def expressions(draw):
    """Sentences in RRSIS-D's grammar."""
    text = f"{draw(st.sampled_from(['The', 'A']))} {draw(NOUNS)}"
    if draw(st.booleans()):
        text += f" is {draw(RELATED)} the {draw(NOUNS)}"
    if draw(st.booleans()):
        text += f" {draw(PLACED)}"
    return text


def real_expressions():
    path = SAMPLES / "rrsisd_refs" / "refs_val.p"
    if not path.is_file():
        pytest.skip("RRSIS-D's validation expressions are not in ../shared/data")
    return sorted({sentence for entry in read_refer_entries(path) for sentence in entry.sentences})


@pytest.mark.parametrize("turn", Turn)
def test_pixels_and_positions_turn_alike(turn):
    array = np.random.default_rng(0).integers(0, 256, (5, 5), dtype=np.uint8)
    image = torch.from_numpy(array).expand(3, 5, 5)
    result = turn.pixels(image)
    assert result.is_contiguous()
    assert np.array_equal(result[1].numpy(), ARRAYS[turn](array))
    assert turn.point(0.3, 0.9) == pytest.approx(POSITIONS[turn](0.3, 0.9))
    spot = torch.zeros(10, 10, dtype=torch.bool)
    spot[2, 6] = True  # centre at x 0.65, y 0.25
    row, column = turn.pixels(spot).nonzero()[0].tolist()
    assert ((column + 0.5) / 10, (row + 0.5) / 10) == pytest.approx(POSITIONS[turn](0.65, 0.25))
    assert turn.swaps_axes == (turn in QUARTERS)
    # a clockwise walk round three corners
    corners = [ARRAYS[turn](np.arange(9).reshape(3, 3)).ravel().tolist().index(corner) for corner in (0, 2, 8)]
    (ax, ay), (bx, by), (cx, cy) = ((number % 3, number // 3) for number in corners)
    assert turn.mirrors == ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0)


@pytest.mark.parametrize("first", Turn)
@pytest.mark.parametrize("second", Turn)
def test_turns_follow_one_another(first, second):
    array = np.arange(9).reshape(3, 3)
    assert np.array_equal(ARRAYS[first.then(second)](array), ARRAYS[second](ARRAYS[first](array)))


@pytest.mark.parametrize("turn", Turn)
@pytest.mark.parametrize("phrases", [PLACES, RELATIONS])
def test_each_phrase_moves_as_its_part_of_the_image(phrases, turn):
    pattern = "A ship {}" if phrases is PLACES else "A ship is {} the dam"
    moved = ARRAYS[turn](np.arange(9).reshape(3, 3))
    for row in range(3):
        for column in range(3):
            source = divmod(int(moved[row, column]), 3)
            before, after = phrases[source[0]][source[1]], phrases[row][column]
            assert rewrite(pattern.format(before), turn) == pattern.format(after)


@settings(max_examples=100, deadline=None)
@given(expressions(), TURNS, TURNS)
def test_rewriting_is_an_action_of_the_group(expression, first, second):
    once = rewrite(expression, first)
    assert rewrite(once, second) == rewrite(expression, first.then(second))
    assert rewrite(expression, Turn.IDENTITY) == expression


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 10_000), TURNS)
def test_a_turned_scene_is_described_by_the_rewritten_expression(seed, number, turn):
    scene, _ = scene_at(seed, "train", number)
    assert express(scene.things, scene.target, scene.description) == scene.expression
    things = []
    for thing in scene.things:
        x, y = POSITIONS[turn](thing.x, thing.y)
        things.append(replace(thing, x=x, y=y))
    rewritten = rewrite(scene.expression, turn, top="at the top")
    assert rewritten == express(things, scene.target, scene.description)
    # and by another reading of the words it is true of the target alone
    assert referents(things, rewritten) == [things[scene.target]]


def test_the_drawn_scenes_exercise_every_turn():
    """A property over scenes would be empty if few of their sentences changed."""
    changed = 0
    for number in range(200):
        scene, _ = scene_at(0, "train", number)
        changed += rewrite(scene.expression, Turn.ROTATE_90, "at the top") != scene.expression
    assert 60 < changed < 140  # about half name a place or a relation


EXAMPLES = [
    # expression, flipped left to right, flipped upside down, turned by 90° counter-clockwise
    ("The ship to the left of the dam", "The ship to the right of the dam", None, "The ship below the dam"),
    ("A car in the top-left corner", "A car in the top-right corner", "A car in the bottom-left corner", "=v"),
    ("A car in the left top", "A car in the right top", "A car in the left bottom", "=v"),
    ("The Upper Left ship.", "The Upper Right ship.", "The Lower Left ship.", "=v"),
    ("A topleft ship", "A topright ship", "A bottomleft ship", "=v"),
    (
        "Left of the dam, above the ship",
        "Right of the dam, above the ship",
        "Left of the dam, below the ship",
        "Below the dam, on the left of the ship",
    ),
    ("Above the dam, a ship", None, "Below the dam, a ship", "On the left of the dam, a ship"),
    ("THE SHIP ON THE LEFT", "THE SHIP ON THE RIGHT", None, "THE SHIP AT THE BOTTOM"),
    (
        "The ship on the left of the image",
        "The ship on the right of the image",
        None,
        "The ship at the bottom of the image",
    ),
    ("The ship, on the top, is red", None, "The ship, at the bottom, is red", "The ship, on the left, is red"),
    ("The ship at the top", None, "The ship at the bottom", "The ship on the left"),
    ("The ship in the bottom", None, "The ship in the top", "The ship on the right"),
    ("The left ship", "The right ship", None, "The lower ship"),
    (
        "The ship on the right side of the dam",
        "The ship on the left side of the dam",
        None,
        "The ship on the top side of the dam",
    ),
    ("In the upper half", None, "In the lower half", "In the left half"),
    ("The leftmost of the ships", "The rightmost of the ships", None, "The bottommost of the ships"),
    ("A road from left to right", "A road from right to left", None, "A road from bottom to top"),
    (
        "The tenth ship from the left",
        "The tenth ship from the right",
        None,
        "The tenth ship from the bottom",
    ),
    ("The bridge is above the ship", None, "The bridge is below the ship", "The bridge is on the left of the ship"),
    (
        "A overpass on the lower right of the bridge",
        "A overpass on the lower left of the bridge",
        "A overpass on the upper right of the bridge",
        "A overpass on the upper right of the bridge",
    ),
    (
        "A bridge is above the expressway service area",
        None,
        "A bridge is below the expressway service area",
        "A bridge is on the left of the expressway service area",
    ),
    (
        "The ground track field is below the overpass",
        None,
        "The ground track field is above the overpass",
        "The ground track field is on the right of the overpass",
    ),
    (
        "The airplane above the ship on the river",
        None,
        "The airplane below the ship on the river",
        "The airplane on the left of the ship on the river",
    ),
    ("The second ship from the left", "The second ship from the right", None, "The second ship from the bottom"),
    ("A ship pointing up", None, "A ship pointing down", "A ship pointing left"),
    ("A ship heading leftwards", "A ship heading rightwards", None, "A ship heading downwards"),
    (
        "In the north-eastern part",
        "In the north-western part",
        "In the south-eastern part",
        "In the north-western part",
    ),
    ("South of the dam", None, "North of the dam", "East of the dam"),
    ("A north-south road", None, "A south-north road", "A west-east road"),
    ("An east wing", "A west wing", None, "A north wing"),
    ("An upper left ship", "An upper right ship", "A lower left ship", "A lower left ship"),
    ("A vertical road", None, None, "A horizontal road"),
    ("The vehicles parked vertically", None, None, "The vehicles parked horizontally"),
    ("A bright overpass next to a rooftop", None, None, None),
    ("The ship in the middle", None, None, None),
    ("vehicle in the parking area", None, None, None),
]


@pytest.mark.parametrize(("expression", "flipped", "upended", "rotated"), EXAMPLES)
def test_examples(expression, flipped, upended, rotated):
    """None: as it was; "=v": as upside down."""
    upended = upended or expression
    rotated = upended if rotated == "=v" else rotated or expression
    assert rewrite(expression, Turn.HORIZONTAL_FLIP) == (flipped or expression)
    assert rewrite(expression, Turn.VERTICAL_FLIP) == upended
    assert rewrite(expression, Turn.ROTATE_90) == rotated


SIDEWAYS = {Turn.IDENTITY, Turn.VERTICAL_FLIP}  # turns that keep left and right
UPRIGHT = {Turn.IDENTITY, Turn.HORIZONTAL_FLIP}  # turns that keep up and down
UNCERTAIN = [
    ("The ship right next to the dam", SIDEWAYS),
    ("The space left between the ships", SIDEWAYS),
    ("The left wing of the airplane", {Turn.IDENTITY}),
    ("A ship on the top right next to the dam", {Turn.IDENTITY}),
    ("The tank on top of the building", UPRIGHT),
    ("The vehicle under the bridge", UPRIGHT),
    ("A airplane flying above the airport", UPRIGHT),
    ("The harbor seen from above", UPRIGHT),
    ("The harbor seen from the top", UPRIGHT),
    ("The ship behind the dam", UPRIGHT),
    ("The chimney is lower than the windmill", UPRIGHT),
    ("The upper bridge", UPRIGHT),
    ("The lowest ship", UPRIGHT),
    ("The highest of the ships", UPRIGHT),
    ("A tank higher than the building", UPRIGHT),
    ("The bridge above the river", UPRIGHT),
    ("The bridge over the river", UPRIGHT),
    ("The overpass above the road", UPRIGHT),
    ("The airplane above the runway", UPRIGHT),
    ("Two overpasses are located above the wide, busy highways", UPRIGHT),
    ("A footbridge that lies directly above several railway tracks", UPRIGHT),
    ("A helicopter above water", UPRIGHT),
    ("The road below the old viaduct", UPRIGHT),
    ("The vehicle on the expressway below the flyover", UPRIGHT),
    ("A ship on the far right", set(STRAIGHT)),
    ("The ship further to the left", set(STRAIGHT)),
    ("On the right-hand side", set(STRAIGHT)),
    ("The middle left ship", set(STRAIGHT)),
    ("The ships in a row", set(STRAIGHT)),
    ("A vehicle turning left", {Turn.IDENTITY}),
    ("A right turn", {Turn.IDENTITY}),
    *((f"The {ordinal} ship", {Turn.IDENTITY}) for ordinal in ("second", "seventh", "eighth", "ninth", "tenth")),
    ("A ship at 3 o'clock", {Turn.IDENTITY}),
    ("In the NE corner", {Turn.IDENTITY}),
    ("A station near West Lake", SIDEWAYS),
    ("A ship turned clockwise", {Turn.IDENTITY, Turn.ROTATE_90, Turn.ROTATE_180, Turn.ROTATE_270}),
    ("左边的船", {Turn.IDENTITY}),
]


@pytest.mark.parametrize(("expression", "kept"), UNCERTAIN)
def test_what_could_become_wrong_is_refused(expression, kept):
    assert {turn for turn in Turn if rewrite(expression, turn) is not None} == kept
    for turn in kept & (SIDEWAYS if "left" in expression or "right" in expression.lower() else UPRIGHT):
        assert rewrite(expression, turn) == expression


def test_nothing_is_replaced_twice():
    assert rewrite("Left of the right ship", Turn.HORIZONTAL_FLIP) == "Right of the left ship"
    assert rewrite("Above the ship below the dam", Turn.ROTATE_180) == "Below the ship above the dam"


def test_the_datasets_name_of_the_upper_edge():
    assert rewrite("A ship on the right", Turn.ROTATE_90) == "A ship on the top"
    assert rewrite("A ship on the right", Turn.ROTATE_90, top="at the top") == "A ship at the top"
    assert rewrite("A ship at the bottom", Turn.VERTICAL_FLIP, top="at the top") == "A ship at the top"


def test_real_expressions():
    texts = real_expressions()
    assert len(texts) == 1087
    refused = {turn: [text for text in texts if rewrite(text, turn) is None] for turn in Turn}
    for turn in STRAIGHT:
        assert refused[turn] == []
    for turn in QUARTERS:  # 0.2 %
        assert refused[turn] == ["A ship on the far right", "A storage tank on the far right"]
    for text in texts:
        assert rewrite(text, Turn.IDENTITY) == text
        for turn in (Turn.HORIZONTAL_FLIP, Turn.VERTICAL_FLIP, Turn.ROTATE_180):
            assert rewrite(rewrite(text, turn), turn) == text
        if text not in [*refused[Turn.ROTATE_90], "A overpass in the bottom"]:  # the one that is off the grammar
            assert rewrite(rewrite(text, Turn.ROTATE_90), Turn.ROTATE_270) == text
            assert rewrite(rewrite(text, Turn.TRANSPOSE), Turn.TRANSPOSE) == text
    # every sentence with one of these words changes, and no other
    sideways = [text for text in texts if re.search(r"\b(left|right)\b", text)]
    upright = [text for text in texts if re.search(r"\b(upper|lower|top|bottom|above|below)\b", text)]
    assert [text for text in texts if rewrite(text, Turn.HORIZONTAL_FLIP) != text] == sideways
    assert [text for text in texts if rewrite(text, Turn.VERTICAL_FLIP) != text] == upright


def test_rewritten_real_expressions_keep_to_the_datasets_wording():
    texts = real_expressions()
    place = r"\b(?:on|at|in) the (?:(?:upper|lower|far) )?(?:left|right|top|bottom)\b(?: of)?"
    phrase = re.compile(rf"{place}|is (?:above|below) the")
    words = {word.lower() for text in texts for word in text.split()}
    assert len(words) == 81
    wording = {found for text in texts for found in phrase.findall(text)}
    assert len(wording) == 19  # eight places, eight relations, and three that occur once or twice
    for text in texts:
        for turn in Turn:
            rewritten = rewrite(text, turn) or text
            assert {word.lower() for word in rewritten.split()} <= words
            new = set(phrase.findall(rewritten)) - wording
            # from "on the far right", "in the bottom", "in the upper left"
            assert new <= {"on the far left", "in the top", *(f"in the {v} {h}" for v, h in CORNERS)}
