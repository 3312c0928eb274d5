import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from layouts import SAMPLES, box_mask, picture, rle, write_jsonl, write_refsegrs, write_risbench, write_rrsis_d
from s4eca.data import LAYOUTS, FileMask, Reference, RleMask, convert
from s4eca.data.images import read_image
from s4eca.data.readers.refer_writer import write_refer
from s4eca.data.readers.refsegrs import category_of
from s4eca.errors import S4ecaError

SPLITS = ("train", "val", "test")


def read(root, layout, splits=SPLITS):
    return {split: LAYOUTS[layout].reader(root, split, expected={}) for split in splits}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for split, references in expected.items():
        assert len(found[split]) == len(references)
        for new, old in zip(found[split], references, strict=True):
            for field in ("id", "expression", "split", "category", "no_target", "kind"):
                assert getattr(new, field) == getattr(old, field)
            assert np.array_equal(new.mask.decode(), old.mask.decode())
            assert np.array_equal(read_image(new.image), read_image(old.image))


def write_plain_rrsis_d(root):
    """RRSIS-D with the empty target of test image 00413, two sentences, and a no-target expression."""

    def edit(refs, instances):
        instances["annotations"][-1]["segmentation"] = [rle(np.zeros((24, 32), bool))]
        refs[0]["sentences"].append({"raw": "左边的船\u2028 and more", "sent_id": 9})
        refs[1].update(ann_id=[-1], no_target=True)

    return write_rrsis_d(root, edit=edit)


WRITTEN = {"rrsis_d": write_plain_rrsis_d, "jsonl": write_jsonl, "refsegrs": write_refsegrs, "risbench": write_risbench}
# what can be held where: RefSegRS's categories come from its words, RISBench has none
POSSIBLE = [
    ("rrsis_d", "rrsis_d"), ("rrsis_d", "jsonl"), ("jsonl", "jsonl"), ("jsonl", "rrsis_d"), ("refsegrs", "jsonl"),
    ("refsegrs", "rrsis_d"), ("refsegrs", "refsegrs"), ("risbench", "jsonl"), ("risbench", "rrsis_d"),
    ("risbench", "risbench"), ("risbench", "refsegrs"), ("refsegrs", "refer"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), POSSIBLE)
@pytest.mark.parametrize("images", ["link", "copy"])
def test_what_is_read_back_is_what_was_read(tmp_path, source, target, images):
    WRITTEN[source](tmp_path / "a")
    out = tmp_path / "deep" / "b"
    written = convert(tmp_path / "a", out, target, images=images)
    expected = read(tmp_path / "a", source)
    assert written == expected
    assert_same(read(out, target), expected)
    assert [path.name for path in out.parent.iterdir()] == ["b"]
    links = [path for path in out.rglob("*") if path.is_symlink()]
    anew = (source, target) == ("risbench", "refsegrs")  # PNG to TIFF
    assert bool(links) == (images == "link" and not anew)
    # and back again, where that is possible
    if (target, source) in POSSIBLE:
        convert(out, tmp_path / "c", source)
        assert_same(read(tmp_path / "c", source), expected)


def test_a_converted_copy_outlives_its_source(tmp_path):
    write_refsegrs(tmp_path / "a")
    expected = [item.mask.decode() for item in read(tmp_path / "a", "refsegrs")["val"]]
    convert(tmp_path / "a", tmp_path / "b", "jsonl", images="copy")
    (tmp_path / "a").rename(tmp_path / "gone")
    found = read(tmp_path / "b", "jsonl")["val"]
    assert all(np.array_equal(item.mask.decode(), mask) for item, mask in zip(found, expected, strict=True))
    assert np.array_equal(read_image(found[0].image), picture(45))


