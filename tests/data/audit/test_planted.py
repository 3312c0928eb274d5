"""One defect at a time in an otherwise clean dataset: each is found, named, and nothing else is."""

import numpy as np
import pytest
from PIL import Image

from layouts import HEIGHT, WIDTH, box_mask, picture, rle
from s4eca.data.audit import Severity, audit

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
CLEAN = {"split-size", "box-convention"}  # 4, 2 and 2 references are not the published numbers; boxes are COCO's
IMAGES = "images/rrsisd/JPEGImages"


def annotation(instances, id):
    return next(item for item in instances["annotations"] if item["id"] == id)


def ref(refs, id):
    return next(item for item in refs if item["ref_id"] == id)


def say(refs, id, text):
    ref(refs, id)["sentences"][0]["raw"] = text


def test_a_clean_dataset_has_no_error(tmp_path, clean, found):
    findings = found(clean(tmp_path))
    assert set(findings) == CLEAN
    assert findings["split-size"].severity is WARNING
    assert findings["split-size"].names == (
        "train: 4 instead of 12,181",
        "val: 2 instead of 1,740",
        "test: 2 instead of 3,481",
    )
    assert findings["box-convention"].severity is NOTE
    assert "COCO's x, y, width, height" in findings["box-convention"].text


def drop_annotation(_, instances):
    instances["annotations"].remove(annotation(instances, 110))


def drop_segmentation(_, instances):
    annotation(instances, 110)["segmentation"] = []


def drop_image_entry(_, instances):
    instances["images"] = [image for image in instances["images"] if image["id"] != 113]


def drop_sentence(refs, _):
    say(refs, 101, "  ")


def repeat_id(refs, _):
    refs.append(ref(refs, 104) | {"sentences": [{"raw": "something else"}]})


def repeat_annotation(_, instances):
    instances["annotations"].insert(0, annotation(instances, 107) | {"segmentation": rle(box_mask(110))})


def repeat_row(_, instances):
    instances["annotations"].append(dict(annotation(instances, 107)))


def point_elsewhere(_, instances):
    annotation(instances, 119)["image_id"] = 101


def incomplete_entry(refs, _):
    del ref(refs, 122)["split"]


def damage_rle(_, instances):
    annotation(instances, 116)["segmentation"]["counts"] = "0"


def contradict(refs, _):
    ref(refs, 119)["no_target"] = True


def forget_mask(_, instances):
    change = annotation(instances, 122)
    change["segmentation"], change["area"] = rle(np.zeros((HEIGHT, WIDTH), dtype=bool)), 0
    del change["bbox"]


def shrink(_, instances):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[3, 4:9] = True
    annotation(instances, 104).update(segmentation=rle(mask), bbox=[4, 3, 5, 1], area=5)


def tall_mask(_, instances):
    """The same region in a mask that is one row higher than image and annotation."""
    annotation(instances, 107)["segmentation"] = rle(np.pad(box_mask(107), ((0, 1), (0, 0))))


def move_box(_, instances):
    annotation(instances, 101)["bbox"] = [20, 15, 9, 6]  # the mask is at 2, 3


def short_box(_, instances):
    annotation(instances, 101)["bbox"] = [2, 3, 9]


def wrong_area(_, instances):
    annotation(instances, 113)["area"] = 540  # ten times its 54 pixels


def text_area(_, instances):
    annotation(instances, 113)["area"] = "54"


def misspell(refs, instances):
    ref(refs, 101)["sent_idz"] = ref(refs, 101).pop("sent_ids")


def unknown_category(refs, instances):
    annotation(instances, 104)["category_id"] = ref(refs, 104)["category_id"] = 99


def disagree(refs, _):
    ref(refs, 101)["category_id"] = 18  # 13 in instances.json


def rename_split(refs, _):
    ref(refs, 122)["split"] = "testB"


def wrap(_, instances):
    change = annotation(instances, 122)
    change["segmentation"] = [change["segmentation"]]


def orphan(_, instances):
    instances["annotations"].append(annotation(instances, 101) | {"id": 900})


def same_sentence(refs, _):
    say(refs, 113, ref(refs, 101)["sentences"][0]["raw"])


