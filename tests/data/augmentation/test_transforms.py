import colorsys
import importlib.metadata
import pickle
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from layouts import picture
from s4eca.build import instantiate
from s4eca.data.augmentation.transforms import Augmentation
from s4eca.data.synthetic.drawing import draw_scene
from s4eca.data.synthetic.module import scene_at
from s4eca.data.synthetic.scenes import express
from s4eca.errors import S4ecaError

CONF = Path(__file__).parents[3] / "conf"
ALL_TURNS = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "rotation": 0.75}
PARTS = [{"brightness": 0.3}, {"contrast": 0.3}, {"blur": 2.0}, {"noise": 0.1}, {"hue": 0.1}, {"saturation": 0.5}]

# An array (S, S) and a position (x, y) under each of the eight turns.
TURNED = {
    "as it was": (lambda array: array, lambda x, y: (x, y)),
    "left to right": (np.fliplr, lambda x, y: (1 - x, y)),
    "upside down": (np.flipud, lambda x, y: (x, 1 - y)),
    "by 90": (lambda array: np.rot90(array, 1), lambda x, y: (y, 1 - x)),
    "by 180": (lambda array: np.rot90(array, 2), lambda x, y: (1 - x, 1 - y)),
    "by 270": (lambda array: np.rot90(array, 3), lambda x, y: (1 - y, x)),
    "diagonal": (np.transpose, lambda x, y: (y, x)),
    "other diagonal": (lambda array: np.rot90(array, 2).T, lambda x, y: (1 - y, 1 - x)),
}
SQUARE = np.arange(256, dtype=np.uint8).reshape(16, 16)  # no two turns of it are equal


def augment(augmentation, image, index=0, expression="The ship"):
    return augmentation(image, torch.zeros(image.shape[1:], dtype=torch.bool), expression, 0, 0, index)[0]


def turn_of(image, original):
    """Returns the name of the turn that an image (3, S, S) has undergone."""
    turns = [
        name
        for name, (turn, _) in TURNED.items()
        if all(np.array_equal(image[channel].numpy(), turn(original[channel])) for channel in range(3))
    ]
    assert len(turns) == 1
    return turns[0]


def drawn_turns(augmentation, expression, count):
    """Returns how often each turn is drawn, and the expressions that come with it."""
    image = torch.from_numpy(SQUARE).expand(3, 16, 16)
    counts, words = Counter(), {}
    for index in range(count):
        result, _, text, _ = augmentation(image, image[0] > 99, expression, 0, 0, index)
        name = turn_of(result, image.numpy())
        counts[name] += 1
        words.setdefault(name, set()).add(text)
    return counts, words


@pytest.mark.parametrize("part", PARTS)
def test_each_part_changes_the_image_by_seed_epoch_and_index(part):
    image = torch.from_numpy(picture(1)).permute(2, 0, 1)
    augmentation = Augmentation(**part)
    first = augment(augmentation, image)
    assert first.shape == image.shape
    assert first.dtype == torch.uint8
    assert not torch.equal(first, image)
    for position in range(3):  # whole-number brightness shifts may coincide, but not over six seeds
        keys = [tuple(value if place == position else 0 for place in range(3)) for value in range(6)]
        assert (
            len(
                {
                    augmentation(image, torch.zeros(image.shape[1:], dtype=torch.bool), "", *key)[0].numpy().tobytes()
                    for key in keys
                }
            )
            >= 5
        )
    # neither earlier calls nor another instance nor the global random state matter
    np.random.seed(3)
    assert torch.equal(augment(augmentation, image), first)
    assert torch.equal(augment(Augmentation(**part), image), first)


def test_brightness_keeps_within_its_limit():
    image = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    augmentation = Augmentation(brightness=0.1)
    shifts = [float(augment(augmentation, image, index).float().mean()) - 100 for index in range(60)]
    assert max(abs(shift) for shift in shifts) <= 0.1 * 255 + 1
    assert min(shifts) < -10
    assert max(shifts) > 10