def test_fields_of_the_interchange_format(tmp_path):
    write_plain_rrsis_d(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", "jsonl")
    rows = [json.loads(line) for line in (tmp_path / "b/train.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert [row.get("id") for row in rows] == ["101_0", None, None, None, None]
    assert [row["image_id"] for row in rows] == [101, 101, 104, 107, 110]  # the second is 101_1 without more words
    assert "左边的船" in (tmp_path / "b/train.jsonl").read_text(encoding="utf-8")
    plain = rows[3]  # reference 107
    mask = box_mask(107)
    where = np.argwhere(mask)
    (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0)
    assert plain == {
        "split": "train",
        "image_id": 107,
        "sent": "The vehicle number 107 on the left",
        "file_name": "00107.jpg",
        "segmentation": rle(mask),
        "bbox": [left, top, right - left + 1, bottom - top + 1],
        "area": mask.sum(),
        "category_id": 2,
        "category_name": "vehicle",
    }
    assert rows[2]["no_target"] is True
    assert coco.area(rows[2]["segmentation"]) == 0


def test_what_refer_code_finds_in_a_converted_dataset(tmp_path):
    """Read as REFER itself reads: ids as keys, `getMask` by the annotation of the reference."""
    write_risbench(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", "rrsis_d")
    refs = pickle.loads((tmp_path / "b/rrsisd/refs(unc).p").read_bytes())
    content = json.loads((tmp_path / "b/rrsisd/instances.json").read_text())
    annotations = {item["id"]: item for item in content["annotations"]}
    images = {item["id"]: item for item in content["images"]}
    assert len({ref["ref_id"] for ref in refs}) == len(refs) == 8
    for ref, number in zip(refs, range(61, 69), strict=True):
        assert all(isinstance(ref[key], int) for key in ("ref_id", "ann_id", "image_id", "category_id"))
        assert ref["sentences"][0]["sent"] == f"the ship number {number} in the harbor"
        annotation = annotations[ref["ann_id"]]
        mask = coco.decode(annotation["segmentation"]).sum(axis=2)
        assert np.array_equal(mask == 1, box_mask(number))
        assert annotation["image_id"] == ref["image_id"]
        image = images[ref["image_id"]]
        assert (image["height"], image["width"]) == (24, 32)
        path = tmp_path / "b/images/rrsisd/JPEGImages" / image["file_name"]
        assert np.array_equal(np.asarray(Image.open(path)), picture(number))


def test_numbers_stay_the_ids_of_refer(tmp_path):
    write_rrsis_d(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", "rrsis_d")
    before, after = (pickle.loads((tmp_path / name / "rrsisd/refs(unc).p").read_bytes()) for name in "ab")
    for old, new in zip(before, after, strict=True):
        # categories are counted anew, in the order of their names
        assert {**old, "category_id": None} == {**new, "category_id": None}


def test_images_in_folders_keep_apart(tmp_path):
    def folders(split, rows):
        for number, row in enumerate(rows):
            row["file_name"] = f"{split}/{number}.jpg"
            (tmp_path / f"a/images/{split}").mkdir(exist_ok=True)
            Image.fromarray(picture(len(split) * 10 + number)).save(tmp_path / "a/images" / row["file_name"])

    write_jsonl(tmp_path / "a", edit=folders)
    expected = read(tmp_path / "a", "jsonl")
    for target in ("jsonl", "rrsis_d"):
        convert(tmp_path / "a", tmp_path / target, target)
        assert_same(read(tmp_path / target, target), expected)
    row = json.loads((tmp_path / "jsonl/train.jsonl").read_text().split("\n")[0])
    assert (row["image_id"], row["file_name"]) == ("train/0.jpg", "train/0.jpg")


def test_some_splits(tmp_path):
    write_refsegrs(tmp_path / "a")
    (tmp_path / "a/output_phrase_test.txt").unlink()
    with pytest.raises(S4ecaError, match=r"output_phrase_test\.txt"):
        convert(tmp_path / "a", tmp_path / "b", "jsonl")
    convert(tmp_path / "a", tmp_path / "b", "jsonl", splits=("val",))
    assert [path.name for path in (tmp_path / "b").iterdir() if path.is_file()] == ["val.jsonl"]
    assert_same(read(tmp_path / "b", "jsonl", ["val"]), read(tmp_path / "a", "refsegrs", ["val"]))


def test_options_of_the_reader(tmp_path):
    write_rrsis_d(tmp_path / "a", annotations="vdd_ris", images="images/vdd_ris/PNGImages")
    (tmp_path / "a/vdd_ris/refs_llama(uow).p").write_bytes((tmp_path / "a/vdd_ris/refs(unc).p").read_bytes())
    with pytest.raises(S4ecaError, match="2 were found"):
        convert(tmp_path / "a", tmp_path / "b", "jsonl")
    convert(tmp_path / "a", tmp_path / "b", "jsonl", options={"refs": "refs_llama(uow).p"})
    assert len(read(tmp_path / "b", "jsonl")["train"]) == 4
    with pytest.raises(S4ecaError, match="REFER has no option threshold: it has dataset, split_by"):
        convert(tmp_path / "a", tmp_path / "c", "jsonl", options={"threshold": "3"})
    with pytest.raises(S4ecaError, match="split_names=testA is no mapping"):
        convert(tmp_path / "a", tmp_path / "c", "jsonl", options={"split_names": "testA"})
    write_risbench(tmp_path / "r")
    with pytest.raises(S4ecaError, match="threshold=high is no whole number"):
        convert(tmp_path / "r", tmp_path / "c", "jsonl", options={"threshold": "high"})
    convert(tmp_path / "r", tmp_path / "c", "jsonl", options={"threshold": "255"})
    assert not read(tmp_path / "c", "jsonl")["val"][0].mask.decode().any()


def refused(tmp_path, source, target, message, **options):
    with pytest.raises(S4ecaError, match=message):
        convert(source, tmp_path / "out", target, **options)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def row(number, **fields):
    """An edit of one line of the training split."""

    def edit(split, rows):
        for item in rows:
            item["sent"], item["category_name"] = "a car here", "car"
        if split == "train":
            rows[number].update(fields)

    return edit


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"category_name": "ship"}, "RefSegRS cannot hold the category 'ship' of reference '202'"),
        ({"category_name": None}, "RefSegRS cannot hold the category None of reference '202'"),
        ({"no_target": True, "segmentation": None}, "RefSegRS cannot hold reference '202' .* no target"),
        ({"sent": "a car\nhere"}, "RefSegRS cannot hold reference '202' .* one line"),
        ({"sent": "a car\rhere"}, "one line"),
        ({"id": "two words"}, "'two words' .* file name without spaces"),
        ({"id": "a/b"}, "'a/b' .* file name"),
        ({"id": ".."}, "file name"),
        ({"id": ""}, "file name"),
        ({"id": "205"}, "reference '205' of the val split, because the train split has the same id"),
    ],
)
def test_what_refsegrs_cannot_hold(tmp_path, fields, message):
    write_jsonl(tmp_path / "a", edit=row(1, **fields))
    refused(tmp_path, tmp_path / "a", "refsegrs", message)
    convert(tmp_path / "a", tmp_path / "b", "jsonl")
    convert(tmp_path / "a", tmp_path / "c", "rrsis_d")
    for layout, name in (("jsonl", "b"), ("rrsis_d", "c")):
        assert_same(read(tmp_path / name, layout), read(tmp_path / "a", "jsonl"))


def test_what_risbench_cannot_hold(tmp_path):
    write_jsonl(tmp_path / "a")
    refused(tmp_path, tmp_path / "a", "risbench", "RISBench cannot hold the category 'ship' of reference '201'")


def test_half_of_a_character(tmp_path):
    write_jsonl(tmp_path / "a")
    path = tmp_path / "a/datainfo/rrsisd_train.jsonl"
    path.write_text(path.read_text().replace("The ship number 201", "The ship \\ud800"))
    for target in ("jsonl", "rrsis_d"):
        refused(tmp_path, tmp_path / "a", target, "Line 1 of .*rrsisd_train.jsonl has half of a character")
    root = write_rrsis_d(tmp_path / "b")
    path = root / "rrsisd/instances.json"
    path.write_text(path.read_text().replace('"name": "ship"', '"name": "\\ud800"'))
    for target in ("jsonl", "rrsis_d"):
        refused(tmp_path, root, target, "UTF-8 cannot hold")


def test_bad_arguments(tmp_path):
    source = write_refsegrs(tmp_path / "a")
    refused(tmp_path, source, "coco", "no layout 'coco'")
    refused(tmp_path, source, "jsonl", "no layout 'voc'", layout="voc")
    refused(tmp_path, source, "jsonl", "no images=move", images="move")
    refused(tmp_path, source, "jsonl", "no split 'dev'", splits=("dev",))
    refused(tmp_path, tmp_path / "absent", "jsonl", "no folder")
    refused(tmp_path, source, "jsonl", "RRSIS-D is not complete", layout="rrsis_d")


def test_a_damaged_source_leaves_nothing_behind(tmp_path):
    source = write_jsonl(tmp_path / "a", edit=row(2, segmentation={"size": [24, 32], "counts": "1"}))
    refused(tmp_path, source, "refsegrs", "mask of reference 203")
    source = write_jsonl(tmp_path / "b")
    (source / "images/00201.jpg").unlink()
    refused(tmp_path, source, "jsonl", "images of .* were not found|1 of 4 files are missing")


def test_nothing_is_ever_overwritten(tmp_path):
    source = write_refsegrs(tmp_path / "a")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("kept")
    with pytest.raises(S4ecaError, match="out exists and is not empty"):
        convert(source, tmp_path / "out", "jsonl")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out/mine.txt").unlink()
    convert(source, tmp_path / "out", "jsonl")  # an empty folder is nobody's
    (tmp_path / "file").write_text("kept")
    with pytest.raises(S4ecaError, match="file exists"):
        convert(source, tmp_path / "file", "jsonl")
    with pytest.raises(S4ecaError, match="cannot be written to"):
        convert(source, tmp_path / "file/inside", "jsonl")


def test_the_real_samples(tmp_path):
    for folder, layout in (("rrsisd_mini", "rrsis_d"), ("refsegrs_mini", "refsegrs")):
        if not (SAMPLES / folder).is_dir():
            pytest.skip(f"{folder} is not in ../shared/data")
        expected = read(SAMPLES / folder, layout)
        for target in ("jsonl", "rrsis_d"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # that the counts are no published ones is nothing to warn of here
                convert(SAMPLES / folder, tmp_path / folder / target, target)
            assert_same(read(tmp_path / folder / target, target), expected)


def can_hold(layout, drawn):
    try:
        if layout.check is not None:
            layout.check(drawn)
    except S4ecaError:
        return False
    return True


LETTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\ufeff")  # no reader gives a byte order mark
WORDS = st.text(LETTERS, min_size=1, max_size=12).map(str.strip).filter(bool)
IDS = st.one_of(st.integers(0, 30).map(str), st.text(LETTERS, min_size=1, max_size=6), st.just("007"))


@st.composite
def references(draw):
    """References of any ids, texts and masks to a few images, some without a target."""
    sizes = {}
    result = {}
    for split in draw(st.lists(st.sampled_from(SPLITS), min_size=1, max_size=3, unique=True)):
        ids = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
        items = []
        for id in ids:
            name = draw(st.sampled_from(["1.png", "01.png", "b/1.png", "c d.png"]))
            shape = sizes.setdefault(name, draw(st.tuples(st.integers(1, 9), st.integers(1, 9))))
            if draw(st.integers(0, 5)) == 0:  # RRSIS-D has a few masks of another size than their image
                shape = (shape[0] + 1, shape[1])
            bits = draw(st.integers(0, 2 ** (shape[0] * shape[1]) - 1))
            mask = np.array([bits >> place & 1 for place in range(shape[0] * shape[1])], bool).reshape(shape)
            no_target = draw(st.booleans())
            category = draw(st.one_of(st.none(), WORDS.filter(bool)))
            source = RleMask([rle(mask & (not no_target))])
            kind = draw(st.one_of(st.none(), st.none(), st.none(), WORDS))
            items.append((id, name, draw(WORDS), split, category, source, no_target, kind))
        result[split] = items
    return sizes, result


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(references())
def test_any_references_survive_the_layouts_that_can_hold_them(tmp_path_factory, drawn):
    root = tmp_path_factory.mktemp("any")
    sizes, rows = drawn
    for number, (name, (height, width)) in enumerate(sizes.items()):
        path = root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number, height, width)).save(path)
    expected = {
        split: [Reference(id, root / "in" / name, *rest) for id, name, *rest in items] for split, items in rows.items()
    }
    for name in ("jsonl", "rrsis_d", "refsegrs", "risbench"):
        layout, out = LAYOUTS[name], root / name
        out.mkdir()
        if not can_hold(layout, expected):
            assert name in ("refsegrs", "risbench")
            continue
        layout.writer(expected, out, "link")
        assert_same(read(out, name, list(expected)), expected)