@pytest.mark.parametrize(
    ("edit", "severity", "code", "names"),
    [
        (drop_annotation, ERROR, "missing-annotation", ("110",)),
        (drop_segmentation, ERROR, "missing-annotation", ("110",)),
        (drop_image_entry, ERROR, "missing-image-entry", ("113",)),
        (drop_sentence, ERROR, "empty-expression", ("101",)),
        (repeat_id, ERROR, "repeated-id", ("104 (train) = 104 (train)",)),
        (repeat_annotation, ERROR, "repeated-annotation-id", ("107",)),
        (repeat_row, WARNING, "repeated-row", ("107",)),
        (point_elsewhere, ERROR, "other-image", ("119",)),
        (incomplete_entry, ERROR, "bad-entry", ("entry 7",)),
        (damage_rle, ERROR, "damaged-mask", ("116",)),
        (contradict, ERROR, "no-target-with-mask", ("119",)),
        (forget_mask, WARNING, "empty-mask", ("122",)),
        (shrink, WARNING, "tiny-mask", ("104",)),
        (tall_mask, WARNING, "mask-size", ("107",)),
        (move_box, WARNING, "box-off-mask", ("101",)),
        (short_box, WARNING, "bad-box", ("101",)),
        (wrong_area, WARNING, "area", ("113",)),
        (text_area, WARNING, "bad-area", ("113",)),
        (misspell, WARNING, "misspelt-key", ("sent_idz",)),
        (unknown_category, WARNING, "unknown-category", ("104",)),
        (disagree, WARNING, "other-category", ("101",)),
        (rename_split, WARNING, "unknown-split", ("122",)),
        (wrap, NOTE, "rle-in-list", ("122",)),
        (orphan, NOTE, "unused-annotation", ("900",)),
        (same_sentence, NOTE, "seen-in-train", ("113",)),
    ],
)
def test_defects_of_the_annotations(tmp_path, clean, found, edit, severity, code, names):
    alongside = {
        drop_annotation: set(),
        drop_image_entry: set(),
        incomplete_entry: {"unused-annotation", "unused-image-entry", "unused-image"},
        contradict: {"no-target"},
    }
    findings = found(clean(tmp_path, edit=edit))
    assert findings[code].severity is severity
    assert findings[code].names == names
    assert findings[code].count == 1
    assert set(findings) == CLEAN | {code} | alongside.get(edit, set())


def cut_short(root):
    path = root / IMAGES / "00104.jpg"
    path.write_bytes(path.read_bytes()[:200])


def empty_file(root):
    (root / IMAGES / "00104.jpg").write_bytes(b"")


def no_picture(root):
    (root / IMAGES / "00104.jpg").write_text("<html>404</html>")


def deep(root):
    """16 bits per channel, which training refuses."""
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(values).save(root / IMAGES / "00104.jpg", format="PNG")


def remove(root):
    (root / IMAGES / "00104.jpg").unlink()


def leave_over(root):
    Image.fromarray(picture(1)).save(root / IMAGES / "extra.jpg")


def widen(root):
    Image.fromarray(picture(104, HEIGHT, WIDTH + 1)).save(root / IMAGES / "00104.jpg")


def copy_within(root):
    (root / IMAGES / "00104.jpg").write_bytes((root / IMAGES / "00101.jpg").read_bytes())


@pytest.mark.parametrize(
    ("damage", "severity", "code", "name", "alongside"),
    [
        (cut_short, ERROR, "damaged-image", "104", set()),
        (empty_file, ERROR, "damaged-image", "104", set()),
        (no_picture, ERROR, "damaged-image", "104", set()),
        (deep, ERROR, "unusable-image", "104", set()),
        (remove, ERROR, "missing-image", "104", set()),
        (leave_over, NOTE, "unused-image", "extra.jpg", set()),
        (widen, WARNING, "mask-size", "104", {"stated-size"}),
        (widen, WARNING, "stated-size", "00104.jpg: 33x24, stated 32x24", {"mask-size"}),
        (copy_within, NOTE, "image-copies", "101 (train) = 104 (train)", set()),
    ],
)
def test_defects_of_the_image_files(tmp_path, clean, found, damage, severity, code, name, alongside):
    damage(clean(tmp_path))
    findings = found(tmp_path)
    assert findings[code].severity is severity
    assert findings[code].names == (name,)
    assert set(findings) == CLEAN | {code} | alongside


