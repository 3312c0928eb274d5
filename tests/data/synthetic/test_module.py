import hashlib
import itertools
import json
import math
import pickle
import pickletools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from grammar import PLAIN, RELATIVE, referents
from s4eca.data.readers.refsegrs import read_refsegrs
from s4eca.data.readers.rrsis_d import read_rrsis_d
from s4eca.data.synthetic import module as synthetic
from s4eca.data.synthetic.drawing import draw_scene
from s4eca.data.synthetic.module import scene_at, synthesize
from s4eca.errors import S4ecaError

SMALL = {"train": 3, "val": 2, "test": 2, "size": 64}


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["train", "val", "test"]), st.integers(0, 10_000))
def test_an_expression_singles_out_one_thing_among_rivals(seed, split, number):
    scene, _ = scene_at(seed, split, number)
    target = scene.things[scene.target]
    assert referents(scene.things, scene.expression) == [target]
    assert 3 <= len(scene.things) <= 5
    assert sum(thing.kind == target.kind for thing in scene.things) >= 2  # the class alone does not decide


def test_the_checker_sees_an_ambiguous_expression():
    scene, _ = scene_at(0, "train", 0)
    kind = scene.things[scene.target].kind
    assert len(referents(scene.things, f"The {kind}")) > 1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31))
def test_things_are_inside_and_apart(seed):
    scene, _ = scene_at(seed, "train", 0)
    for thing in scene.things:
        assert thing.radius < thing.x < 1 - thing.radius
        assert thing.radius < thing.y < 1 - thing.radius
    for one, other in itertools.combinations(scene.things, 2):
        assert math.hypot(one.x - other.x, one.y - other.y) > one.radius + other.radius


def test_words_are_spread_over_forms_classes_and_places():
    scenes = [scene_at(0, "train", number)[0] for number in range(600)]
    forms = Counter(
        "relation" if RELATIVE.match(scene.expression) else "place" if cell_in(scene.expression) else "attribute"
        for scene in scenes
    )
    assert 0.45 < forms["attribute"] / 600 < 0.65
    assert 0.25 < forms["place"] / 600 < 0.45
    assert 0.05 < forms["relation"] / 600 < 0.20
    assert len({scene.things[scene.target].kind for scene in scenes}) == 8
    assert len({cell_in(scene.expression) for scene in scenes if cell_in(scene.expression)}) == 9
    firsts = Counter(" ".join(scene.expression.split()[:2]) for scene in scenes)
    assert {"An airplane", "An orange", "A red", "The orange"} <= firsts.keys()
    assert not [first for first in firsts if re.match(r"A [aeiou]|An [^aeiou]", first)]
    assert len({scene.expression for scene in scenes}) > 200


def cell_in(expression):
    found = PLAIN.match(expression)
    return found and found["place1"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([64, 128, 161]))
def test_mask_is_the_target_and_nothing_else(seed, size):
    scene, rng = scene_at(seed, "val", 1)
    picture, mask = draw_scene(scene, size, rng)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    target = scene.things[scene.target]
    rows, columns = np.nonzero(mask)
    distance = np.hypot((columns + 0.5) / size - target.x, (rows + 0.5) / size - target.y)
    assert distance.max() < target.radius + 1.5 / size
    assert distance.max() > 0.8 * target.radius
    assert 0.02 < mask.mean() < 0.13


def test_mask_follows_the_drawing():
    """A storage tank is a disc: its area and its colour are known."""
    for number in itertools.count():
        scene, rng = scene_at(1, "train", number)
        target = scene.things[scene.target]
        if (target.kind, target.colour) == ("storage tank", "red"):
            break
    picture, mask = draw_scene(scene, 160, rng)
    assert mask.mean() == pytest.approx(math.pi * (0.98 * target.radius) ** 2, rel=0.03)
    inside = picture[mask].astype(float).mean(axis=0)
    assert inside[0] > 120 > 80 > max(inside[1:])