IDS_OF_FILES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(IDS_OF_FILES, st.text(LETTERS, max_size=15), min_size=1, max_size=4))
def test_any_line_survives_the_phrase_files_that_can_hold_it(tmp_path_factory, lines):
    root = tmp_path_factory.mktemp("any")
    Image.fromarray(picture(0)).save(root / "image.png")
    Image.fromarray(box_mask(0)).save(root / "mask.png")
    for name in ("refsegrs", "risbench"):
        items = []
        for id, line in lines.items():
            text = line.strip()
            category = category_of(text) if name == "refsegrs" else None
            items.append(Reference(id, root / "image.png", text, "val", category, FileMask(root / "mask.png")))
        if not can_hold(LAYOUTS[name], {"val": items}):
            continue
        (root / name).mkdir()
        LAYOUTS[name].writer({"val": items}, root / name, "link")
        assert_same(read(root / name, name, ["val"]), {"val": items})


def test_a_no_target_mask_of_another_size_is_kept(tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    items = [
        Reference("1", tmp_path / "a.png", "x", "val", None, RleMask([rle(box_mask(1))])),
        Reference("2", tmp_path / "a.png", "y", "val", None, RleMask([rle(np.zeros((3, 4), bool))]), True),
    ]
    (tmp_path / "out").mkdir()
    write_refer({"val": items}, tmp_path / "out", "copy")
    assert_same(read(tmp_path / "out", "rrsis_d", ["val"]), {"val": items})


@pytest.mark.parametrize("name", ["refsegrs", "risbench"])
def test_phrase_files_hold_no_kind(tmp_path, name):
    item = Reference("1", tmp_path / "a.png", "the ship", "val", None, RleMask([rle(box_mask(1))]), kind="class")
    with pytest.raises(S4ecaError, match=r"cannot hold reference '1' .* of kind 'class': convert to jsonl or refer"):
        LAYOUTS[name].check({"val": [item]})
