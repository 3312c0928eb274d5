import shutil

import numpy as np
import pytest
from PIL import Image

from layouts import box_mask, write_refsegrs, write_risbench
from s4eca.data import RISBenchDataModule, read_risbench
from s4eca.data.readers.risbench import RISBENCH_COUNTS
from s4eca.errors import S4ecaError

COUNTS = {"train": 4, "val": 2, "test": 2}


def read(root, split="val", **options):
    return read_risbench(root, split, expected=COUNTS, strict_counts=True, **options)


def test_published_counts_add_up():
    assert sum(RISBENCH_COUNTS.values()) == 52_472


@pytest.mark.parametrize("folder", ["", "RISBench_dataset", "RISBench/RISBench_dataset"])
@pytest.mark.parametrize("line", ["{name} {sentence}", "<{name}> {sentence}\r", "  {name}  {sentence} "])
def test_reads_every_split(tmp_path, folder, line):
    write_risbench(tmp_path / folder, line=line)
    references = read(tmp_path, "train")
    assert [item.id for item in references] == [f"train_{number}_2" for number in (61, 62, 63, 64)]
    first = references[0]
    assert first.image == tmp_path / folder / "img_rgb/train_61_2.png"
    assert (first.expression, first.category) == ("the ship number 61 in the harbor", None)
    assert np.array_equal(first.mask.decode(), box_mask(61))
    assert [item.id for item in read(tmp_path, "test")] == ["test_67_2", "test_68_2"]


def test_renamed_folders(tmp_path):
    write_risbench(tmp_path, images="images", masks="masks")
    assert read(tmp_path)[0].image.parent.name == "images"


def test_lines_that_share_an_image(tmp_path):
    """The first keeps the image's name; the numbers of the others pass over names that are taken."""
    write_risbench(tmp_path)
    for name in ("a.png", "a_1.png"):
        for folder in ("img_rgb", "mask"):
            shutil.copy(tmp_path / folder / "val_65_2.png", tmp_path / folder / name)
    lines = ["a.png one", "a.png two", "a_1.png three", "a.png four", "a_1.png five"]
    (tmp_path / "output_phrase_val.txt").write_text("\n".join(lines))
    references = read_risbench(tmp_path, "val", expected={})
    assert [(item.id, item.image.name, item.expression) for item in references] == [
        ("a", "a.png", "one"),
        ("a_2", "a.png", "two"),
        ("a_1", "a_1.png", "three"),
        ("a_3", "a.png", "four"),
        ("a_1_1", "a_1.png", "five"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [("a.png", "has no expression"), ("65 car", "name of an image file"), ("../a.png car", "name of an image file")],
)
def test_lines_that_are_wrong(tmp_path, line, message):
    write_risbench(tmp_path)
    with (tmp_path / "output_phrase_val.txt").open("a") as stream:
        stream.write(line)
    with pytest.raises(S4ecaError, match=rf"Line 3 of .*output_phrase_val\.txt.*{message}"):
        read(tmp_path)


@pytest.mark.parametrize("gone", ["img_rgb", "mask", "output_phrase_val.txt"])
def test_incomplete_layout(tmp_path, gone):
    write_risbench(tmp_path)
    path = tmp_path / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(S4ecaError, match=f"not found {gone} in {tmp_path}"):
        read(tmp_path)


@pytest.mark.parametrize("folder", ["img_rgb", "mask"])
def test_missing_files(tmp_path, folder):
    write_risbench(tmp_path)
    (tmp_path / folder / "val_66_2.png").unlink()
    with pytest.raises(S4ecaError, match=rf"1 of 2 files are missing from .*{folder} \(val_66_2\.png"):
        read(tmp_path)
    shutil.rmtree(tmp_path / folder)
    assert [item.id for item in read(tmp_path, need_files=False)] == ["val_65_2", "val_66_2"]


def test_masks_of_zero_and_one(tmp_path):
    write_risbench(tmp_path)
    Image.fromarray(box_mask(65).astype(np.uint8)).save(tmp_path / "mask/val_65_2.png")
    assert np.array_equal(read(tmp_path)[0].mask.decode(), box_mask(65))
    assert not read(tmp_path, threshold=50)[0].mask.decode().any()
    assert np.array_equal(read(tmp_path, threshold=50)[1].mask.decode(), box_mask(66))


def test_counts_and_defaults(tmp_path):
    write_risbench(tmp_path)
    with pytest.warns(UserWarning, match="where 10,013 are expected"):
        read_risbench(tmp_path, "val")
    data = RISBenchDataModule(root=tmp_path, strict_counts=True, threshold=50)
    assert (data.name, data.max_tokens) == ("risbench", 50)
    with pytest.raises(S4ecaError, match="16,159 are expected"):
        data.references("test")
    with pytest.warns(UserWarning, match="26,300"):
        assert RISBenchDataModule(root=tmp_path, threshold=7).references("train")[0].mask.threshold == 7


def test_refsegrs_is_not_risbench(tmp_path):
    write_refsegrs(tmp_path)
    with pytest.raises(S4ecaError, match="does not begin with the name of an image file"):
        read(tmp_path)
