import pytest

from layouts import SAMPLES, write_jsonl, write_refsegrs, write_risbench, write_rrsis_d
from s4eca.data import LAYOUTS, ReferringDataModule, detect_layout
from s4eca.data.readers.layouts import get_layout
from s4eca.errors import S4ecaError


def write_rrsishr(root):
    return write_rrsis_d(root, annotations="rrsishr", images="images/rrsishr/JPEGImages")


WRITTEN = {
    "rrsis_d": write_rrsis_d,
    "refer": write_rrsishr,
    "risbench": write_risbench,
    "refsegrs": write_refsegrs,
    "jsonl": write_jsonl,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*are expected")
IMAGES = ("*.jpg", "*.tif", "*.png")


@pytest.mark.parametrize("name", WRITTEN)
def test_every_layout_is_recognised_and_read(tmp_path, name):
    WRITTEN[name](tmp_path)
    assert detect_layout(tmp_path) == name
    layout = get_layout(name)
    for split, count in {"train": 4, "val": 2, "test": 2}.items():
        references = layout.reader(tmp_path, split, expected={})
        assert len(references) == count
        data = layout.module(root=tmp_path)
        assert isinstance(data, ReferringDataModule)
        assert data.read(split) == references


@pytest.mark.parametrize("name", WRITTEN)
def test_annotations_alone_are_recognised_and_read(tmp_path, name):
    WRITTEN[name](tmp_path)
    expected = LAYOUTS[name].reader(tmp_path, "val", expected={})
    for pattern in IMAGES:
        for path in tmp_path.rglob(pattern):
            path.unlink()
    with pytest.raises(S4ecaError, match=r"missing|not found"):
        LAYOUTS[name].reader(tmp_path, "val", expected={})
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    assert detect_layout(tmp_path) == name
    found = LAYOUTS[name].reader(tmp_path, "val", expected={}, need_files=False)
    assert [(item.id, item.expression) for item in found] == [(item.id, item.expression) for item in expected]
    assert [item.image.name for item in found] == [item.image.name for item in expected]


@pytest.mark.parametrize(
    ("folder", "write", "name"),
    [
        ("refer/data", write_rrsis_d, "rrsis_d"),
        ("RRSIS-D", write_rrsis_d, "rrsis_d"),
        ("refer/data", write_rrsishr, "refer"),
        ("RefSegRS", write_refsegrs, "refsegrs"),
        ("RISBench_dataset", write_risbench, "risbench"),
    ],
)
def test_from_a_folder_above(tmp_path, folder, write, name):
    write(tmp_path / folder)
    assert detect_layout(tmp_path) == name


def test_risbench_with_renamed_folders_is_not_refsegrs(tmp_path):
    write_risbench(tmp_path, images="images", masks="masks", line="<{name}> {sentence}")
    assert detect_layout(tmp_path) == "risbench"


def test_unknown(tmp_path):
    with pytest.raises(S4ecaError, match="no layout that is known"):
        detect_layout(tmp_path)
    with pytest.raises(S4ecaError, match="no folder"):
        detect_layout(tmp_path / "absent")
    with pytest.raises(S4ecaError, match=r"no layout 'coco': choose one of rrsis_d, refer, risbench, refsegrs, jsonl"):
        get_layout("coco")


@pytest.mark.parametrize(
    ("folder", "name"), [("rrsisd_mini", "rrsis_d"), ("refsegrs_mini", "refsegrs"), ("rrsisd_refs", "refer")]
)
def test_the_real_samples(folder, name):
    if not (SAMPLES / folder).is_dir():
        pytest.skip(f"{folder} is not in ../shared/data")
    assert detect_layout(SAMPLES / folder) == name
