from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layouts import write_refsegrs, write_rrsis_d
from s4eca.data import JointDataModule, RRSISDDataModule, SyntheticDataModule
from s4eca.data.masks import EmptyMask
from s4eca.data.references import Reference
from s4eca.data.train_share import draw_images
from s4eca.errors import S4ecaError
from s4eca.identity import describe_training

pytestmark = pytest.mark.filterwarnings("ignore:.*are expected")

SHARES = st.floats(0, 1, exclude_min=True)


def references(owners):
    """One reference for each number, which is that of its image."""
    return [
        Reference(str(place), Path(f"{owner}.jpg"), "a ship", "train", None, EmptyMask(4, 4))
        for place, owner in enumerate(owners)
    ]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), SHARES, SHARES, st.integers(0, 9))
def test_shares_are_whole_images_and_smaller_ones_lie_within_larger_ones(owners, one, other, seed):
    whole = references(owners)
    small, large = (draw_images(whole, share, seed) for share in sorted((one, other)))
    assert [item for item in large if item in small] == small, "nested, in the split's order"
    assert [item for item in whole if item in large] == large
    for share, drawn in zip(sorted((one, other)), (small, large), strict=True):
        images = {item.image for item in drawn}
        assert [item for item in whole if item.image in images] == drawn, "no expression of an image is left out"
        wanted = share * len(set(owners))
        assert len(images) >= 1
        assert abs(len(images) - wanted) <= (0.5 if wanted > 0.5 else 1)
    assert draw_images(whole, 1, seed) == whole


def test_seeds_draw_other_images_and_every_image_is_drawn_by_some():
    whole = references(range(10))
    drawn = [{item.id for item in draw_images(whole, 0.3, seed)} for seed in range(60)]
    assert {len(ids) for ids in drawn} == {3}
    assert len({frozenset(ids) for ids in drawn}) > 20
    assert set.union(*drawn) == {item.id for item in whole}


@pytest.mark.parametrize("share", [0, -0.1, 1.1, 2, float("nan"), "0.1", True, None])
def test_what_is_no_share_is_refused(tmp_path, share):
    with pytest.raises(S4ecaError, match=r"data\.train_share=.* is no share of the training images: set it above 0"):
        RRSISDDataModule(root=tmp_path, train_share=share)


def test_a_module_keeps_a_share_of_train_and_all_of_val_and_test(tmp_path, tokenizer):
    write_rrsis_d(tmp_path, train=20, val=5, test=5)
    options = {"root": tmp_path, "tokenizer": tokenizer, "image_size": 16, "batch_size": 2, "num_workers": 0}
    whole = RRSISDDataModule(**options, strict_counts=False)
    data = {share: RRSISDDataModule(**options, train_share=share, seed=3) for share in (0.1, 0.3, 1)}
    ids = {share: [item.id for item in module.references("train")] for share, module in data.items()}
    assert [len(found) for found in ids.values()] == [2, 6, 20]
    assert set(ids[0.1]) < set(ids[0.3]) < set(ids[1])
    assert ids[1] == [item.id for item in whole.references("train")]
    assert [item.id for item in RRSISDDataModule(**options, train_share=0.3, seed=4).references("train")] != ids[0.3]
    seen = [id for batch in data[0.3].train_dataloader() for id in batch.ids]
    assert sorted(seen) == sorted(ids[0.3])
    for split in ("val", "test"):
        assert data[0.1].references(split) == whole.references(split)
        assert data[0.1].fingerprint((split,)) == whole.fingerprint((split,))
    with pytest.raises(S4ecaError, match="The train split has 2 references per process, fewer than one batch of 4"):
        RRSISDDataModule(**{**options, "batch_size": 4}, train_share=0.1).train_dataloader()


def test_published_counts_are_those_of_the_whole(tmp_path):
    data = RRSISDDataModule(root=write_rrsis_d(tmp_path, train=20), train_share=0.1)
    with pytest.warns(UserWarning, match="20 references"):
        data.references("train")


def test_several_datasets_share_one_draw_and_copies_stay_together(tmp_path):
    write_rrsis_d(tmp_path / "d", train=8)
    write_refsegrs(tmp_path / "r", train=8)
    parts = {
        "d": {"layout": "rrsis_d", "root": "d"},
        "r": {"layout": "refsegrs", "root": "r", "repeat": 3},
    }
    data = JointDataModule(root=tmp_path, parts=parts, train_share=0.5)
    kept = [item.id for item in data.references("train")]
    once = [id for id in kept if "#" not in id]
    assert len(once) == 8
    assert sorted(kept) == sorted(once + [f"{id}#{copy}" for id in once if id.startswith("r/") for copy in (2, 3)]), (
        "all copies of an image or none"
    )
    assert len(data.references("val")) == 4
    parts["d"]["train_share"] = 0.5
    with pytest.raises(S4ecaError, match=r"data\.parts\.d has no option train_share.*is set once for the whole"):
        JointDataModule(root=tmp_path, parts=parts)


def test_drawn_scenes(tmp_path):
    data = SyntheticDataModule(root=tmp_path / "s", train=6, val=2, test=2, scene_size=48, train_share=0.5)
    data.prepare_data()
    assert [len(data.references(split)) for split in ("train", "val", "test")] == [3, 2, 2]


def test_the_fingerprint_says_what_was_drawn_and_what_from(tmp_path):
    root = write_rrsis_d(tmp_path, train=20)
    whole = RRSISDDataModule(root=root).fingerprint()
    first, second = (RRSISDDataModule(root=root, train_share=0.3, seed=seed).fingerprint() for seed in (0, 1))
    assert first["train"]["count"] == 6
    assert first["train"]["drawn_from"] == {**whole["train"], "share": 0.3}
    assert first["train"]["sha256"] not in (second["train"]["sha256"], whole["train"]["sha256"])
    assert (first["val"], first["test"]) == (whole["val"], whole["test"])
    stated = []
    for data in (first, second):
        made = {"config": {}, "base": {"vision": {}, "text": {}}, "method": {"name": "s4eca"}, "data": data}
        stated.append(describe_training(made)["training_data"])
    assert stated[0] == stated[1] == {**whole, "train": {**whole["train"], "share": 0.3}}, "seeds of one training"
