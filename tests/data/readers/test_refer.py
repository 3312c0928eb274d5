import json
import pickle

import numpy as np
import pytest

from layouts import HEIGHT, SAMPLES, WIDTH, box_mask, rle, write_rrsis_d
from s4eca.data import RRSISDDataModule, read_refer
from s4eca.data.masks import EmptyMask
from s4eca.data.readers import refer as refer_module
from s4eca.data.readers.refer import ReferDataModule
from s4eca.data.readers.refer_files import read_refer_entries
from s4eca.data.readers.refer_layout import find_layout
from s4eca.errors import S4ecaError

COUNTS = {"train": 4, "val": 2, "test": 2}


def write(root, dataset="rrsishr", folder="JPEGImages", refs="refs(unc).p", instances="instances.json", edit=None):
    """REFER's layout of any other dataset; the last train entry has id 110, val has 113 and 116, test 119 and 122."""
    write_rrsis_d(root, annotations=dataset, images=f"images/{dataset}/{folder}", edit=edit)
    (root / dataset / "refs(unc).p").rename(root / dataset / refs)
    (root / dataset / "instances.json").rename(root / dataset / instances)
    return root


def read(root, split="val", **options):
    return read_refer(root, split, expected=COUNTS, strict_counts=True, **options)


@pytest.mark.parametrize(
    ("dataset", "folder", "split_by"),
    [("rrsishr", "JPEGImages", "unc"), ("ris_lad", "JPEGImages", "unc"), ("vdd_ris", "PNGImages", "uow")],
)
def test_datasets_by_name(tmp_path, dataset, folder, split_by):
    write(tmp_path, dataset, folder, f"refs({split_by}).p")
    for options in ({"dataset": dataset, "split_by": split_by}, {"dataset": dataset}, {}):
        references = read(tmp_path, **options)
        assert [item.id for item in references] == ["113", "116"]
        assert references[0].image == tmp_path / f"images/{dataset}/{folder}/00113.jpg"
        assert references[0].category == "storagetank"
        assert np.array_equal(references[0].mask.decode(), box_mask(113))


def test_two_refs_files_need_a_name(tmp_path):
    write(tmp_path, "uavid_ris", "PNGImages", "refs(uow).p")
    entries = pickle.loads((tmp_path / "uavid_ris/refs(uow).p").read_bytes())
    for entry in entries:
        entry["sentences"][0]["raw"] = "rewritten"
    (tmp_path / "uavid_ris/refs_llama(uow).p").write_bytes(pickle.dumps(entries))
    with pytest.raises(S4ecaError, match=r"2 were found .*refs\(uow\)\.p, uavid_ris/refs_llama.*split_by"):
        read(tmp_path, dataset="uavid_ris")
    assert read(tmp_path, split_by="uow")[0].expression != "rewritten"
    assert read(tmp_path, refs="refs_llama(uow).p")[0].expression == "rewritten"


def test_two_datasets_need_a_name(tmp_path):
    write(tmp_path, "rrsishr")
    write(tmp_path, "ris_lad")
    with pytest.raises(S4ecaError, match=r"2 were found \(ris_lad/refs\(unc\)\.p, rrsishr"):
        read(tmp_path)
    assert "ris_lad" in str(read(tmp_path, dataset="ris_lad")[0].image)


@pytest.mark.parametrize("images", ["images/vdd_ris", "images", "image/image", "image"])
def test_plain_image_folders_and_corrected_files(tmp_path, images):
    write_rrsis_d(tmp_path, annotations="", images=images)
    (tmp_path / "instances.json").rename(tmp_path / "new_instances.json")
    (tmp_path / "refs(unc).p").rename(tmp_path / "vdd_refs.p")
    options = {"dataset": "vdd_ris"} if "vdd" in images else {}
    references = read(tmp_path, refs="vdd_refs.p", **options)
    assert references[0].image == tmp_path / images / "00113.jpg"