def digests(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("layout", ["rrsis_d", "refsegrs"])
def test_bytes_are_a_function_of_the_arguments(tmp_path, layout):
    first = synthesize(tmp_path / "a", layout, seed=3, **SMALL)
    assert digests(first) == digests(synthesize(tmp_path / "b", layout, seed=3, **SMALL))
    other = digests(synthesize(tmp_path / "c", layout, seed=4, **SMALL))
    pictures = [name for name in digests(first) if "images" in name]
    assert len(pictures) == 7
    assert all(digests(first)[name] != other[name] for name in pictures)


def test_more_images_leave_the_first_ones_alone(tmp_path):
    few = digests(synthesize(tmp_path / "a", **SMALL))
    more = digests(synthesize(tmp_path / "b", **(SMALL | {"test": 4})))
    for name in few:
        if name.endswith(".jpg"):
            assert few[name] == more[name]


def test_splits_share_no_scene(tmp_path):
    root = synthesize(tmp_path / "s", **SMALL)
    pictures = [value for name, value in digests(root).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == 7


def test_rrsis_d_files(tmp_path):
    root = synthesize(tmp_path / "s", **SMALL)
    content = (root / "rrsisd/refs(unc).p").read_bytes()
    opcodes = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(content)]
    assert opcodes[0] == ("PROTO", 2)
    assert not {"GLOBAL", "STACK_GLOBAL", "REDUCE", "INST", "OBJ"} & {name for name, _ in opcodes}
    refs = pickle.loads(content)
    instances = json.loads((root / "rrsisd/instances.json").read_text())
    assert [item["name"] for item in instances["categories"]][13:16] == ["ship", "stadium", "storagetank"]
    for ref, image, annotation in zip(refs, instances["images"], instances["annotations"], strict=True):
        id = ref["ref_id"]
        assert id == ref["image_id"] == ref["ann_id"] == ref["sent_ids"][0] == image["id"] == annotation["id"]
        assert ref["file_name"] == image["file_name"] == f"{id:05d}.jpg"
        assert ref["sentences"][0]["tokens"] == ref["sentences"][0]["raw"].split()
        assert "category_id" not in annotation
        assert annotation["categories_id"] == ref["category_id"]
        assert len(annotation["segmentation"]) == 1
        assert isinstance(annotation["segmentation"][0]["counts"], str)
    references = read_rrsis_d(root, "train", strict_counts=True, expected={"train": 3})
    for number, reference in enumerate(references):
        scene, rng = scene_at(0, "train", number)
        picture, mask = draw_scene(scene, 64, rng)
        assert reference.expression == scene.expression
        assert reference.category == scene.things[scene.target].kind.replace(" ", "")
        assert np.array_equal(reference.mask.decode(), mask)
        stored = np.array(Image.open(reference.image), dtype=int)
        assert np.abs(stored - picture).mean() < 12
        left, top, right, bottom = instances["annotations"][number]["bbox"]
        assert mask[top : bottom + 1, left : right + 1].sum() == mask.sum() == instances["annotations"][number]["area"]


def test_refsegrs_files(tmp_path):
    root = synthesize(tmp_path / "s", "refsegrs", **SMALL)
    references = read_refsegrs(root, "test", strict_counts=True, expected={"test": 2})
    for number, reference in enumerate(references):
        scene, rng = scene_at(0, "test", number)
        picture, mask = draw_scene(scene, 64, rng)
        assert reference.expression == scene.expression
        assert np.array_equal(reference.mask.decode(), mask)
        assert np.array_equal(np.array(Image.open(reference.image)), picture)
        with Image.open(root / "masks" / f"{reference.id}.tif") as grey:
            assert grey.info["compression"] == "packbits"
            assert set(np.unique(np.array(grey))) == {0, 255}


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(S4ecaError, match=r"holds something else.*data\.root"):
        synthesize(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_other_parameters_are_named(tmp_path):
    synthesize(tmp_path / "s", **SMALL)
    with pytest.raises(S4ecaError, match=r"size=64 instead of 96.*delete the folder"):
        synthesize(tmp_path / "s", **(SMALL | {"size": 96}))
    assert Image.open(next((tmp_path / "s").rglob("*.jpg"))).size == (64, 64)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_write_rrsis_d", fail)
        with pytest.raises(KeyboardInterrupt):
            synthesize(tmp_path / "s", **SMALL)
    assert list(tmp_path.iterdir()) == []
    assert synthesize(tmp_path / "s", **SMALL) == tmp_path / "s"


def test_a_faster_process_wins(tmp_path, monkeypatch):
    real = synthetic._write_rrsis_d

    def write_while_another_finishes(*arguments):
        real(*arguments)
        monkeypatch.setattr(synthetic, "_write_rrsis_d", real)
        synthesize(tmp_path / "s", **SMALL)

    monkeypatch.setattr(synthetic, "_write_rrsis_d", write_while_another_finishes)
    assert synthesize(tmp_path / "s", **SMALL) == tmp_path / "s"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert len(read_rrsis_d(tmp_path / "s", "train", expected={})) == 3


@pytest.mark.parametrize("change", [{"train": 0}, {"size": 20}, {"seed": -1}])
def test_arguments_out_of_range(tmp_path, change):
    with pytest.raises(S4ecaError, match="Synthetic data needs"):
        synthesize(tmp_path / "s", **(SMALL | change))
    with pytest.raises(S4ecaError, match="no layout 'coco'"):
        synthesize(tmp_path / "s", "coco")