def test_light_moves_nothing():
    """The bright half stays where it is, and so does the mask."""
    array = np.zeros((32, 32, 3), dtype=np.uint8)
    array[:, :16] = 200
    image = torch.from_numpy(array).permute(2, 0, 1)
    augmentation = Augmentation(brightness=0.1, contrast=0.1, blur=1.0, noise=0.05)
    for index in range(20):
        result = augment(augmentation, image, index).float()
        assert result[:, :, :14].mean() > result[:, :, 18:].mean() + 60


def test_off_by_default():
    assert not Augmentation().active
    assert not Augmentation(top="at the top").active
    for name in ("horizontal_flip", "vertical_flip", "rotation", "occlusion", *(next(iter(part)) for part in PARTS)):
        assert Augmentation(**{name: 0.1}).active


@pytest.mark.parametrize(
    "part",
    [
        {"brightness": 0.31},
        {"contrast": -0.1},
        {"blur": 4.0},
        {"noise": 0.5},
        {"hue": 0.11},
        {"saturation": 0.6},
        {"horizontal_flip": 1.1},
        {"vertical_flip": -0.5},
        {"rotation": 2.0},
        {"occlusion": float("nan")},
    ],
)
def test_strengths_out_of_range(part):
    name = next(iter(part))
    with pytest.raises(S4ecaError, match=rf"data\.augmentation\.{name}=.*choose a value from 0 to"):
        Augmentation(**part)


@pytest.mark.parametrize("value", ["abc", "0.1", None, True, [0.1]])
@pytest.mark.parametrize("name", ["hue", "rotation"])
def test_strengths_that_are_no_numbers(name, value):
    node = {"_target_": "s4eca.data.Augmentation", name: value}
    with pytest.raises(S4ecaError, match=rf"^data\.augmentation\.{name}=.* is not a number: choose a value from 0 to"):
        instantiate(node, "data.augmentation")


