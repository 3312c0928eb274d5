import json
import pickle
import shutil
import time
import warnings

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from layouts import CATEGORIES, SAMPLES, box_mask, rle, write_rrsis_d
from s4eca.data.readers.rrsis_d import find_layout, read_refer_entries, read_rrsis_d
from s4eca.errors import S4ecaError

COUNTS = {"train": 4, "val": 2, "test": 2}


def read(root, split, **options):
    return read_rrsis_d(root, split, expected=COUNTS, strict_counts=True, **options)


def test_reads_every_split(tmp_path):
    write_rrsis_d(tmp_path)
    references = read(tmp_path, "train")
    assert [reference.id for reference in references] == ["101", "104", "107", "110"]
    first = references[0]
    assert first.image == tmp_path / "images/rrsisd/JPEGImages/00101.jpg"
    assert first.expression == f"The {first.category} number 101 on the left"
    assert first.category in CATEGORIES.values()
    assert first.split == "train"
    assert np.array_equal(first.mask.decode(), box_mask(101))
    assert [reference.id for reference in read(tmp_path, "val")] == ["113", "116"]
    assert [reference.id for reference in read(tmp_path, "test")] == ["119", "122"]


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("rrsisd", "images/rrsisd/JPEGImages"),
        ("RRSIS-D/rrsisd", "RRSIS-D/images/rrsisd/JPEGImages"),
        ("rrsisd", "images/JPEGImages"),
        ("", "images/JPEGImages"),
        ("", "JPEGImages"),
        ("refer/rrsisd-data/rrsisd", "refer/rrsisd-data/images/rrsisd/JPEGImages"),
        ("refer/data/rrsisd", "refer/data/images/rrsisd/JPEGImages"),
        ("rrsisd", "rrsisd/images/rrsisd/JPEGImages"),
    ],
)
def test_finds_the_layouts_users_have(tmp_path, annotations, images):
    write_rrsis_d(tmp_path, annotations=annotations, images=images)
    references = read(tmp_path, "val")
    assert references[0].image == tmp_path / images / "00113.jpg"
    assert references[0].image.is_file()


def test_missing_root():
    with pytest.raises(S4ecaError, match=r"no folder /nowhere.*data\.root"):
        read_rrsis_d("/nowhere", "val")


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("rrsisd/refs(unc).p", r"refs\(unc\)\.p was not found"),
        ("rrsisd/instances.json", r"instances\.json was not found"),
        ("images", "JPEGImages was not found"),
    ],
)
def test_incomplete_layout_says_what_is_missing_and_where_it_looked(tmp_path, gone, named):
    write_rrsis_d(tmp_path)
    path = tmp_path / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(S4ecaError, match=named) as error:
        find_layout(tmp_path)
    for place in ("rrsisd/refs(unc).p", "RRSIS-D/images/rrsisd/JPEGImages", "refer/rrsisd-data/rrsisd/instances.json"):
        assert str(tmp_path / place) in str(error.value)


def test_split_by_names_the_file(tmp_path):
    write_rrsis_d(tmp_path)
    (tmp_path / "rrsisd/refs(unc).p").rename(tmp_path / "rrsisd/refs(uow).p")
    assert len(read(tmp_path, "val", split_by="uow")) == 2
    with pytest.raises(S4ecaError, match=r"refs\(unc\)\.p was not found"):
        read(tmp_path, "val")


def test_unknown_split(tmp_path):
    with pytest.raises(S4ecaError, match=r"no split 'testA'.*train, val, test"):
        read_rrsis_d(tmp_path, "testA")


def test_split_names_match_exactly(tmp_path):
    """RMSIN takes `test` for any name that contains it."""

    def rename(refs, _):
        refs[-1]["split"] = "testB"

    write_rrsis_d(tmp_path, edit=rename)
    references = read_rrsis_d(tmp_path, "test", expected={"test": 1}, strict_counts=True)
    assert [reference.id for reference in references] == ["119"]


def test_counts_warn_with_both_numbers(tmp_path):
    write_rrsis_d(tmp_path)
    with pytest.warns(UserWarning, match=r"val split.* has 2 references where 1,740 are expected"):
        assert len(read_rrsis_d(tmp_path, "val")) == 2


@pytest.mark.parametrize(("split", "number"), [("train", "12,181"), ("val", "1,740"), ("test", "3,481")])
def test_strict_counts_raise(tmp_path, split, number):
    write_rrsis_d(tmp_path)
    with pytest.raises(S4ecaError, match=f"{number} are expected.*strict_counts"):
        read_rrsis_d(tmp_path, split, strict_counts=True)


