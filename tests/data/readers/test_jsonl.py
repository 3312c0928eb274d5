import json
import shutil

import numpy as np
import pytest
from PIL import Image

from layouts import HEIGHT, WIDTH, box_mask, picture, rle, write_jsonl
from s4eca.data import JsonlDataModule, read_jsonl
from s4eca.errors import S4ecaError

COUNTS = {"train": 4, "val": 2, "test": 2}


def read(root, split="val", **options):
    return read_jsonl(root, split, expected=COUNTS, strict_counts=True, **options)


def change(**fields):
    """An edit of the first line of the validation split, whose image_id is 205; the second is 206."""

    def edit(split, rows):
        if split == "val":
            rows[0].update(fields)
            for key in [key for key, value in fields.items() if value is ...]:
                del rows[0][key]

    return edit


@pytest.mark.parametrize("name", ["datainfo/rrsisd_{split}.jsonl", "refsegrs_{split}.jsonl", "{split}.jsonl"])
@pytest.mark.parametrize("images", ["images", "", "RRSIS-D/images/rrsisd/JPEGImages", "RefSegRS/images", "img_rgb"])
def test_finds_the_files(tmp_path, name, images):
    write_jsonl(tmp_path, name=name, images=images)
    references = read(tmp_path)
    assert [item.id for item in references] == ["205", "206"]
    first = references[0]
    assert first.image == tmp_path / images / "00205.jpg"
    assert (first.expression, first.category, first.split) == ("The ship number 205 on the left", "ship", "val")
    assert np.array_equal(first.mask.decode(), box_mask(205))
    assert not first.no_target


def test_several_files_need_a_name(tmp_path):
    write_jsonl(tmp_path)
    write_jsonl(tmp_path, name="datainfo/risbench_{split}.jsonl", edit=change(sent="another"))
    with pytest.raises(S4ecaError, match=r"risbench_val\.jsonl, .*rrsisd_val\.jsonl.*name="):
        read(tmp_path)
    assert read(tmp_path, name="rrsisd")[0].expression.startswith("The ship")
    assert read(tmp_path, name="risbench")[0].expression == "another"
    data = JsonlDataModule(root=tmp_path, name="risbench")
    assert (data.name, len(data.references("val")), data.max_tokens) == ("risbench", 2, 50)
    with pytest.raises(S4ecaError, match=r"val split was not found .*datainfo/absent_val\.jsonl"):
        read(tmp_path, name="absent")


def test_no_file_of_the_split(tmp_path):
    write_jsonl(tmp_path)
    (tmp_path / "datainfo/rrsisd_val.jsonl").rename(tmp_path / "datainfo/rrsisd-val.jsonl")
    with pytest.raises(S4ecaError, match=r"val split was not found .*NAME_val\.jsonl"):
        read(tmp_path)
    with pytest.raises(S4ecaError, match="no split 'dev'"):
        read(tmp_path, "dev")


def test_images_that_are_named_or_not_found(tmp_path):
    write_jsonl(tmp_path, images="somewhere/else")
    with pytest.raises(S4ecaError, match=r"images of .*rrsisd_val\.jsonl were not found.*img_rgb/00205\.jpg"):
        read(tmp_path)
    assert read(tmp_path, images="somewhere/else")[0].image.is_file()
    assert [item.image.name for item in read(tmp_path, need_files=False)] == ["00205.jpg", "00206.jpg"]
    assert JsonlDataModule(root=tmp_path, images="somewhere/else").references("val")[1].image.is_file()
    (tmp_path / "somewhere/else/00206.jpg").unlink()
    with pytest.raises(S4ecaError, match=r"1 of 2 files are missing .*00206\.jpg of reference 206"):
        read(tmp_path, images="somewhere/else")


def test_one_missing_image_is_a_missing_file(tmp_path):
    write_jsonl(tmp_path)
    (tmp_path / "images/00205.jpg").unlink()
    with pytest.raises(S4ecaError, match=r"1 of 2 files are missing from .*images \(00205\.jpg of reference 205\)"):
        read(tmp_path)
    for number in (201, 202, 203):  # the fullest folder is taken, which here is the root
        (tmp_path / f"images/00{number}.jpg").rename(tmp_path / f"00{number}.jpg")
    with pytest.raises(S4ecaError, match=r"1 of 4 files are missing .*00204\.jpg"):
        read(tmp_path, "train")
    with pytest.raises(S4ecaError, match=r"There is no folder .*nope: set data\.images"):
        read(tmp_path, images="nope")