def test_nwpu_refer(tmp_path):
    write_rrsis_d(tmp_path, annotations="", images="image/image")
    (tmp_path / "instances.json").rename(tmp_path / "new_instances.json")
    (tmp_path / "refs(unc).p").rename(tmp_path / "new_refs(unc).p")
    assert len(read(tmp_path)) == len(read(tmp_path, split_by="unc")) == 2


def test_places_that_are_named(tmp_path):
    write(tmp_path, instances="other.json")
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(S4ecaError, match=r"instances\.json and the folder JPEGImages or PNGImages was not found"):
        read(tmp_path)
    references = read(tmp_path, instances="other.json", images="pictures/rrsishr/JPEGImages")
    assert references[0].image.is_file()
    with pytest.raises(S4ecaError, match=r"the folder .*nowhere was not found"):
        read(tmp_path, instances="other.json", images="nowhere")


def test_nothing_there(tmp_path):
    with pytest.raises(S4ecaError, match=r"0 were found \(none\)"):
        read(tmp_path)
    with pytest.raises(S4ecaError, match=r"refs\(unc\)\.p and the folder .* was not found"):
        read(tmp_path, dataset="rrsishr", split_by="unc")
    with pytest.raises(S4ecaError, match="no folder"):
        read(tmp_path / "absent")


def test_split_names_of_refcoco(tmp_path):
    def rename(refs, _):
        for ref in refs[-2:]:
            ref["split"] = "testA"

    write(tmp_path, "refcoco", edit=rename)
    with pytest.raises(S4ecaError, match="test split"):
        read(tmp_path, "test")
    references = read(tmp_path, "test", split_names={"test": "testA"})
    assert [(item.id, item.split) for item in references] == [("119", "test"), ("122", "test")]


def test_two_splits_of_one_name(tmp_path):
    write(tmp_path)
    data = ReferDataModule(root=tmp_path, expected=COUNTS, split_names={"test": "val"})
    found = {split: [(item.id, item.split) for item in data.references(split)] for split in ("val", "test")}
    assert found == {split: [("113", split), ("116", split)] for split in ("val", "test")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_names": {"tset": "testA"}}, r"data\.split_names names a split 'tset'"),
        ({"split_names": "testA"}, r"data\.split_names=testA is no mapping"),
        ({"split_names": {"test": ["testA"]}}, r"data\.split_names\.test=.*not a text"),
        ({"expected": {"tset": 2}}, r"data\.expected names a split 'tset'"),
        ({"expected": 7}, r"data\.expected=7 is no mapping"),
        ({"expected": {"val": "2"}}, r"data\.expected\.val=2 is not a whole number"),
    ],
)
def test_splits_that_are_misspelt(tmp_path, options, message):
    write(tmp_path)
    with pytest.raises(S4ecaError, match=message):
        ReferDataModule(root=tmp_path, **options)
    with pytest.raises(S4ecaError, match=message):
        read_refer(tmp_path, "val", **options)


def test_strict_counts_need_the_size_of_every_split_that_is_read(tmp_path):
    data = ReferDataModule(root=write(tmp_path), expected={"val": 2}, strict_counts=True)
    assert len(data.references("val")) == 2
    with pytest.raises(S4ecaError, match=r"size of the test split of .* is not in data\.expected: add test"):
        data.references("test")


def test_empty_expressions(tmp_path):
    def blank(refs, _):
        for ref in refs[:4]:
            ref["sentences"][0]["raw"] = " \t"

    write(tmp_path, edit=blank)
    with pytest.raises(
        S4ecaError, match=r"refs\(unc\)\.p has 4 references whose expression is empty \(101, 104, 107, …"
    ):
        read(tmp_path, "train")
    assert len(read(tmp_path)) == 2