def test_an_image_in_two_splits_is_found_by_its_pixels(tmp_path, clean, found):
    """The copy has another name and, as a PNG, other bytes."""
    clean(tmp_path)
    with Image.open(tmp_path / IMAGES / "00101.jpg") as image:
        image.save(tmp_path / IMAGES / "00119.jpg", format="PNG")
    findings = found(tmp_path)
    assert set(findings) == CLEAN | {"leaked-image", "image-copies"}
    assert findings["leaked-image"].severity is WARNING
    assert findings["leaked-image"].names == ("101 (train) = 119 (test)",)
    assert set(found(tmp_path, pixels=False)) == CLEAN | {"no-pixels"}


def test_a_sample_in_two_splits_is_a_warning(tmp_path, clean, found):
    """Case and spaces make no other expression of it. Readers, which read one split, cannot refuse it."""

    def leak(refs, _):
        twin = ref(refs, 101) | {"ref_id": 901, "split": "val"}
        text = ref(refs, 101)["sentences"][0]["raw"]
        refs.append(twin | {"sentences": [{"raw": text.upper().replace(" ", "  ")}]})

    findings = found(clean(tmp_path, edit=leak), pixels=False)
    assert set(findings) == CLEAN | {"leaked-sample", "leaked-image", "no-pixels"}
    assert findings["leaked-sample"].severity is WARNING
    assert findings["leaked-sample"].names == ("101 (train) = 901 (val)",)


def test_a_sample_twice_in_a_split_is_a_warning(tmp_path, clean, found):
    def repeat(refs, _):
        refs.append(ref(refs, 101) | {"ref_id": 901})

    findings = found(clean(tmp_path, edit=repeat))
    assert set(findings) == CLEAN | {"repeated-sample"}
    assert findings["repeated-sample"].severity is WARNING
    assert findings["repeated-sample"].names == ("101 (train) = 901 (train)",)


def test_an_id_in_two_splits_is_a_warning(tmp_path, clean, found):
    def reuse(refs, _):
        ref(refs, 119)["ref_id"] = 101

    findings = found(clean(tmp_path, edit=reuse))
    assert set(findings) == CLEAN | {"id-in-two-splits"}
    assert findings["id-in-two-splits"].names == ("101 (train) = 101 (test)",)


def test_a_target_that_is_meant_to_be_absent_is_no_defect(tmp_path, clean, found):
    def absent(refs, instances):
        ref(refs, 119).update(no_target=True, ann_id=[-1])
        instances["annotations"].remove(annotation(instances, 119))
        ref(refs, 122)["no_target"] = True
        forget_mask(refs, instances)

    findings = found(clean(tmp_path, edit=absent))
    assert set(findings) == CLEAN | {"no-target"}
    assert findings["no-target"].count == 2


def test_everything_at_once_is_reported_in_one_go(tmp_path, clean):
    def several(refs, instances):
        damage_rle(refs, instances)
        drop_annotation(refs, instances)
        contradict(refs, instances)
        rename_split(refs, instances)

    root = clean(tmp_path, edit=several)
    cut_short(root)
    (root / IMAGES / "00107.jpg").unlink()
    report = audit(root, workers=2)
    codes = {finding.code for finding in report.findings}
    assert codes >= {
        "damaged-mask",
        "missing-annotation",
        "no-target-with-mask",
        "unknown-split",
        "damaged-image",
        "missing-image",
    }
    assert report.failed
    order = [finding.severity for finding in report.findings]
    assert order == sorted(order, key=[ERROR, WARNING, NOTE].index)


@pytest.mark.parametrize("file", ["rrsisd/refs(unc).p", "rrsisd/instances.json"])
def test_an_annotation_file_that_cannot_be_read(tmp_path, clean, found, file):
    clean(tmp_path)
    (tmp_path / file).write_bytes(b"\x80\x04 no")
    findings = found(tmp_path)
    assert findings["unreadable-file"].severity is ERROR
    assert findings["unreadable-file"].names == (file.split("/")[1],)


def test_a_pickle_that_would_run_code_is_not_run(tmp_path, clean, found):
    clean(tmp_path)
    (tmp_path / "rrsisd/refs(unc).p").write_bytes(b"cos\nmkdir\n(Vharm\ntR.")
    assert "os.mkdir" in found(tmp_path)["unreadable-file"].text
