"""The real samples: every planted trap of the RRSIS-D sample is named, and the real entries' facts are reproduced."""

import pytest

from layouts import SAMPLES
from s4eca.data.audit import Severity, audit

MINI = SAMPLES / "rrsisd_mini"
REFS = SAMPLES / "rrsisd_refs" / "refs_val.p"

needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason="the RRSIS-D sample is not in ../shared/data")
needs_refs = pytest.mark.skipif(not REFS.is_file(), reason="the real refs of RRSIS-D are not in ../shared/data")


@pytest.fixture(scope="module")
def mini():
    return audit(MINI, workers=2)


@needs_mini
@pytest.mark.parametrize(
    ("code", "count", "names", "words"),
    [
        ("misspelt-key", 48, ("categories_id",), "`categories_id` where others have `category_id`"),
        ("box-convention", 47, None, "boxes are x1, y1, x2, y2 and not COCO's"),
        ("area", 47, None, "median ratio of area to pixels is 211"),
        ("rle-in-list", 48, None, "list of one"),
        ("mask-size", 1, ("30094",), "mask 800x800, image 800x801"),
        ("stated-size", 1, ("30094.jpg: 800x801, stated 800x800",), ""),
        ("empty-mask", 1, ("30118",), "not marked"),
        ("box-without-mask", 1, ("30118",), ""),
        ("split-size", 3, ("train: 31 instead of 12,181", "val: 8 instead of 1,740", "test: 9 instead of 3,481"), ""),
    ],
)
def test_every_planted_trap_is_named(mini, code, count, names, words):
    finding = next(item for item in mini.findings if item.code == code)
    assert finding.count == count
    assert names is None or finding.names == names
    assert words in finding.text


@needs_mini
def test_the_sample_has_no_error_and_no_other_warning(mini):
    assert not mini.failed
    assert {item.code for item in mini.findings if item.severity is Severity.WARNING} == {
        *("misspelt-key", "box-convention", "area", "mask-size", "stated-size"),
        *("empty-mask", "box-without-mask", "split-size"),
    }
    assert mini.facts["images"] == {"decoded": 48, "sizes": {"800 x 800": 47, "800 x 801": 1}}
    assert mini.facts["masks"] == {
        "decoded": 48,
        "empty": 1,
        "tiny": 0,
        "tiny_below": 32,
        "median_pixels": 775,
        "min_pixels": 70,
    }
    assert mini.facts["boxes"]["median_iou"]["xyxy"] == 1.0


@needs_mini
def test_without_pixels_the_masks_in_the_annotations_are_still_checked():
    report = audit(MINI, pixels=False)
    codes = {item.code for item in report.findings}
    assert {"empty-mask", "area", "box-convention", "no-pixels"} <= codes
    assert "mask-size" not in codes  # needs the image
    assert report.facts["images"] is None


@needs_refs
@pytest.mark.parametrize("path", [REFS, REFS.parent])
def test_the_facts_of_the_real_validation_entries(path):
    report = audit(path, "rrsis_d")
    assert report.facts["splits"]["val"] == {"references": 1_740, "images": 1_740, "published": 1_740}
    expressions = report.facts["expressions"]
    assert expressions["distinct"] == 1_087
    assert expressions["vocabulary"] == 81
    assert round(expressions["words"]["mean"], 2) == 6.67
    assert (expressions["words"]["min"], expressions["words"]["max"]) == (3, 18)
    # per-category counts of the validation split as published with the dataset
    counts = [62, 50, 68, 106, 115, 55, 135, 53, 80, 64, 105, 28, 95, 85, 50, 65, 52, 72, 283, 117]
    assert report.facts["categories"] == {
        name: {"val": counts[int(name[3:])]} for name in sorted(f"id {number}" for number in range(20))
    }
    assert not report.failed
    assert {item.code for item in report.findings} == {"split-size", "annotations-alone", "no-instances"}
    assert report.facts["masks"] is None
    assert report.facts["images"] is None


@needs_refs
def test_entries_alone_are_compared_with_no_dataset_unless_it_is_named():
    report = audit(REFS)
    assert {item.code for item in report.findings} == {"annotations-alone", "no-instances"}


def test_the_refsegrs_sample():
    root = SAMPLES / "refsegrs_mini"
    if not root.is_dir():
        pytest.skip("the RefSegRS sample is not in ../shared/data")
    report = audit(root, workers=2)
    assert {item.code for item in report.findings} == {"split-size", "seen-in-train"}
    assert report.facts["images"] == {"decoded": 18, "sizes": {"512 x 512": 18}}
    assert report.facts["masks"]["decoded"] == 18
    assert report.facts["boxes"] is None
    # lines of the val and test phrase files that are also lines of the train file
    phrases = {
        split: [
            line.split(" ", 1)[1]
            for line in (root / f"output_phrase_{split}.txt").read_text().splitlines()
            if line.strip()
        ]
        for split in ("train", "val", "test")
    }
    assert report.facts["expressions"]["seen_in_train"] == {
        split: sum(phrase in phrases["train"] for phrase in phrases[split]) for split in ("val", "test")
    }