def test_an_annotation_that_nothing_uses_may_be_empty(tmp_path):
    def orphan(_, instances):
        instances["annotations"].append({**instances["annotations"][0], "id": 900, "segmentation": []})

    assert len(read(write(tmp_path, edit=orphan))) == 2


@pytest.mark.parametrize("key", ["image_id", "category_id", "split"])
def test_an_entry_with_a_list_where_an_id_stands(tmp_path, key):
    write(tmp_path, edit=lambda refs, _: refs[1].update({key: [[1]]}))
    with pytest.raises(S4ecaError, match=r"Entry 1 of .*refs\(unc\)\.p is not a REFER ref"):
        read(tmp_path)


def test_the_name_is_that_of_the_folder(tmp_path):
    assert ReferDataModule(root=tmp_path / "absent").name == "refer"
    assert ReferDataModule(root=write(tmp_path / "a", "ris_lad")).name == "ris_lad"
    assert ReferDataModule(root=write(tmp_path / "b", "rrsisd")).name == "rrsis_d"
    write_rrsis_d(tmp_path / "c", annotations="", images="image/image")
    assert ReferDataModule(root=tmp_path / "c").name == "refer"
    write(tmp_path / "a", "rrsishr")  # one of two
    assert ReferDataModule(root=tmp_path / "a").name == "refer"
    assert ReferDataModule(root=tmp_path / "a", dataset="rrsishr").name == "rrsishr"
    assert RRSISDDataModule(root=tmp_path / "c").name == "rrsis_d"


def test_several_annotations_are_united(tmp_path):
    """gRefCOCO: `ann_id` is a list."""

    def join(refs, instances):
        refs[-2]["ann_id"], refs[-2]["category_id"] = [119, 900], [15, 18]
        refs[-1]["ann_id"], refs[-1]["category_id"] = [122], [18]
        instances["annotations"].append(instances["annotations"][-1] | {"id": 900, "image_id": 119})
        for annotation in instances["annotations"]:
            annotation["category_id"] = annotation.pop("categories_id")

    references = read(write(tmp_path, edit=join), "test")
    assert np.array_equal(references[0].mask.decode(), box_mask(119) | box_mask(122))
    assert np.array_equal(references[1].mask.decode(), box_mask(122))
    # of two classes, so of none; and of one
    assert [item.category for item in references] == [None, "storagetank"]


@pytest.mark.parametrize(
    ("kinds", "kind"), [(("place", "place"), "place"), (("place", "size"), None), ((None, None), None)]
)
def test_the_kind_of_an_expression_is_that_of_its_annotations(tmp_path, kinds, kind):
    def edit(refs, instances):
        refs[4]["ann_id"] = [refs[4]["ann_id"], 900]
        second = instances["annotations"][4] | {"id": 900, "kind": kinds[1]}
        instances["annotations"][4]["kind"] = kinds[0]
        instances["annotations"].append(second)

    write(tmp_path, edit=edit)
    assert [item.kind for item in read(tmp_path)] == [kind, None]


def test_a_kind_that_is_no_text(tmp_path):
    write(tmp_path, edit=lambda refs, instances: instances["annotations"][0].update(kind=3))
    with pytest.raises(S4ecaError, match="its kind is not a text"):
        read(tmp_path)


@pytest.mark.parametrize("mark", ["flag", "flag and list", -1, [-1], []])
def test_no_target(tmp_path, mark):
    def nothing(refs, instances):
        refs[-1].update({"no_target": True} if isinstance(mark, str) else {"ann_id": mark})
        if mark == "flag and list":
            refs[-1]["ann_id"] = [-1]
        instances["annotations"].pop()

    references = read(write(tmp_path, edit=nothing), "test")
    assert [item.no_target for item in references] == [False, True]
    mask = references[1].mask.decode()
    assert mask.shape == (HEIGHT, WIDTH)
    assert mask.dtype == bool
    assert not mask.any()
    assert references[1].category == "storagetank"


