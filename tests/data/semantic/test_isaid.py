import warnings

import pytest

from fake_isaid import write_patches, write_scenes
from layouts import SAMPLES
from s4eca.data.semantic.isaid import PATCH_COUNTS, SCENE_COUNTS, read_isaid
from s4eca.data.semantic.palette import read_labels
from s4eca.errors import S4ecaError

SIZES = {"P0007": (10, 14), "P0003": (9, 8)}

pytestmark = pytest.mark.filterwarnings("ignore:.*are expected")


@pytest.mark.parametrize("folder", ["images", "Semantic_masks/images"])
@pytest.mark.parametrize("below", ["", "iSAID"])
def test_scenes_are_read_with_their_labels_in_either_place(tmp_path, folder, below):
    scenes = write_scenes(tmp_path / below, SIZES, labels=folder)
    items = read_isaid(tmp_path, "val")
    assert [item.id for item in items] == ["P0003", "P0007"]
    for item in items:
        assert item.image == tmp_path / below / "val" / "images" / f"{item.id}.png"
        assert read_labels(item).tolist() == scenes[item.id][1].tolist()


def test_patches_are_read_before_scenes(tmp_path):
    write_scenes(tmp_path, SIZES)
    ids = write_patches(tmp_path, 3)
    items = read_isaid(tmp_path, "val")
    assert [item.id for item in items] == list(ids)
    for item in items:
        assert read_labels(item).tolist() == ids[item.id].tolist()
    assert [item.id for item in read_isaid(tmp_path, "val", patches=False)] == ["P0003", "P0007"]


@pytest.mark.parametrize(
    "write", [lambda root: write_scenes(root, SIZES, "test"), lambda root: write_patches(root, 2, split="test")]
)
def test_the_test_split_has_no_labels(tmp_path, write):
    write(tmp_path)
    items = read_isaid(tmp_path, "test")
    assert [item.labels for item in items] == [None, None]
    assert read_labels(items[0]) is None


def test_a_root_without_a_layout_says_where_it_looked(tmp_path):
    (tmp_path / "img_dir" / "val").mkdir(parents=True)
    with pytest.raises(S4ecaError) as caught:
        read_isaid(tmp_path, "val")
    for place in ("ann_dir/val", "val/images", "iSAID/img_dir/val", "iSAID/val/images"):
        assert str(tmp_path / place) in str(caught.value)


def test_a_missing_root_and_an_unknown_split_are_named(tmp_path):
    with pytest.raises(S4ecaError, match=r"no folder .*nowhere.*data\.root"):
        read_isaid(tmp_path / "nowhere", "val")
    with pytest.raises(S4ecaError, match="no split 'valid'"):
        read_isaid(tmp_path, "valid")


def test_missing_label_maps_are_counted_and_named(tmp_path):
    write_scenes(tmp_path, SIZES)
    (tmp_path / "val" / "images" / "P0007_instance_color_RGB.png").unlink()
    with pytest.raises(
        S4ecaError, match=r"1 of 2 label maps .*P0007_instance_color_RGB\.png; looked in .*Semantic_masks"
    ):
        read_isaid(tmp_path, "val")


def test_an_empty_split_is_an_error(tmp_path):
    (tmp_path / "val" / "images").mkdir(parents=True)
    with pytest.raises(S4ecaError, match="is empty"):
        read_isaid(tmp_path, "val")


@pytest.mark.filterwarnings("default")
def test_another_number_than_published_is_a_warning_or_an_error(tmp_path, monkeypatch):
    write_patches(tmp_path, 2)
    with pytest.warns(UserWarning, match="has 2 patches where 11,644 are expected"):
        read_isaid(tmp_path, "val")
    with pytest.raises(S4ecaError, match=r"2 patches where 11,644 .*data\.strict_counts=false"):
        read_isaid(tmp_path, "val", strict_counts=True)
    monkeypatch.setitem(PATCH_COUNTS, "val", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_isaid(tmp_path, "val", strict_counts=True)) == 2


@pytest.mark.filterwarnings("default")
def test_scenes_are_compared_with_the_number_of_scenes(tmp_path):
    write_scenes(tmp_path, SIZES, "train")
    assert (SCENE_COUNTS["train"], PATCH_COUNTS["train"]) == (1411, 33978)
    with pytest.warns(UserWarning, match="has 2 scenes where 1,411 are expected"):
        read_isaid(tmp_path, "train")


def test_real_scenes():
    root = SAMPLES / "isaid_mini"
    if not root.is_dir():
        pytest.skip(f"no sample data in {root}")
    assert [(item.id, item.labels.name) for item in read_isaid(root, "val")] == [
        ("P0003", "P0003_instance_color_RGB.png")
    ]
    assert [(item.id, item.labels) for item in read_isaid(root, "test")] == [("P0006", None)]
