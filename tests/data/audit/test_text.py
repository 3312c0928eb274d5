"""Counts of words and tokens, and audits of annotations without images."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4eca.data.audit import Record, Severity, audit, survey
from s4eca.data.audit.text import expression_facts, token_facts
from s4eca.errors import S4ecaError


def records(**splits):
    rows = [(split, text) for split, texts in splits.items() for text in texts]
    return [Record(id=str(i), split=split, expression=text) for i, (split, text) in enumerate(rows)]


def test_words():
    rows = records(train=["The ship", "the ship", "a gray ship"], val=["The ship"], test=["a  ship on the left", "x"])
    assert expression_facts(rows) == {
        "distinct": 5,
        "vocabulary": 7,  # the ship a gray on left x
        "words": {"mean": 15 / 6, "min": 1, "max": 5, "histogram": {"1": 1, "2": 3, "3": 1, "5": 1}},
        "seen_in_train": {"val": 1, "test": 0},
    }


def test_words_of_nothing():
    assert expression_facts([])["words"] == {"mean": None, "min": None, "max": None, "histogram": {}}
    assert expression_facts(records(val=["a ship"]))["seen_in_train"] is None


def test_tokens(tokenizer):
    """[CLS], [SEP], and one token per word and digit."""
    rows = records(
        train=["the gray ship", "ship number 101 on the left"], test=["a tree", "ship number 101 on the left"]
    )
    facts, findings = token_facts(rows, tokenizer, "handful", 9)
    assert facts == {
        "tokenizer": "handful",
        "max_tokens": 9,
        "tokens": {"mean": (5 + 10 + 4 + 10) / 4, "min": 4, "max": 10, "histogram": {"4": 1, "5": 1, "10": 2}},
        "truncated": {"train": 1, "test": 1},
        "unknown": {"test": 1},  # tree
    }
    assert [(item.code, item.severity, item.names) for item in findings] == [
        ("truncated", Severity.WARNING, ("1", "3")),
        ("unknown-word", Severity.NOTE, ("2",)),
    ]
    assert "10 would hold all" in findings[0].text
    assert token_facts(rows, tokenizer, "handful", 10)[0]["truncated"] == {}


def test_max_tokens_default_to_the_dataset(tmp_path, clean, tokenizer):
    root = clean(tmp_path)
    assert audit(root, tokenizer=tokenizer, pixels=False).facts["tokens"]["max_tokens"] == 22
    assert audit(root, tokenizer=tokenizer, max_tokens=5, pixels=False).facts["tokens"]["truncated"] == {
        "train": 4,
        "val": 2,
        "test": 2,
    }


def test_annotations_without_images(tmp_path, clean, found):
    root = clean(tmp_path)
    for path in (root / "images/rrsisd/JPEGImages").iterdir():
        path.unlink()
    for _ in range(2):  # with the folder and without it
        findings = found(root)
        assert set(findings) == {"split-size", "box-convention", "annotations-alone"}
        assert findings["annotations-alone"].severity is Severity.NOTE
        assert findings["annotations-alone"].count == 8
        (root / "images/rrsisd/JPEGImages").rmdir() if (root / "images/rrsisd/JPEGImages").is_dir() else None


def test_images_under_other_names_are_missing(tmp_path, clean, found):
    root = clean(tmp_path)
    for path in list((root / "images/rrsisd/JPEGImages").iterdir()):
        path.rename(path.with_suffix(".png"))
    findings = found(root)
    assert findings["missing-image"].severity is Severity.ERROR
    assert findings["missing-image"].count == 8
    assert findings["unused-image"].count == 8


def test_a_refs_file_finds_what_belongs_to_it(tmp_path, clean, found):
    root = clean(tmp_path)
    assert set(found(root / "rrsisd/refs(unc).p", layout="rrsis_d")) == {"split-size", "box-convention"}


@pytest.mark.parametrize(("folder", "train"), [("rrsisd", 12_181), ("rrsishr", 2_118), ("other", None)])
def test_a_refs_file_is_compared_with_the_dataset_of_its_folder(tmp_path, clean, folder, train):
    root = clean(tmp_path)
    (root / "rrsisd").rename(root / folder)
    assert survey(root / folder / "refs(unc).p").published.get("train") == train


def test_roots_that_are_nothing(tmp_path):
    with pytest.raises(S4ecaError, match="neither a folder nor a file /nowhere"):
        audit("/nowhere")
    with pytest.raises(S4ecaError, match="layout"):
        audit(tmp_path)


junk = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 200), st.floats(), st.text(max_size=4), st.just([]), st.just({})
)
junk = st.one_of(junk, st.lists(junk, max_size=3), st.dictionaries(st.text(max_size=3), junk, max_size=2))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    part=st.sampled_from(["refs", "images", "annotations", "categories", "sentences"]),
    row=st.integers(0, 2),
    key=st.integers(0, 7),
    value=junk,
    whole=st.booleans(),
)
def test_whatever_stands_in_an_entry_does_not_end_the_audit(tmp_path, clean, part, row, key, value, whole):
    """One value, or a whole row, of an annotation file is replaced by something arbitrary."""

    def spoil(refs, instances):
        rows = {"refs": refs, "sentences": refs[row]["sentences"]}.get(part) or instances[part]
        at = row % len(rows)
        if whole:
            rows[at] = value
        else:
            rows[at][list(rows[at])[key % len(rows[at])]] = value

    report = audit(clean(tmp_path, edit=spoil), workers=1)
    assert report.facts["splits"]["test"]["references"] >= 1
    json.dumps(report.plain(), allow_nan=False)
