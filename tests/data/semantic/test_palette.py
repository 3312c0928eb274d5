import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fake_isaid import COLOURS, save
from layouts import SAMPLES
from s4eca.data.semantic.labelled import LabelledImage
from s4eca.data.semantic.palette import ISAID_CLASSES, ISAID_COLOURS, ISAID_LABELS, decode_colours, read_labels
from s4eca.errors import S4ecaError


def item(path, coloured=True) -> LabelledImage:
    return LabelledImage("P0001", path, "val", path, coloured)


def test_the_classes_are_those_of_the_devkit_in_its_order():
    assert list(ISAID_COLOURS.values()) == COLOURS
    assert (len(ISAID_LABELS), len(ISAID_CLASSES)) == (16, 15)
    assert [ISAID_LABELS[id] for id in (0, 1, 9, 14, 15)] == ["background", "ship", "small_vehicle", "plane", "harbor"]
    assert ISAID_CLASSES[8] == "small_vehicle"


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_colours_become_the_ids_that_a_plain_loop_finds(height, width, seed):
    ids = np.random.default_rng(seed).integers(0, 16, (height, width))
    colours = np.array([[COLOURS[id] for id in row] for row in ids], np.uint8)
    decoded = decode_colours(colours, "labels.png")
    assert decoded.dtype == np.uint8
    assert decoded.tolist() == ids.tolist()


@pytest.mark.parametrize("colour", [(0, 0, 64), (1, 0, 63), (255, 255, 255), (0, 63, 62)])
def test_a_colour_that_is_no_class_is_named_with_its_place(tmp_path, colour):
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[2, 5] = colours[3, 0] = colour
    save(tmp_path / "P0001_instance_color_RGB.png", colours)
    with pytest.raises(S4ecaError) as caught:
        read_labels(item(tmp_path / "P0001_instance_color_RGB.png"))
    message = str(caught.value)
    assert "P0001_instance_color_RGB.png" in message
    assert str(colour) in message
    assert "row 2, column 5" in message
    assert "2 such pixels" in message


@pytest.mark.parametrize("mode", ["L", "P"])
def test_ids_are_read_as_they_are(tmp_path, mode):
    ids = np.array([[0, 15, 255], [7, 7, 1]], np.uint8)
    picture = Image.fromarray(ids)
    if mode == "P":  # any colours will do: the ids are the indices
        picture.putpalette(list(range(256)) * 3)
    picture.save(tmp_path / "ids.png")
    assert Image.open(tmp_path / "ids.png").mode == mode
    assert read_labels(item(tmp_path / "ids.png", coloured=False)).tolist() == ids.tolist()


def test_an_id_that_is_no_class_is_named_with_its_place(tmp_path):
    ids = np.zeros((3, 4), np.uint8)
    ids[1, 2] = 16
    save(tmp_path / "ids.png", ids)
    with pytest.raises(S4ecaError, match=r"ids\.png has the label 16 at row 1, column 2"):
        read_labels(item(tmp_path / "ids.png", coloured=False))


def test_colours_where_ids_are_expected_are_refused(tmp_path):
    save(tmp_path / "ids.png", np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(S4ecaError, match="mode RGB where one byte per pixel"):
        read_labels(item(tmp_path / "ids.png", coloured=False))


def test_ids_that_were_stored_in_a_bit_are_refused(tmp_path):
    # what Pillow writes of a picture in mode P without colours, as mmsegmentation's converter makes it
    Image.frombytes("P", (3, 2), bytes([0, 15, 255, 7, 7, 1])).save(tmp_path / "ids.png")
    assert set(np.unique(np.array(Image.open(tmp_path / "ids.png"))).tolist()) == {0, 1}
    with pytest.raises(S4ecaError, match=r"ids\.png has one bit per pixel and has lost its classes"):
        read_labels(item(tmp_path / "ids.png", coloured=False))


@pytest.mark.parametrize("coloured", [True, False])
def test_a_damaged_label_map_is_named(tmp_path, coloured):
    (tmp_path / "ids.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(S4ecaError, match=r"ids\.png"):
        read_labels(item(tmp_path / "ids.png", coloured=coloured))


def test_a_real_label_map():
    path = SAMPLES / "isaid_mini" / "val" / "images" / "P0003_instance_color_RGB.png"
    if not path.is_file():
        pytest.skip(f"no sample data in {path}")
    ids = read_labels(item(path))
    colours = np.asarray(Image.open(path).convert("RGB"))
    assert ids.shape == (1023, 1147)
    assert set(np.unique(ids).tolist()) == {0, 2, 8, 9}
    for id in (2, 8, 9):
        assert ((ids == id) == (colours == COLOURS[id]).all(axis=2)).all(), ISAID_LABELS[id]