def test_empty_expressions(tmp_path):
    write_jsonl(tmp_path, edit=change(sent=" "))
    with pytest.raises(S4ecaError, match=r"val\.jsonl has 1 references whose expression is empty \(205\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("split", ["train"]), ("category_name", 5), ("kind", 5), ("image_id", [1]), ("id", {}), ("height", "24")],
)
def test_fields_of_another_type(tmp_path, key, value):
    write_jsonl(tmp_path, edit=change(**{key: value}))
    with pytest.raises(S4ecaError, match=rf"Line 1 of .*val\.jsonl has {key} .* which is not a"):
        read(tmp_path)


def test_the_name_is_that_of_the_file(tmp_path):
    assert JsonlDataModule(root=tmp_path / "absent").name == "jsonl"
    assert JsonlDataModule(root=write_jsonl(tmp_path / "a")).name == "rrsis_d"  # rrsisd_train.jsonl
    assert JsonlDataModule(root=write_jsonl(tmp_path / "b", name="risbench_{split}.jsonl")).name == "risbench"
    assert JsonlDataModule(root=write_jsonl(tmp_path / "c", name="{split}.jsonl")).name == "jsonl"
    write_jsonl(tmp_path / "b")  # one of two
    assert JsonlDataModule(root=tmp_path / "b").name == "jsonl"


def test_sizes_of_misspelt_splits(tmp_path):
    with pytest.raises(S4ecaError, match=r"data\.expected names a split 'valid'"):
        JsonlDataModule(root=write_jsonl(tmp_path), expected={"valid": 2})


def test_kinds_of_segmentation(tmp_path):
    two = [rle(box_mask(1)), rle(box_mask(5))]
    plain = {"size": [HEIGHT, WIDTH], "counts": [0, 3, HEIGHT * WIDTH - 3]}
    square = [[0, 0, 10, 0, 10, 10, 0, 10]]
    for name, segmentation in {"bare": rle(box_mask(205)), "two": two, "runs": plain, "polygon": square}.items():
        write_jsonl(tmp_path / name, edit=change(segmentation=segmentation))
    masks = {name: read(tmp_path / name)[0].mask.decode() for name in ("bare", "two", "runs", "polygon")}
    assert np.array_equal(masks["bare"], box_mask(205))
    assert np.array_equal(masks["two"], box_mask(1) | box_mask(5))
    assert np.argwhere(masks["runs"]).tolist() == [[0, 0], [1, 0], [2, 0]]
    assert masks["polygon"].shape == (HEIGHT, WIDTH)  # from the image file
    assert masks["polygon"].sum() == 100
    write_jsonl(tmp_path / "sized", edit=change(segmentation=square, height=12, width=14))
    assert read(tmp_path / "sized")[0].mask.decode().shape == (12, 14)


@pytest.mark.parametrize("segmentation", [None, [], ..., [rle(np.zeros((HEIGHT, WIDTH), bool))]])
def test_no_target(tmp_path, segmentation):
    write_jsonl(tmp_path, edit=change(segmentation=segmentation, no_target=True))
    first, second = read(tmp_path)
    assert (first.no_target, second.no_target) == (True, False)
    assert first.mask.decode().shape == (HEIGHT, WIDTH)
    assert not first.mask.decode().any()


def test_no_target_with_a_mask_and_a_missing_mask_without_the_mark(tmp_path):
    write_jsonl(tmp_path / "a", edit=change(no_target=True))
    with pytest.raises(S4ecaError, match=r"Line 1 of .*val\.jsonl is marked no_target"):
        read(tmp_path / "a")
    write_jsonl(tmp_path / "b", edit=change(segmentation=[]))
    with pytest.raises(S4ecaError, match=r"Line 1 of .*val\.jsonl has no segmentation"):
        read(tmp_path / "b")


@pytest.mark.parametrize("segmentation", [{"size": [1, 1], "counts": "x"}, [7], 7, "x", [[1, 2]]])
def test_damaged_segmentation_names_the_reference(tmp_path, segmentation):
    write_jsonl(tmp_path, edit=change(segmentation=segmentation))
    with pytest.raises(S4ecaError, match=r"mask of reference 205 in .*val\.jsonl cannot be decoded"):
        read(tmp_path)


