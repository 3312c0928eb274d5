"""Reader for RRSIS-D, a dataset in REFER's layout (RMSIN, arXiv:2312.12470)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s4eca.data.readers.checks import check_split
from s4eca.data.readers.refer import ReferDataModule, check_references, read_layout
from s4eca.data.readers.refer_files import ReferEntry, read_refer_entries
from s4eca.data.readers.refer_layout import Layout, Names, check_root, locate
from s4eca.data.references import Reference

__all__ = ["RRSIS_D_COUNTS", "RRSISDDataModule", "ReferEntry", "find_layout", "read_refer_entries", "read_rrsis_d"]

RRSIS_D_COUNTS = {"train": 12_181, "val": 1_740, "test": 3_481}

# Where users really have it: the layout of RMSIN's README, one folder deeper (RS2-SAM2, RSRefSeg2, SegEarth-R1), below
# a `refer` checkout, and the unzipped Hugging Face copy.
_BASES = ("", "RRSIS-D", "rrsisd-data", "refer/data", "refer/rrsisd-data", "rrsisd")
_ANNOTATIONS = ("rrsisd", "")
_IMAGES = ("images/rrsisd/JPEGImages", "images/JPEGImages", "JPEGImages")


def read_rrsis_d(
    root: str | Path,
    split: str,
    strict_counts: bool = False,
    split_by: str = "unc",
    expected: Mapping[str, int] = RRSIS_D_COUNTS,
    need_files: bool = True,
) -> list[Reference]:
    """Reads one split in the order of the refs file.

    Every sentence is a reference. Its id is the `ref_id`, followed by `_0`, `_1`, … where an entry has several
    sentences. Categories carry the dataset's own names (`baseballfield`). The stored `area` and `bbox` are ignored:
    the first is some 200 times too large, the second belongs to DIOR-RSVG. References whose mask is empty are kept
    (test 00413 is one), so that the split stays the published one.

    Args:
        root: any folder that `find_layout` understands.
        split: `train`, `val` or `test`; compared exactly.
        strict_counts: a split size other than the published one is an error instead of a warning.
        split_by: the name in brackets of `refs(unc).p`.
        expected: published split sizes.
        need_files: False to read the annotations without their images.

    Raises:
        S4ecaError: files are missing, damaged or hold something else than the layout promises.
    """
    check_split(split)
    layout = find_layout(root, split_by, need_files)
    references = read_layout(layout, (split,))[split]
    check_references(references, split, layout, f"RRSIS-D in {root}", expected, strict_counts, need_files)
    return references


def find_layout(root: str | Path, split_by: str = "unc", need_files: bool = True) -> Layout:
    """Finds the annotation files and the image folder below `root` in any of the layouts that users have.

    Raises:
        S4ecaError: something is missing; the message says what, and lists every place that was looked at.
    """
    root = check_root(root, "RRSIS-D")
    refs = f"refs({split_by}).p"
    names = Names("RRSIS-D", _BASES, _ANNOTATIONS, (refs,), ("instances.json",), _IMAGES, all_bases=True)
    return locate(root, names, None, need_files)


def has_refs(root: Path) -> bool:
    """Returns whether there is a `refs(unc).p` where RRSIS-D has it; in RRSIS-D's own folder, or beside no other's."""
    places = [root / base / folder / "refs(unc).p" for base in _BASES for folder in _ANNOTATIONS]
    return any(path.is_file() for path in places)


class RRSISDDataModule(ReferDataModule):
    """RRSIS-D; 22 tokens cover every one of its sentences.

    Args:
        split_by: see `read_rrsis_d`.
        options: as for `ReferringDataModule`.
    """

    name = "rrsis_d"
    title = "RRSIS-D"

    def __init__(self, *, max_tokens: int = 22, split_by: str = "unc", **options: Any) -> None:
        super().__init__(dataset="rrsisd", max_tokens=max_tokens, split_by=split_by, expected=RRSIS_D_COUNTS, **options)
        self.split_by = split_by

    def layout(self) -> Layout:
        """Returns where the files are."""
        return find_layout(self.root, self.split_by)
