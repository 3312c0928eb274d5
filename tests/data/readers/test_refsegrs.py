import shutil

import numpy as np
import pytest
from PIL import Image

from layouts import SAMPLES, box_mask, write_refsegrs
from s4eca.data.readers.refsegrs import REFSEGRS_CLASSES, category_of, read_refsegrs
from s4eca.errors import S4ecaError

COUNTS = {"train": 4, "val": 2, "test": 2}


def read(root, split):
    return read_refsegrs(root, split, expected=COUNTS, strict_counts=True)


def test_reads_every_split(tmp_path):
    write_refsegrs(tmp_path)
    references = read(tmp_path, "train")
    assert [reference.id for reference in references] == ["41", "42", "43", "44"]
    first = references[0]
    assert first.image == tmp_path / "images/41.tif"
    assert first.expression == "vehicle in the parking area"
    assert first.category == "vehicle"
    assert np.array_equal(first.mask.decode(), box_mask(41))
    assert [reference.id for reference in read(tmp_path, "val")] == ["45", "46"]
    assert [reference.id for reference in read(tmp_path, "test")] == ["47", "48"]


@pytest.mark.parametrize("folder", ["RefSegRS", "RefSegRS/RefSegRS"])
def test_nested_folder(tmp_path, folder):
    write_refsegrs(tmp_path / folder)
    assert read(tmp_path, "val")[0].image == tmp_path / folder / "images/45.tif"


@pytest.mark.parametrize("folder", ["", "new_dataset2"])
def test_the_variant_that_lgce_reads(tmp_path, folder):
    names = {"val": "output_phrase_val3.txt", "test": "output_phrase_test3.txt"}
    write_refsegrs(tmp_path / folder, images="images2", masks="masks2", phrases=names)
    for split, count in COUNTS.items():
        references = read(tmp_path, split)
        assert len(references) == count
        assert references[0].image.parent.name == "images2"
        assert np.array_equal(references[0].mask.decode(), box_mask(int(references[0].id)))


def test_lines(tmp_path):
    """Split on the first space only, line ends removed, blank lines skipped, surrounding space removed."""
    write_refsegrs(tmp_path)
    text = "45 vehicle  in the 2nd row\r\n\n   \n46 low vegetation "
    (tmp_path / "output_phrase_val.txt").write_bytes(text.encode())
    references = read(tmp_path, "val")
    assert [reference.expression for reference in references] == ["vehicle  in the 2nd row", "low vegetation"]


@pytest.mark.parametrize("line", ["46", "46 "])
def test_line_without_expression(tmp_path, line):
    write_refsegrs(tmp_path)
    (tmp_path / "output_phrase_val.txt").write_text(f"45 car\n{line}\n")
    with pytest.raises(S4ecaError, match=r"Line 2 of .*output_phrase_val\.txt has no expression"):
        read(tmp_path, "val")


def test_repeated_ids(tmp_path):
    write_refsegrs(tmp_path)
    (tmp_path / "output_phrase_val.txt").write_text("45 car\n45 road\n")
    with pytest.raises(S4ecaError, match=r"ids more than once \(45\)"):
        read(tmp_path, "val")


def test_text_in_another_encoding(tmp_path):
    write_refsegrs(tmp_path)
    (tmp_path / "output_phrase_val.txt").write_bytes(b"45 \xff\xfe\n")
    with pytest.raises(S4ecaError, match=r"output_phrase_val\.txt cannot be read as text"):
        read(tmp_path, "val")


@pytest.mark.parametrize("gone", ["images", "masks", "output_phrase_val.txt"])
def test_incomplete_layout_says_what_is_missing_and_where(tmp_path, gone):
    write_refsegrs(tmp_path)
    path = tmp_path / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(S4ecaError, match=f"not found {gone} in {tmp_path}") as error:
        read(tmp_path, "val")
    assert str(tmp_path / "new_dataset2") in str(error.value)


def test_missing_root_and_unknown_split(tmp_path):
    with pytest.raises(S4ecaError, match=r"no folder /nowhere.*data\.root"):
        read_refsegrs("/nowhere", "val")
    with pytest.raises(S4ecaError, match="no split 'testB'"):
        read_refsegrs(tmp_path, "testB")


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_missing_files_are_one_error(tmp_path, folder):
    write_refsegrs(tmp_path)
    (tmp_path / folder / "42.tif").unlink()
    (tmp_path / folder / "44.tif").unlink()
    with pytest.raises(S4ecaError, match=rf"2 of 4 files .*{folder} \(42\.tif of reference 42, 44\.tif"):
        read(tmp_path, "train")


@pytest.mark.parametrize(("split", "number"), [("train", "2,172"), ("val", "431"), ("test", "1,817")])
def test_counts(tmp_path, split, number):
    write_refsegrs(tmp_path)
    with pytest.warns(UserWarning, match=f"where {number} are expected"):
        read_refsegrs(tmp_path, split)
    with pytest.raises(S4ecaError, match=f"where {number} are expected"):
        read_refsegrs(tmp_path, split, strict_counts=True)


@pytest.mark.parametrize(
    ("expression", "category"),
    [
        ("paved road", "road"),
        ("road marking", "road marking"),
        ("car along the road", "car"),
        ("light-duty vehicle in the parking area", "vehicle"),
        ("sidewalk along with tree", "sidewalk"),
        ("Cars on the road", "car"),
        ("buses", "bus"),
        ("cart", None),
        ("storage tank", None),
    ],
)
def test_category_is_the_class_named_first(expression, category):
    assert category_of(expression) == category


def test_every_class_is_found_by_its_own_name():
    assert len(REFSEGRS_CLASSES) == 14
    for name in REFSEGRS_CLASSES:
        assert category_of(f"the large {name} here") == name


def test_the_real_sample():
    root = SAMPLES / "refsegrs_mini"
    if not root.is_dir():
        pytest.skip("the RefSegRS sample is not in ../shared/data")
    for split, count in {"train": 12, "val": 3, "test": 3}.items():
        with pytest.warns(UserWarning, match=f"has {count} references"):
            references = read_refsegrs(root, split)
        lines = (root / f"output_phrase_{split}.txt").read_text().split("\n")
        assert [f"{item.id} {item.expression}" for item in references] == [line for line in lines if line]
        for reference in references:
            grey = np.asarray(Image.open(root / "masks" / f"{reference.id}.tif"))
            assert set(np.unique(grey)) <= {0, 255}
            assert np.array_equal(reference.mask.decode(), grey == 255)
            assert reference.image.is_file()
