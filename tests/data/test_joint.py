import json

import numpy as np
import pytest

from layouts import box_mask, write_jsonl, write_refsegrs, write_risbench, write_rrsis_d
from s4eca.data import JointDataModule
from s4eca.errors import S4ecaError

pytestmark = pytest.mark.filterwarnings("ignore:.*are expected", "ignore:.*does not have many workers")


def parts(root, **changes):
    """RRSIS-D with ids from 101 on and RefSegRS with ids from 41 on."""
    write_rrsis_d(root / "d")
    write_refsegrs(root / "r")
    described = {
        "rrsis_d": {"layout": "rrsis_d", "root": "d"},
        "refsegrs": {"layout": "refsegrs", "root": str(root / "r")},
    }
    for name, change in changes.items():
        described[name] = change if change is None else {**described.get(name, {}), **change}
    return {"root": root, "parts": described}


def ids(data, split):
    return [item.id for item in data.references(split)]


def test_one_after_the_other(tmp_path):
    data = JointDataModule(**parts(tmp_path))
    assert ids(data, "train") == [
        *[f"rrsis_d/{number}" for number in (101, 104, 107, 110)],
        *[f"refsegrs/{number}" for number in (41, 42, 43, 44)],
    ]
    assert ids(data, "val") == ["rrsis_d/113", "rrsis_d/116", "refsegrs/45", "refsegrs/46"]
    first, last = data.references("test")[0], data.references("test")[-1]
    assert [first.category, last.category] == ["ship", "vehicle"]
    assert data.references("train")[0].category == "ship"
    assert (first.split, first.image) == ("test", tmp_path / "d/images/rrsisd/JPEGImages/00119.jpg")
    assert np.array_equal(first.mask.decode(), box_mask(119))
    assert np.array_equal(last.mask.decode(), box_mask(48))
    assert (data.name, data.max_tokens) == ("rrsis_d+refsegrs", 22)


def test_the_order_is_that_of_the_parts(tmp_path):
    options = parts(tmp_path)
    options["parts"] = dict(reversed(options["parts"].items()))
    assert ids(JointDataModule(**options), "val")[0] == "refsegrs/45"


def test_copies_are_for_training_only(tmp_path):
    data = JointDataModule(**parts(tmp_path, refsegrs={"repeat": 3}))
    train = ids(data, "train")
    assert len(train) == len(set(train)) == 4 + 3 * 4
    assert train[4:] == [f"refsegrs/{number}{mark}" for mark in ("", "#2", "#3") for number in (41, 42, 43, 44)]
    copies = [item for item in data.references("train") if item.id.startswith("refsegrs/42")]
    assert len({(item.image, item.expression, item.mask) for item in copies}) == 1
    assert ids(data, "val") == ["rrsis_d/113", "rrsis_d/116", "refsegrs/45", "refsegrs/46"]


def test_batches_of_both(tmp_path, tokenizer):
    data = JointDataModule(**parts(tmp_path), tokenizer=tokenizer, image_size=16, batch_size=4, num_workers=0)
    batches = list(data.train_dataloader())
    assert sorted(id for batch in batches for id in batch.ids) == sorted(ids(data, "train"))
    evaluated = next(iter(data.test_dataloader()))
    assert evaluated.ids == ["rrsis_d/119", "rrsis_d/122", "refsegrs/47", "refsegrs/48"]
    assert np.array_equal(evaluated.original_masks[2].numpy(), box_mask(47))


def test_copies_of_a_sample_share_the_key_of_its_image(tmp_path, tokenizer):
    data = JointDataModule(
        **parts(tmp_path, refsegrs={"repeat": 2}), tokenizer=tokenizer, image_size=16, batch_size=1, num_workers=0
    )
    data.keyed = ("train",)
    found = {batch.ids[0]: batch.image_keys[0] for batch in data.train_dataloader()}
    copies = [id for id in found if id.endswith("#2")]
    assert copies
    assert all(found[id] == found[id.removesuffix("#2")] is not None for id in copies)


def test_fingerprint(tmp_path):
    base = JointDataModule(**parts(tmp_path / "a")).fingerprint()
    assert {split: value["count"] for split, value in base.items()} == {"train": 8, "val": 4, "test": 4}
    assert JointDataModule(**parts(tmp_path / "b")).fingerprint() == base
    repeated = JointDataModule(**parts(tmp_path / "c", refsegrs={"repeat": 2})).fingerprint()
    assert repeated["train"] != base["train"]
    assert repeated["val"] == base["val"]
    json.dumps(base)