def test_albumentationsx_is_refused(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.1" if name == "albumentationsx" else real(name))
    with pytest.raises(S4ecaError, match="pip uninstall albumentationsx"):
        Augmentation(blur=1.0)


@pytest.mark.parametrize(
    ("name", "on"),
    [
        ("none", set()),
        ("photometric", {"brightness", "contrast", "hue", "saturation", "blur", "noise"}),
        ("geometric", {"horizontal_flip", "vertical_flip", "rotation"}),
        ("rmsin", {"occlusion"}),
    ],
)
def test_configs(name, on):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = OmegaConf.to_container(compose(f"augmentation/{name}").data.augmentation)
    augmentation = instantiate(node, "data.augmentation")
    assert isinstance(augmentation, Augmentation)
    assert {key for key, value in asdict(augmentation).items() if value and key != "top"} == on
    assert set(node) == {"_target_", *asdict(augmentation)}  # so that each key can be set without a plus sign
    assert augmentation.active == bool(on)


def test_unknown_name_of_the_upper_edge():
    with pytest.raises(S4ecaError, match=r"data\.augmentation\.top='in the sky'.*on the top, at the top"):
        Augmentation(top="in the sky")


def test_features_are_turned_alone():
    assert not Augmentation(turn_features=True).active
    assert Augmentation(turn_features=True, rotation=0.5).active
    with pytest.raises(S4ecaError, match=r"turn_features=1 is neither true nor false"):
        Augmentation(turn_features=1)
    for more in ({"noise": 0.1}, {"occlusion": 0.2}, {"hue": 0.05}):
        with pytest.raises(S4ecaError, match=r"leave flips and rotation alone switched on"):
            Augmentation(rotation=0.5, turn_features=True, **more)


def test_it_travels_to_workers():
    augmentation = Augmentation(**ALL_TURNS, noise=0.1, occlusion=0.5)
    image = torch.from_numpy(picture(1, 32, 32)).permute(2, 0, 1)
    arguments = (image, image[0] > 99, "A ship on the left", 3, 1, 4)
    first = augmentation(*arguments)
    copy = pickle.loads(pickle.dumps(augmentation))
    assert copy == augmentation
    second = copy(*arguments)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[2] == second[2]


def test_hue_keeps_within_its_limit():
    """A pure colour's hue is known, and so is how far it may go on the circle."""
    image = torch.tensor([40, 200, 40], dtype=torch.uint8)[:, None, None].expand(3, 8, 8)
    augmentation = Augmentation(hue=0.05)
    hues = []
    for index in range(60):
        red, green, blue = (augment(augmentation, image, index).float().mean(dim=(1, 2)) / 255).tolist()
        hues.append(colorsys.rgb_to_hsv(red, green, blue)[0] - 1 / 3)
    assert max(abs(hue) for hue in hues) < 0.05 + 0.01  # OpenCV has 180 hues
    assert min(hues) < -0.03
    assert max(hues) > 0.03


@pytest.mark.parametrize(
    "part", [{"hue": 0.1}, {"saturation": 0.5}, {"hue": 0.1, "saturation": 0.5}, {"brightness": 0.3, "contrast": 0.3}]
)
def test_a_colour_that_is_named_is_left_alone(part):
    image = torch.from_numpy(picture(1)).permute(2, 0, 1)
    augmentation = Augmentation(**part)
    named = "The red ship;A Gray dam.;A light-blue tank;The ship is darker than the dam;a reddish roof;The grey road"
    for number, expression in enumerate(
        f"{named};The cyan field;A ship of the same colour;The multi-colored roof".split(";")
    ):
        assert torch.equal(augment(augmentation, image, number, expression), image)
    for number, expression in enumerate(
        ["The ship", "A large oval stadium", "A tiny dam on the right", "A greenhouse", "A trusted palace"]
    ):
        assert not torch.equal(augment(augmentation, image, number, expression), image)


@pytest.mark.parametrize(
    "word",
    [
        "bluish",
        "whitish",
        "purplish",
        "blackish",
        "greyish",
        "grayish",
        "paler",
        "palest",
        "whiter",
        "whitest",
        "redder",
        "reddest",
        "darker",
        "lighter",
        "rust",
        "rusty",
        "crimson",
        "scarlet",
        "ivory",
        "amber",
        "charcoal",
        "indigo",
        "lavender",
        "burgundy",
        "monochrome",
    ],
)
def test_words_for_colour_and_lightness(word):
    image = torch.tensor([126, 128, 136], dtype=torch.uint8)[:, None, None].expand(3, 8, 8)
    augmentation = Augmentation(brightness=0.3, contrast=0.3, hue=0.1, saturation=0.5)
    assert torch.equal(augment(augmentation, image, 0, f"The {word} roof"), image)


def test_gray_stays_gray():
    """A gray surface would otherwise become black or white."""
    image = torch.tensor([126, 128, 136], dtype=torch.uint8)[:, None, None].expand(3, 8, 8)
    augmentation = Augmentation(brightness=0.3, contrast=0.3)
    assert all(torch.equal(augment(augmentation, image, index, "The gray ship"), image) for index in range(20))
    means = [float(augment(augmentation, image, index, "The ship").float().mean()) for index in range(20)]
    assert max(means) - min(means) > 60


def test_the_other_parts_change_an_image_whose_colour_is_named():
    image = torch.from_numpy(picture(1)).permute(2, 0, 1)
    both, alone = Augmentation(hue=0.1, noise=0.1), Augmentation(hue=0.1)
    assert not torch.equal(augment(both, image, 0, "The red ship"), image)
    assert torch.equal(augment(alone, image, 0, "The red ship"), image)


def test_all_eight_turns_are_equally_likely():
    counts, words = drawn_turns(Augmentation(**ALL_TURNS), "The ship", 800)
    assert set(counts) == set(TURNED)
    assert all(abs(count - 100) < 4 * np.sqrt(800 / 8 * 7 / 8) for count in counts.values())
    assert all(texts == {"The ship"} for texts in words.values())


@pytest.mark.parametrize(
    ("part", "share"),
    [
        ({"horizontal_flip": 0.3}, {"left to right": 0.3, "as it was": 0.7}),
        ({"vertical_flip": 1.0}, {"upside down": 1.0}),
        ({"rotation": 0.6}, {"by 90": 0.2, "by 180": 0.2, "by 270": 0.2, "as it was": 0.4}),
        ({"horizontal_flip": 1.0, "vertical_flip": 1.0}, {"by 180": 1.0}),
        ({"horizontal_flip": 1.0, "rotation": 1.0}, {"upside down": 1 / 3, "diagonal": 1 / 3, "other diagonal": 1 / 3}),
    ],
)
def test_probabilities(part, share):
    counts, _ = drawn_turns(Augmentation(**part), "The ship", 400)
    assert set(counts) == set(share)
    for name, expected in share.items():
        assert counts[name] / 400 == pytest.approx(expected, abs=0.1)


def test_image_mask_and_words_of_each_turn():
    _, words = drawn_turns(Augmentation(**ALL_TURNS), "The ship above the dam on the left", 200)
    assert words == {
        "as it was": {"The ship above the dam on the left"},
        "left to right": {"The ship above the dam on the right"},
        "upside down": {"The ship below the dam on the left"},
        "by 90": {"The ship on the left of the dam at the bottom"},
        "by 180": {"The ship below the dam on the right"},
        "by 270": {"The ship on the right of the dam on the top"},
        "diagonal": {"The ship on the left of the dam on the top"},
        "other diagonal": {"The ship on the right of the dam at the bottom"},
    }


def test_only_turns_that_the_words_allow():
    """The chances of those that are left keep their proportions."""
    augmentation = Augmentation(**ALL_TURNS)
    counts, words = drawn_turns(augmentation, "The ship on the far right", 400)
    assert set(counts) == {"as it was", "left to right", "upside down", "by 180"}
    assert all(abs(count - 100) < 4 * np.sqrt(75) for count in counts.values())
    assert words["by 180"] == words["left to right"] == {"The ship on the far left"}
    assert set(drawn_turns(augmentation, "The ship right next to the dam", 50)[0]) == {"as it was", "upside down"}
    assert set(drawn_turns(augmentation, "The vehicle turning left", 50)[0]) == {"as it was"}
    # asked for always, and not allowed
    assert set(drawn_turns(Augmentation(horizontal_flip=1.0), "The vehicle turning left", 9)[0]) == {"as it was"}


def test_turns_depend_on_seed_epoch_and_index():
    image = torch.from_numpy(SQUARE).expand(3, 16, 16)
    augmentation = Augmentation(**ALL_TURNS)
    for position in range(3):
        keys = [tuple(value if place == position else 2 for place in range(3)) for value in range(30)]
        results = {augmentation(image, image[0] > 99, "", *key)[0].numpy().tobytes() for key in keys}
        assert len(results) >= 6  # of eight


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 1000))
def test_a_drawn_scene_is_augmented_as_a_whole(seed, index):
    """Image, mask and words come out as if the scene's things had been turned and described again."""
    scene, rng = scene_at(seed, "train", index)
    picture, mask = draw_scene(scene, 64, rng)
    image = torch.from_numpy(picture).permute(2, 0, 1)
    augmentation = Augmentation(**ALL_TURNS, top="at the top")
    whole = torch.from_numpy(mask)
    turned, turned_mask, expression, turn = augmentation(image, whole, scene.expression, seed, 0, index)
    name = turn_of(turned, image.numpy())
    move, position = TURNED[name]
    assert torch.equal(turn.pixels(image), turned)
    assert torch.equal(turn.inverse.pixels(turned), image)
    assert np.array_equal(turned_mask.numpy(), move(mask))
    things = []
    for thing in scene.things:
        x, y = position(thing.x, thing.y)
        things.append(replace(thing, x=x, y=y))
    assert expression == express(things, scene.target, scene.description)
    target = things[scene.target]
    rows, columns = np.nonzero(turned_mask.numpy())
    distance = np.hypot((columns + 0.5) / 64 - target.x, (rows + 0.5) / 64 - target.y)
    assert distance.max() < target.radius + 1.5 / 64
    # the originals are as they were
    assert np.array_equal(image.permute(1, 2, 0).numpy(), picture)
