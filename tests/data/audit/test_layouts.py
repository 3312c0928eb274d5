"""Every layout is audited, whole and broken, and gives the references that its reader gives."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from layouts import HEIGHT, WIDTH, box_mask, picture, rle
from s4eca.data.audit import Severity, audit, survey
from s4eca.data.masks import EmptyMask, RleMask
from s4eca.data.readers.layouts import LAYOUTS
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError

SPLIT_OF = {1: "train", 2: "train", 3: "train", 4: "val", 5: "test", 6: "test"}


def references(folder, categories=True):
    """Six references with images, masks and expressions of their own."""
    folder.mkdir()
    result = {"train": [], "val": [], "test": []}
    for number, split in SPLIT_OF.items():
        path = folder / f"picture{number}.png"
        Image.fromarray(picture(number)).save(path)
        mask = RleMask((rle(box_mask(number)),), (HEIGHT, WIDTH), str(number))
        text = f"vehicle number {number}"
        result[split].append(Reference(f"picture{number}", path, text, split, "vehicle" if categories else None, mask))
    return result


@pytest.fixture
def written(tmp_path):
    """Writes the six references in a layout."""

    def write(name, change=None):
        content = references(tmp_path / "source", categories=name != "risbench")
        if change is not None:
            change(content)
        root = tmp_path / name
        root.mkdir()
        LAYOUTS[name].writer(content, root, "copy")
        return root

    return write


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_whole_dataset_is_read_as_its_reader_reads_it(written, name):
    root = written(name)
    report = audit(root, name, workers=1)
    assert report.layout == name
    assert not report.failed
    assert {item.code for item in report.findings} <= {"split-size", "box-convention", "rle-in-list"}
    assert report.facts["images"] == {"decoded": 6, "sizes": {"32 x 24": 6}}
    assert report.facts["masks"]["decoded"] == 6
    assert report.facts["masks"]["median_pixels"] == 54
    options = {"split_by": "unc"} if name == "rrsis_d" else {}
    expected = [
        item for split in ("train", "val", "test") for item in LAYOUTS[name].reader(root, split, expected={}, **options)
    ]
    assert len(report.records) == 6
    for record, reference in zip(report.records, expected, strict=True):
        for field in ("id", "image", "expression", "split", "category", "no_target"):
            assert getattr(record, field) == getattr(reference, field)
        assert record.mask is not None
        assert np.array_equal(record.mask.decode(), reference.mask.decode())


@pytest.mark.parametrize("name", LAYOUTS)
def test_several_defects_at_once(written, name):
    """The image of one is gone, that of another damaged, a third belongs to two splits."""

    def leak(content):
        first = content["train"][0]
        content["val"].append(dataclasses.replace(first, id="again", split="val"))

    report = audit(written(name, leak), name, workers=1)
    images = {record.id: record.image for record in report.records}
    first, second = "picture2", "picture3"
    images[first].unlink()
    images[second].write_bytes(images[second].read_bytes()[:60])
    found = {item.code: item for item in audit(report.root, name, workers=1).findings}
    assert found["missing-image"].names == (first,)
    assert found["damaged-image"].names == (second,)
    assert "leaked-sample" in {item.code for item in report.findings}


@pytest.mark.parametrize("name", ["rrsis_d", "refsegrs", "risbench", "jsonl"])
def test_the_layout_is_found_out(written, name):
    assert survey(written(name)).layout == name


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("field", "value", "code", "severity"),
    [
        ("sent", None, "bad-entry", Severity.ERROR),
        ("sent", " ", "empty-expression", Severity.ERROR),
        ("segmentation", None, "missing-annotation", Severity.ERROR),
        ("no_target", True, "no-target-with-mask", Severity.ERROR),
        ("split", "test", "other-split", Severity.ERROR),
        ("bbox", [900, 900, 5, 5], "box-off-mask", Severity.WARNING),
        ("area", 9_000, "area", Severity.WARNING),
        ("id", "picture1", "repeated-id", Severity.ERROR),
        ("category_nam", "ship", None, None),
        ("height", 25, "stated-size", Severity.WARNING),
    ],
)
def test_defects_of_interchange_files(written, field, value, code, severity):
    root = written("jsonl")
    rows = lines_of(root / "train.jsonl")
    assert rows[1]["image_id"] == "picture2"
    rows[1] |= {field: value, "width": 32} if field == "height" else {field: value}
    write_lines(root / "train.jsonl", rows)
    found = {item.code: item for item in audit(root, workers=1).findings}
    if code is None:  # the right key is there too, so this one is the user's own
        assert set(found) == {"box-convention"}
        return
    assert found[code].severity is severity
    assert found[code].count == 1


def test_lines_that_are_no_json_do_not_end_it(written):
    root = written("jsonl")
    write_lines(root / "train.jsonl", ["{", "[]", "", *lines_of(root / "train.jsonl")])
    report = audit(root, workers=1)
    assert report.facts["splits"]["train"]["references"] == 3
    finding = next(item for item in report.findings if item.code == "bad-entry")
    assert finding.names == ("line 1", "line 2")


def test_a_missing_first_image_does_not_hide_the_others(written):
    root = written("jsonl")
    (root / "images/picture1.png").unlink()
    found = {item.code: item for item in audit(root, workers=1).findings}
    assert found["missing-image"].names == ("picture1",)


def test_a_file_stands_for_the_splits_beside_it(written):
    root = written("jsonl")
    (root / "datainfo").mkdir()
    for split in ("train", "val", "test"):
        (root / f"{split}.jsonl").rename(root / "datainfo" / f"rrsisd_{split}.jsonl")
    (root / "datainfo" / "other_train.jsonl").write_text("")
    report = audit(root / "datainfo" / "rrsisd_val.jsonl", workers=1)
    sizes = {split: row["references"] for split, row in report.facts["splits"].items()}
    assert sizes == {"train": 3, "val": 1, "test": 2}
    assert report.facts["splits"]["test"]["published"] == 3_481
    assert report.facts["images"]["decoded"] == 6
    with pytest.raises(S4ecaError, match=r"one dataset .*other_train\.jsonl.*give the path of one"):
        audit(root)


def test_polygons_take_their_size_from_the_image(written, tmp_path):
    root = written("jsonl")
    rows = lines_of(root / "val.jsonl")
    rows[0] |= {"segmentation": [[2, 3, 12, 3, 12, 8, 2, 8]], "bbox": [2, 3, 10, 5], "area": 50}
    write_lines(root / "val.jsonl", rows)
    assert {item.code for item in audit(root, workers=1).findings} == {"box-convention"}
    for path in (root / "images").iterdir():
        path.unlink()
    report = audit(root, workers=1)  # the polygon has no size now
    assert {item.code for item in report.findings} == {"box-convention", "annotations-alone"}
    assert report.facts["masks"]["decoded"] == 5


@pytest.mark.parametrize("name", ["refsegrs", "risbench"])
def test_defects_of_phrase_files(written, name):
    root = written(name)
    path = root / "output_phrase_train.txt"
    path.write_bytes(path.read_bytes().replace(b"vehicle number 2", b"") + b"\xff\xfe\n")
    masks = next(folder for folder in root.iterdir() if folder.name.startswith("mask"))
    suffix = next(masks.iterdir()).suffix
    (masks / f"picture3{suffix}").unlink()
    (masks / f"picture4{suffix}").write_bytes(b"none")
    (root / "output_phrase_test.txt").unlink()
    found = {item.code: item for item in audit(root, workers=1).findings}
    assert found["empty-expression"].names == ("picture2",)
    assert found["bad-entry"].names == ("line 4",)
    assert found["missing-mask"].names == ("picture3",)
    assert found["damaged-mask"].names == ("picture4",)
    assert any(name.startswith("test: 0 instead of") for name in found["split-size"].names)
    assert found["unused-image"].names == tuple(f"picture{n}{suffix}" for n in (5, 6))


def test_a_line_of_risbench_without_a_file_name(written):
    root = written("risbench")
    with (root / "output_phrase_train.txt").open("a") as stream:
        stream.write("picture2 without ending\n../secret.png a path\n")
    found = {item.code: item for item in audit(root, workers=1).findings}
    assert found["bad-entry"].names == ("picture2", "../secret.png")


def test_phrases_alone(written):
    root = written("refsegrs")
    for folder in ("images", "masks"):
        for path in (root / folder).iterdir():
            path.unlink()
        (root / folder).rmdir()
    report = audit(root)
    assert not report.failed
    assert {item.code for item in report.findings} == {"split-size", "annotations-alone", "no-masks"}
    assert report.facts["splits"]["train"]["references"] == 3


@pytest.mark.parametrize("name", ["jsonl", "refer"])
def test_targets_that_are_meant_to_be_absent(written, name):
    def absent(content):
        item = content["test"][0]
        nothing = EmptyMask(item.image, (HEIGHT, WIDTH), item.id)
        content["test"][0] = dataclasses.replace(item, mask=nothing, no_target=True)

    report = audit(written(name, absent), name, workers=1)
    assert not report.failed
    assert "no-target" in {item.code for item in report.findings}
    assert "empty-mask" not in {item.code for item in report.findings}


def test_instances_that_are_missing_beside_images_are_an_error(tmp_path, clean, found):
    root = clean(tmp_path)
    (root / "rrsisd/instances.json").unlink()
    findings = found(root)
    assert findings["no-instances"].severity is Severity.ERROR
    assert "damaged-image" not in findings


def test_a_named_layout_that_is_not_there(tmp_path, clean):
    root = clean(tmp_path)
    with pytest.raises(S4ecaError, match="no layout 'coco'"):
        survey(root, "coco")
    with pytest.raises(S4ecaError, match="RefSegRS is not complete"):
        survey(root, "refsegrs")
    with pytest.raises(S4ecaError, match="is a file"):
        survey(root / "rrsisd/refs(unc).p", "refsegrs")