def test_right_counts_are_silent(tmp_path):
    write_rrsis_d(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_rrsis_d(tmp_path, "val", expected=COUNTS)


def test_empty_split_is_an_error(tmp_path):
    write_rrsis_d(tmp_path, test=0)
    with pytest.raises(S4ecaError, match=r"test split.* is empty"):
        read_rrsis_d(tmp_path, "test")


def test_category_comes_from_the_misspelt_key_and_from_the_stock_one(tmp_path):
    def only_misspelt(refs, _):
        for ref in refs:
            del ref["category_id"]

    def only_stock(refs, instances):
        only_misspelt(refs, instances)
        for annotation in instances["annotations"]:
            annotation["category_id"] = annotation.pop("categories_id")

    def only_refs(_, instances):
        for annotation in instances["annotations"]:
            del annotation["categories_id"]

    for name, edit in {"misspelt": only_misspelt, "stock": only_stock, "refs": only_refs}.items():
        references = read(write_rrsis_d(tmp_path / name, edit=edit), "train")
        assert [item.category for item in references] == ["ship", "storagetank", "vehicle", "ship"], name


def test_empty_masks_are_kept(tmp_path):
    def empty(_, instances):
        instances["annotations"][-1]["segmentation"] = [rle(np.zeros((24, 32), dtype=bool))]

    write_rrsis_d(tmp_path, edit=empty)
    last = read(tmp_path, "test")[-1]
    assert not last.mask.decode().any()


def test_area_and_bbox_are_not_trusted(tmp_path):
    def absurd(_, instances):
        for annotation in instances["annotations"]:
            annotation["area"], annotation["bbox"] = -1, None

    write_rrsis_d(tmp_path, edit=absurd)
    assert np.array_equal(read(tmp_path, "val")[0].mask.decode(), box_mask(113))


def test_segmentation_as_bare_dict_and_as_polygon(tmp_path):
    def change(_, instances):
        first, second = instances["annotations"][4:6]
        first["segmentation"] = first["segmentation"][0]
        second["segmentation"] = [[0, 0, 10, 0, 10, 10, 0, 10]]

    write_rrsis_d(tmp_path, edit=change)
    first, second = read(tmp_path, "val")
    assert np.array_equal(first.mask.decode(), box_mask(113))
    assert second.mask.decode().shape == (24, 32)
    assert second.mask.decode().sum() == 100


def test_every_sentence_is_a_reference(tmp_path):
    def add(refs, _):
        refs[4]["sentences"].append({"raw": " another one\n", "sent": "another one", "tokens": [], "sent_id": 9})

    write_rrsis_d(tmp_path, edit=add)
    references = read_rrsis_d(tmp_path, "val", expected={"val": 3}, strict_counts=True)
    assert [reference.id for reference in references] == ["113_0", "113_1", "116"]
    assert references[1].expression == "another one"
    assert references[0].image == references[1].image


def test_repeated_ids_are_an_error(tmp_path):
    def repeat(refs, _):
        refs.append(dict(refs[-1]))

    write_rrsis_d(tmp_path, edit=repeat)
    with pytest.raises(S4ecaError, match=r"1 ids more than once \(122\)"):
        read(tmp_path, "test")


def test_reference_without_annotation(tmp_path):
    write_rrsis_d(tmp_path, edit=lambda _, instances: instances["annotations"].pop())
    with pytest.raises(S4ecaError, match=r"Reference 122 .*annotation 122 of image 122"):
        read(tmp_path, "test")


def test_missing_images_are_one_error(tmp_path):
    write_rrsis_d(tmp_path)
    for id in (101, 107, 110):
        (tmp_path / f"images/rrsisd/JPEGImages/00{id}.jpg").unlink()
    with pytest.raises(S4ecaError, match=r"3 of 4 files are missing .*00101\.jpg of reference 101, 00107\.jpg"):
        read(tmp_path, "train")


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', '{"images": [], "annotations": 3, "categories": []}'])
def test_damaged_instances(tmp_path, content):
    write_rrsis_d(tmp_path)
    (tmp_path / "rrsisd/instances.json").write_text(content)
    with pytest.raises(S4ecaError, match=r"instances\.json cannot be read as COCO"):
        read(tmp_path, "val")


@pytest.mark.parametrize(
    ("part", "key", "message"),
    [("annotations", "segmentation", "has no segmentation"), ("images", "file_name", "has no file_name")],
)
def test_incomplete_instances(tmp_path, part, key, message):
    write_rrsis_d(tmp_path, edit=lambda _, instances: instances[part][0].pop(key))
    with pytest.raises(S4ecaError, match=message):
        read(tmp_path, "val")


class Harmful:
    def __reduce__(self):
        import os

        return os.mkdir, ("harm",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickle_with_a_global_is_refused(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    write_rrsis_d(tmp_path)
    path = tmp_path / "rrsisd/refs(unc).p"
    path.write_bytes(pickle.dumps([Harmful()], protocol=protocol))
    with pytest.raises(S4ecaError, match=r"refs\(unc\)\.p asks for (posix|nt|os)\.mkdir, which could run code"):
        read(tmp_path, "val")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2])[:-3]])