def test_any_layout_and_its_options(tmp_path):
    write_jsonl(tmp_path / "j", name="datainfo/a_{split}.jsonl")
    write_jsonl(tmp_path / "j", name="datainfo/b_{split}.jsonl")
    write_rrsis_d(tmp_path / "h", annotations="rrsishr", images="images/rrsishr/JPEGImages")
    write_risbench(tmp_path / "b")
    data = JointDataModule(
        parts={
            "lines": {"layout": "jsonl", "root": tmp_path / "j", "name": "a"},
            "hr": {"layout": "refer", "root": tmp_path / "h", "dataset": "rrsishr", "split_by": "unc"},
            "bench": {"layout": "risbench", "root": tmp_path / "b", "threshold": 60},
        }
    )
    assert ids(data, "val") == [
        "lines/205", "lines/206", "hr/113", "hr/116", "bench/val_65_2", "bench/val_66_2",
    ]  # fmt: skip
    assert data.references("val")[-1].mask.threshold == 60


def test_a_part_that_is_null_is_left_out(tmp_path):
    data = JointDataModule(**parts(tmp_path, refsegrs=None))
    assert ids(data, "val") == ["rrsis_d/113", "rrsis_d/116"]
    with pytest.raises(S4ecaError, match=r"data\.parts is empty"):
        JointDataModule(**parts(tmp_path, refsegrs=None, rrsis_d=None))


def test_a_part_without_a_split(tmp_path):
    write_rrsis_d(tmp_path / "x", val=0)
    options = parts(tmp_path, rrsis_d={"root": "x"})
    with pytest.raises(
        S4ecaError, match=r"val split of data\.parts\.rrsis_d cannot be read .*rrsis_d\.splits.*is empty"
    ):
        JointDataModule(**options).references("val")
    options["parts"]["rrsis_d"]["splits"] = ["train"]
    data = JointDataModule(**options)
    assert ids(data, "val") == ["refsegrs/45", "refsegrs/46"]
    assert len(ids(data, "train")) == 8
    options["parts"]["refsegrs"]["splits"] = "train"
    with pytest.raises(S4ecaError, match="No part has a val split"):
        JointDataModule(**options).references("val")


def test_strict_counts_reach_every_part(tmp_path):
    options = parts(tmp_path)
    with pytest.raises(S4ecaError, match=r"data\.parts\.rrsis_d .*12,181"):
        JointDataModule(**options, strict_counts=True).references("train")
    options["parts"] = dict(reversed(options["parts"].items()))
    with pytest.raises(S4ecaError, match=r"data\.parts\.refsegrs .*2,172"):
        JointDataModule(**options, strict_counts=True).references("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "coco"}, r"data\.parts\.refsegrs needs a root and a layout.*rrsis_d, refer"),
        ({"layout": None}, "needs a root and a layout"),
        ({"root": None}, "needs a root and a layout"),
        ({"repeat": 0}, r"repeat=0 is no number of copies"),
        ({"repeat": 1.5}, r"repeat=1\.5"),
        ({"repeat": True}, "repeat=True"),
        ({"splits": ["dev"]}, "no split 'dev'"),
        ({"splits": []}, r"data\.parts\.refsegrs\.splits=\[\] is no list of splits.*refsegrs=null"),
        ({"splits": 3}, "splits=3 is no list"),
        ({"layout": ["refsegrs"]}, "needs a root and a layout"),
        ({"root": 3}, "needs a root and a layout"),
        ({"dataset": "x"}, r"has no option dataset: it has layout, root, repeat, splits, threshold, and what"),
        ({"batch_size": 3}, "has no option batch_size.*set once"),
    ],
)
def test_parts_that_are_not_described_well(tmp_path, change, message):
    with pytest.raises(S4ecaError, match=message):
        JointDataModule(**parts(tmp_path, refsegrs=change))


@pytest.mark.parametrize("name", ["a/b", "a#2"])
def test_names_that_ids_could_not_be_told_by(tmp_path, name):
    with pytest.raises(S4ecaError, match="choose a name"):
        JointDataModule(parts={name: {"layout": "rrsis_d", "root": tmp_path}})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (None, r"data\.parts=None is no mapping"),
        (["rrsis_d"], r"data\.parts=.* is no mapping"),
        ({"x": "foo"}, r"data\.parts\.x=foo is no mapping"),
    ],
)
def test_parts_that_are_no_mappings(parts, message):
    with pytest.raises(S4ecaError, match=message):
        JointDataModule(parts=parts)


def test_an_id_that_ends_as_a_copy_does(tmp_path):
    def edit(split, rows):
        rows[0]["id"], rows[1]["id"] = "x", "x#2"

    part = {"layout": "jsonl", "root": write_jsonl(tmp_path, edit=edit)}
    assert ids(JointDataModule(parts={"a": part}), "train")[:2] == ["a/x", "a/x#2"]
    data = JointDataModule(parts={"a": {**part, "repeat": 2}})
    with pytest.raises(S4ecaError, match=r"data\.parts has 1 ids more than once \(a/x#2\).*set repeat to 1"):
        data.references("train")
    assert len(ids(data, "val")) == 2