def test_ids(tmp_path):
    """One per line: image_id, numbered from the second on; a field `id` of its own goes before."""

    def edit(split, rows):
        if split == "train":
            for row, image_id in zip(rows, ["a", "a", "a", "a_1"], strict=True):
                row["image_id"] = image_id
            rows[2]["id"] = "mine"
        if split == "val":
            for row in rows:
                del row["image_id"]

    write_jsonl(tmp_path, edit=edit)
    assert [item.id for item in read(tmp_path, "train")] == ["a", "a_2", "mine", "a_1"]
    assert [item.id for item in read(tmp_path)] == ["00205", "00206"]
    write_jsonl(tmp_path / "same", edit=lambda _, rows: [row.update(id=1) for row in rows])
    with pytest.raises(S4ecaError, match=r"ids more than once \(1\)"):
        read(tmp_path / "same")


def test_lines(tmp_path):
    """Blank lines are skipped, Chinese is Chinese, and a place in the file is counted in bytes."""
    write_jsonl(tmp_path, edit=lambda _, rows: [row.update(sent=" 左边的飞机\t") for row in rows])
    path = tmp_path / "datainfo/rrsisd_val.jsonl"
    path.write_bytes(b"\r\n\n" + path.read_bytes().replace(b"\n", b"\r\n\n").rstrip())
    references = read(tmp_path)
    assert [item.expression for item in references] == ["左边的飞机"] * 2
    for item in references:
        assert np.array_equal(item.mask.decode(), box_mask(int(item.id)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"Line 3 of .*val\.jsonl is no JSON"),
        ("\xff", r"val\.jsonl cannot be read as text.*line 3"),
        ("[]", r"Line 3 of .*val\.jsonl lacks a sent or a file_name"),
        ('{"sent": "x"}', r"Line 3 of .* lacks"),
    ],
)
def test_damaged_line(tmp_path, text, message):
    write_jsonl(tmp_path)
    path = tmp_path / "datainfo/rrsisd_val.jsonl"
    path.write_bytes(path.read_bytes() + text.encode("latin-1"))
    with pytest.raises(S4ecaError, match=message):
        read(tmp_path)


def test_a_line_of_another_split(tmp_path):
    write_jsonl(tmp_path / "a", edit=change(split="test"))
    with pytest.raises(S4ecaError, match=r"Line 1 of .* belongs to the test split"):
        read(tmp_path / "a")
    # what is no split of ours says nothing
    write_jsonl(tmp_path / "b", edit=change(split="validation"))
    assert len(read(tmp_path / "b")) == 2


def test_counts(tmp_path):
    write_jsonl(tmp_path)
    with pytest.warns(UserWarning, match=r"val\.jsonl has 2 references where 3 are expected"):
        read_jsonl(tmp_path, "val", expected={"val": 3})
    with pytest.raises(S4ecaError, match="No published split sizes are known"):
        JsonlDataModule(root=tmp_path, strict_counts=True).references("val")


def test_categories_may_be_missing(tmp_path):
    write_jsonl(tmp_path, edit=change(category_name=..., category_id=..., ann_id=..., bbox=..., area=...))
    assert [item.category for item in read(tmp_path)] == [None, "ship"]


def test_images_in_folders(tmp_path):
    write_jsonl(tmp_path, edit=change(file_name="sub/x.jpg"))
    (tmp_path / "images/sub").mkdir()
    Image.fromarray(picture(3)).save(tmp_path / "images/sub/x.jpg")
    assert read(tmp_path)[0].image == tmp_path / "images/sub/x.jpg"


def test_the_masks_stay_in_the_file(tmp_path):
    item = read(write_jsonl(tmp_path))[0]
    shutil.rmtree(tmp_path / "datainfo")
    with pytest.raises(S4ecaError, match=r"rrsisd_val\.jsonl cannot be read any more"):
        item.mask.decode()


def test_fingerprint(tmp_path):
    same = [JsonlDataModule(root=write_jsonl(tmp_path / name)).fingerprint() for name in "ab"]
    assert same[0] == same[1]
    edit = change(segmentation=[rle(box_mask(1))])
    other = JsonlDataModule(root=write_jsonl(tmp_path / "c", edit=edit)).fingerprint()
    assert other["train"] == same[0]["train"]
    assert other["val"] != same[0]["val"]
    # how the line is written is not what it says
    path = tmp_path / "a/datainfo/rrsisd_val.jsonl"
    lines = [json.dumps(json.loads(line), sort_keys=True, indent=None) for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines))
    assert JsonlDataModule(root=tmp_path / "a").fingerprint() == same[0]