def test_damaged_pickle(tmp_path, content):
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    with pytest.raises(S4ecaError, match=r"refs\.p cannot be read as a pickle"):
        read_refer_entries(path)


def test_pickle_of_something_else(tmp_path):
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(S4ecaError, match="dict instead of a list"):
        read_refer_entries(path)
    path.write_bytes(pickle.dumps([{"ref_id": 1}]))
    with pytest.raises(S4ecaError, match=r"Entry 0 of .*image_id"):
        read_refer_entries(path)
    with pytest.raises(S4ecaError, match="cannot be read"):
        read_refer_entries(tmp_path / "absent.p")


def test_the_real_validation_entries_are_read_without_loss():
    path = SAMPLES / "rrsisd_refs" / "refs_val.p"
    if not path.is_file():
        pytest.skip("the real refs of RRSIS-D's validation split are not in ../shared/data")
    with path.open("rb") as stream:
        plain = pickle.load(stream)
    entries = read_refer_entries(path)
    assert len(entries) == 1_740
    assert [entry.ref_id for entry in entries] == [ref["ref_id"] for ref in plain]
    assert [entry.ann_id for entry in entries] == [ref["ann_id"] for ref in plain]
    assert [entry.image_id for entry in entries] == [ref["image_id"] for ref in plain]
    assert [entry.category_id for entry in entries] == [ref["category_id"] for ref in plain]
    assert [entry.split for entry in entries] == [ref["split"] for ref in plain]
    assert [entry.sentences for entry in entries] == [(ref["sentences"][0]["raw"],) for ref in plain]


def test_the_real_sample():
    root = SAMPLES / "rrsisd_mini"
    if not root.is_dir():
        pytest.skip("the RRSIS-D sample is not in ../shared/data")
    with (root / "rrsisd" / "refs(unc).p").open("rb") as stream:
        plain = {ref["ref_id"]: ref for ref in pickle.load(stream)}
    instances = json.loads((root / "rrsisd" / "instances.json").read_text())
    annotations = {item["id"]: item for item in instances["annotations"]}
    names = {item["id"]: item["name"] for item in instances["categories"]}
    empty = 0
    odd_sizes = []
    for split, count in {"train": 31, "val": 8, "test": 9}.items():
        with pytest.warns(UserWarning, match=f"has {count} references"):
            references = read_rrsis_d(root, split)
        assert len(references) == count
        for reference in references:
            ref = plain[int(reference.id)]
            annotation = annotations[ref["ann_id"]]
            assert reference.expression == ref["sentences"][0]["raw"]
            assert reference.category == names[annotation["categories_id"]]
            mask = reference.mask.decode()
            assert np.array_equal(mask, coco.decode(annotation["segmentation"])[..., 0] > 0)
            empty += not mask.any()
            width, height = Image.open(reference.image).size
            if (height, width) != mask.shape:
                odd_sizes.append(((height, width), mask.shape))
    assert empty == 1
    assert len(odd_sizes) == 1


def test_speed_of_a_full_size_split(tmp_path):
    """17,402 references take seconds, not minutes: one listing of the folder, nothing decoded."""
    write_rrsis_d(tmp_path, train=1, val=0, test=0)

    def many(refs, instances):
        for part in (refs, instances["images"], instances["annotations"]):
            part[:] = [
                part[0] | {key: number for key in ("id", "ref_id", "image_id", "ann_id") if key in part[0]}
                for number in range(17_402)
            ]

    write_rrsis_d(tmp_path, train=1, val=0, test=0, edit=many)
    start = time.perf_counter()
    assert len(read_rrsis_d(tmp_path, "train", expected={})) == 17_402
    assert time.perf_counter() - start < 20