def test_no_target_with_an_empty_annotation(tmp_path):
    for name, segmentation in {"rle": [rle(np.zeros((5, 7), bool))], "none": []}.items():

        def nothing(refs, instances, segmentation=segmentation):
            refs[-1]["no_target"] = True
            instances["annotations"][-1]["segmentation"] = segmentation

        item = read(write(tmp_path / name, edit=nothing), "test")[1]
        assert item.no_target
        assert item.mask.decode().shape == ((5, 7) if segmentation else (HEIGHT, WIDTH))
        assert not item.mask.decode().any()


def test_no_target_with_a_mask(tmp_path):
    write(tmp_path, edit=lambda refs, _: refs[-1].update(no_target=True))
    with pytest.raises(S4ecaError, match=r"Reference 122 of .* marked no_target"):
        read(tmp_path, "test")


def test_an_empty_annotation_without_the_mark(tmp_path):
    write(tmp_path, edit=lambda _, instances: instances["annotations"][-1].update(segmentation=[]))
    with pytest.raises(S4ecaError, match=r"Annotation 122 of .* has no segmentation"):
        read(tmp_path, "val")


def test_no_target_without_a_size_takes_the_image_file(tmp_path):
    def nothing(refs, instances):
        refs[-1]["ann_id"] = -1
        for image in instances["images"]:
            del image["height"], image["width"]

    item = read(write(tmp_path, edit=nothing), "test")[1]
    assert item.mask.decode().shape == (HEIGHT, WIDTH)
    item.image.write_bytes(b"")
    with pytest.raises(S4ecaError, match=r"size of image .* of reference 122"):
        item.mask.decode()
    assert EmptyMask(item.image, (3, 4)).decode().shape == (3, 4)


def test_chinese(tmp_path):
    def translate(refs, instances):
        for ref in refs:
            ref["sentences"][0]["raw"] = f"左边的灰色飞机 {ref['ref_id']}"
        instances["categories"].insert(0, {"name": "飞机", "id": 99})
        for annotation in instances["annotations"]:
            annotation["categories_id"] = 99

    write(tmp_path, edit=translate)
    path = tmp_path / "rrsishr/instances.json"
    content = json.loads(path.read_text())
    content = {"categories": content.pop("categories"), "info": {"year": 2025}, **content}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    references = read(tmp_path, "train")
    assert references[0].expression == "左边的灰色飞机 101"
    assert references[0].category == "飞机"
    for item in references:  # whose place in the file is counted in bytes
        assert np.array_equal(item.mask.decode(), box_mask(int(item.id)))


def test_refs_as_json(tmp_path):
    """gRefCOCO's refs are JSON, and some of its sentences have no raw text."""
    write(tmp_path)
    entries = pickle.loads((tmp_path / "rrsishr/refs(unc).p").read_bytes())
    del entries[4]["sentences"][0]["raw"]
    (tmp_path / "rrsishr/grefs(unc).json").write_text(json.dumps(entries))
    assert read(tmp_path, refs="grefs(unc).json") == read(tmp_path, refs="refs(unc).p")
    (tmp_path / "rrsishr/grefs(unc).json").write_text("[")
    with pytest.raises(S4ecaError, match=r"grefs\(unc\)\.json cannot be read as JSON"):
        read(tmp_path, refs="grefs(unc).json")


def test_annotations_without_images(tmp_path):
    write(tmp_path)
    for path in (tmp_path / "images/rrsishr/JPEGImages").iterdir():
        path.unlink()
    with pytest.raises(S4ecaError, match="2 of 2 files are missing"):
        read(tmp_path)
    for path in (tmp_path / "images/rrsishr/JPEGImages", tmp_path / "images/rrsishr", tmp_path / "images"):
        path.rmdir()
    with pytest.raises(S4ecaError, match="JPEGImages or PNGImages was not found"):
        read(tmp_path)
    references = read(tmp_path, need_files=False)
    assert [item.image.name for item in references] == ["00113.jpg", "00116.jpg"]
    assert np.array_equal(references[0].mask.decode(), box_mask(113))


