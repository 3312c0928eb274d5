"""A split with nothing to find stops before compute is spent on it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layouts import HEIGHT, WIDTH, box_mask, rle, write_refsegrs, write_risbench, write_rrsis_d
from s4eca.data import JointDataModule, RefSegRSDataModule, RISBenchDataModule, RRSISDDataModule
from s4eca.data.audit import Severity, audit
from s4eca.data.masks import EmptyMask, RleMask
from s4eca.data.references import Reference
from s4eca.data.targets import LOOKED_AT, check_targets
from s4eca.errors import S4ecaError

FULL, EMPTY = rle(box_mask(1)), rle(np.zeros((HEIGHT, WIDTH), dtype=bool))


@dataclasses.dataclass(frozen=True)
class Counted:
    """A mask that is counted when it is decoded."""

    filled: bool
    decoded: list

    def decode(self) -> np.ndarray:
        self.decoded.append(self)
        return np.full((2, 2), self.filled)


def references(filled: list[bool], decoded: list | None = None) -> list[Reference]:
    masks = [Counted(full, [] if decoded is None else decoded) for full in filled]
    return [Reference(str(n), Path("a.png"), "it", "test", None, mask) for n, mask in enumerate(masks)]


@pytest.mark.parametrize(("empty", "filled"), [(0, 1), (1, 8), (5, 5), (58, 10), (0, 0), (0, 500)])
def test_some_empty_targets_go_on(empty, filled):
    """RRSIS-D has one among 3,481, the real sample one among nine."""
    check_targets(references([False] * empty + [True] * filled), "The split")


@pytest.mark.parametrize(("empty", "filled", "seen"), [(1, 0, "1 of 1"), (9, 0, "9 of 9"), (19, 1, "19 of 20")])
def test_nearly_all_empty_targets_are_refused(empty, filled, seen):
    with pytest.raises(S4ecaError, match=rf"The test split.*{seen} targets.*the first: reference 0"):
        check_targets(references([False] * empty + [True] * filled), "The test split")


def test_the_look_is_bounded_and_evenly_spread():
    decoded: list = []
    with pytest.raises(S4ecaError, match=f"{LOOKED_AT} of {LOOKED_AT} targets"):
        check_targets(references([False] * 50_000, decoded), "The split")
    assert len(decoded) == LOOKED_AT
    decoded.clear()
    check_targets(references([True] * 50_000, decoded), "The split")
    assert len(decoded) <= LOOKED_AT // 10 + 1
    half = [False] * 25_000 + [True] * 25_000
    check_targets(references(half), "The split")


def test_what_is_meant_to_be_absent_does_not_count():
    absent = Reference("1", Path("a.png"), "it", "test", None, EmptyMask(Path("a.png"), (2, 2)), no_target=True)
    check_targets([absent] * 20, "The split")
    with pytest.raises(S4ecaError, match="1 of 1"):
        check_targets([absent] * 20 + references([False]), "The split")


def test_regions_are_not_painted_for_it(monkeypatch):
    monkeypatch.setattr(RleMask, "decode", None)
    row = Reference("1", Path("a.png"), "it", "test", None, RleMask([EMPTY], path=Path("instances.json")))
    with pytest.raises(S4ecaError, match=r"reference 1, in instances\.json"):
        check_targets([row], "The split")
    check_targets([dataclasses.replace(row, mask=RleMask([FULL]))], "The split")


def blacken(folder: Path) -> None:
    for path in folder.iterdir():
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("write", "module", "masks"),
    [(write_refsegrs, RefSegRSDataModule, "masks"), (write_risbench, RISBenchDataModule, "mask")],
)
def test_a_data_module_says_which_file_holds_what(tmp_path, write, module, masks):
    write(tmp_path)
    module(root=tmp_path, image_size=16).setup("fit")
    blacken(tmp_path / masks)
    for stage, split in (("fit", "train"), ("validate", "val"), ("test", "test")):
        with pytest.raises(S4ecaError, match=rf"The {split} split of {module.name}.*{masks}/.*holds the value 0"):
            module(root=tmp_path, image_size=16).setup(stage)


def test_a_threshold_above_all_values_is_named(tmp_path):
    write_refsegrs(tmp_path)
    with pytest.raises(S4ecaError, match="the values 0, 255 and the threshold is 255"):
        RefSegRSDataModule(root=tmp_path, image_size=16, threshold=255).setup("test")


def test_annotations_that_are_empty(tmp_path):
    def forget(refs, instances):
        for item in instances["annotations"]:
            item["segmentation"] = [EMPTY]

    write_rrsis_d(tmp_path, edit=forget)
    with pytest.raises(S4ecaError, match=r"The train split of rrsis_d.*4 of 4.*instances\.json"):
        RRSISDDataModule(root=tmp_path, image_size=16).setup("fit")


def test_a_large_part_does_not_hide_an_empty_one(tmp_path):
    write_rrsis_d(tmp_path / "a", train=40)
    write_refsegrs(tmp_path / "b", train=2)
    parts = {name: {"layout": layout, "root": name} for name, layout in (("a", "rrsis_d"), ("b", "refsegrs"))}
    JointDataModule(parts=parts, root=tmp_path, image_size=16).setup("fit")
    blacken(tmp_path / "b" / "masks")
    with pytest.raises(S4ecaError, match=r"train split of data\.parts\.b.*2 of 2"):
        JointDataModule(parts=parts, root=tmp_path, image_size=16).setup("fit")


def test_the_audit_calls_it_an_error(tmp_path):
    write_refsegrs(tmp_path)
    for path in sorted((tmp_path / "masks").iterdir())[:4]:  # the train split
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)
    report = audit(tmp_path, workers=1)
    found = {item.code: item for item in report.findings}
    assert report.failed
    assert found["empty-split"].severity is Severity.ERROR
    assert found["empty-split"].count == 4
    for words in ("4 targets of the train split", "41.tif", "the value 0"):
        assert words in found["empty-split"].text
    assert "empty-mask" not in found


def test_the_audit_names_masks_that_are_none(tmp_path):
    write_refsegrs(tmp_path)
    classes = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3), np.ones((12, 10), np.uint8))
    Image.fromarray(classes).save(tmp_path / "masks" / "41.tif")
    (tmp_path / "masks" / "42.tif").write_bytes(b"")
    found = {item.code: item for item in audit(tmp_path, workers=1).findings}
    assert found["unusable-mask"].names == ("41",)
    assert "41.tif: it holds the values 0, 1, 2, 3, 4, 5" in found["unusable-mask"].text
    assert found["damaged-mask"].names == ("42",)
    assert "42.tif: it is an empty file" in found["damaged-mask"].text


def test_the_audit_reads_deep_images_as_a_training_does(tmp_path):
    write_refsegrs(tmp_path)
    for path in (tmp_path / "images").iterdir():
        with Image.open(path) as image:
            deep = np.asarray(image.convert("L")).astype(np.uint16) * 16
        Image.fromarray(deep).save(path)
    found = {item.code: item for item in audit(tmp_path, workers=1).findings}
    assert found["unusable-image"].count == 8
    assert "uint16" in found["unusable-image"].text
    report = audit(tmp_path, workers=1, depth=12)
    assert not report.failed
    assert report.facts["images"]["decoded"] == 8


def test_images_of_a_kind_that_is_not_read_stop_before_training(tmp_path):
    """Every image has 16 bits; a few are opened."""
    write_refsegrs(tmp_path, train=12)
    for path in (tmp_path / "images").iterdir():
        Image.fromarray(np.full((HEIGHT, WIDTH), 999, np.uint16)).save(path)
    with pytest.raises(S4ecaError, match=r"image of reference 41.*uint16"):
        RefSegRSDataModule(root=tmp_path, image_size=16).setup("fit")
    RefSegRSDataModule(root=tmp_path, image_size=16, depth=10).setup("fit")