def test_published_counts(tmp_path):
    write(tmp_path)
    with pytest.warns(UserWarning, match="has 2 references where 268 are expected"):
        read_refer(tmp_path, "val")
    with pytest.raises(S4ecaError, match="2,118 are expected"):
        ReferDataModule(root=tmp_path, strict_counts=True).references("train")
    write(tmp_path / "other", "ris_lad")
    with pytest.raises(S4ecaError, match=r"No published split sizes are known for ris_lad.*data\.expected"):
        read_refer(tmp_path / "other", "val", strict_counts=True)
    data = ReferDataModule(root=tmp_path / "other", strict_counts=True, expected=COUNTS)
    assert len(data.references("val")) == 2


def test_the_data_module_parses_once(tmp_path, monkeypatch):
    calls = []
    parse = refer_module.read_layout
    monkeypatch.setattr(refer_module, "read_layout", lambda *args: calls.append(args) or parse(*args))
    data = ReferDataModule(root=write(tmp_path), dataset="rrsishr", expected=COUNTS, strict_counts=True)
    assert data.name == "rrsishr"
    assert [len(data.references(split)) for split in ("val", "train", "test")] == [2, 4, 2]
    assert len(calls) == 1
    assert [item.id for item in data.read("val")] == ["113", "116"]
    assert len(calls) == 2
    assert data.references("train") == read(tmp_path, "train")


def test_a_file_that_changes_under_its_masks(tmp_path):
    item = read(write(tmp_path))[0]
    path = tmp_path / "rrsishr/instances.json"
    text = path.read_text()
    path.write_text(text + " ")
    with pytest.raises(S4ecaError, match=r"instances\.json has changed since it was read"):
        item.mask.decode()
    path.unlink()
    with pytest.raises(S4ecaError, match=r"instances\.json cannot be read any more"):
        item.mask.decode()


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [], "annotations": [], "categories": []',
        '{"images": [] "annotations": [], "categories": []}',
        '{"images": [,], "annotations": [], "categories": []}',
        '{"images": [], "annotations": [1], "categories": []}',
        '{"images": [], "annotations": [], "categories": []} more',
    ],
)
def test_damaged_instances(tmp_path, text):
    write(tmp_path)
    (tmp_path / "rrsishr/instances.json").write_text(text, encoding="latin-1")
    with pytest.raises(S4ecaError, match=r"instances\.json cannot be read as COCO annotations"):
        read(tmp_path)


def test_odd_spacing_of_instances(tmp_path):
    write(tmp_path)
    path = tmp_path / "rrsishr/instances.json"
    content = json.loads(path.read_text())
    expected = [item.mask.decode() for item in read(tmp_path)]
    path.write_text("\n\t" + json.dumps(content, indent=3).replace("\n", "\r\n") + "\r\n ")
    for item, mask in zip(read(tmp_path), expected, strict=True):
        assert np.array_equal(item.mask.decode(), mask)


def test_the_real_refs_alone():
    path = SAMPLES / "rrsisd_refs" / "refs_val.p"
    if not path.is_file():
        pytest.skip("the real refs of RRSIS-D's validation split are not in ../shared/data")
    entries = read_refer_entries(path)
    assert len({entry.sentences[0] for entry in entries}) == 1_087
    assert not any(entry.no_target for entry in entries)
    with pytest.raises(S4ecaError, match=r"instances\.json and the folder .* was not found"):
        find_layout(path.parent)


def test_the_real_sample_through_the_general_reader():
    root = SAMPLES / "rrsisd_mini"
    if not root.is_dir():
        pytest.skip("the RRSIS-D sample is not in ../shared/data")
    with pytest.warns(UserWarning, match="12,181"):
        special = RRSISDDataModule(root=root).references("train")
    assert read_refer(root, "train") == special
