"""The layouts by name: who reads them, who writes them, and how they are recognised."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.readers.jsonl import JsonlDataModule, read_jsonl, write_jsonl
from s4eca.data.readers.listing import IMAGE_SUFFIXES, Listing
from s4eca.data.readers.phrases import split_phrase
from s4eca.data.readers.refer import ReferDataModule, read_refer
from s4eca.data.readers.refer_layout import find_refs
from s4eca.data.readers.refer_writer import write_refer
from s4eca.data.readers.refsegrs import RefSegRSDataModule, check_refsegrs, read_refsegrs, write_refsegrs
from s4eca.data.readers.risbench import RISBenchDataModule, check_risbench, read_risbench, write_risbench
from s4eca.data.readers.rrsis_d import RRSISDDataModule, has_refs, read_rrsis_d
from s4eca.data.readers.writing import References
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError
from s4eca.folders import visible
from s4eca.text import byte_lines


@dataclass(frozen=True)
class DataLayout:
    """One layout.

    Attributes:
        title: for messages.
        reader: `reader(root, split, strict_counts=False, expected=…, need_files=True, …)` returns a split's references.
        module: the data module around the reader.
        detect: whether a folder looks like it; images need not be there.
        writer: `writer(references by split, empty folder, "link" or "copy")`.
        check: raises `S4ecaError` where the layout cannot hold what is to be written; None where it can hold anything.
    """

    title: str
    reader: Callable[..., list[Reference]]
    module: type[ReferringDataModule]
    detect: Callable[[Path], bool]
    writer: Callable[[References, Path, str], None]
    check: Callable[[References], None] | None = None


def detect_layout(root: str | Path) -> str:
    """Returns the name of the layout that a folder has, the first in the order of `LAYOUTS` where it has several.

    Raises:
        S4ecaError: there is no such folder, or none is recognised.
    """
    root = Path(root)
    if not root.is_dir():
        raise S4ecaError(f"There is no folder {root}: give the folder that holds the dataset.")
    for name, layout in LAYOUTS.items():
        if layout.detect(root):
            return name
    raise S4ecaError(
        f"{root} has no layout that is known, such as refs(….p) with instances.json (rrsis_d, refer),"
        f" output_phrase_….txt (refsegrs, risbench) or ….jsonl (jsonl), and {Listing().describe(root)}: see"
        " data/README.md, or name the layout."
    )


def get_layout(name: str) -> DataLayout:
    """Returns a layout by name; raises `S4ecaError` where there is none of that name."""
    if name not in LAYOUTS:
        raise S4ecaError(f"There is no layout {name!r}: choose one of {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def _phrase_files(root: Path, folders: tuple[str, ...]) -> list[Path]:
    return [path for folder in folders for path in visible(root / folder, "output_phrase_*.txt")]


def _is_of_risbench(path: Path) -> bool:
    """Returns whether a phrase file is RISBench's, whose names have endings; RefSegRS's have none, or that of TIFF."""
    if (path.parent / "img_rgb").is_dir():
        return True
    with path.open("rb") as stream:
        first = next((line for _, _, line in byte_lines(stream)), b"").decode("utf-8", "replace")
    return Path(split_phrase(first)[0]).suffix.lower() in set(IMAGE_SUFFIXES) - {".tif", ".tiff"}


def _is_refer(root: Path) -> bool:
    return bool(find_refs(root))


def _is_risbench(root: Path) -> bool:
    files = _phrase_files(root, ("", "RISBench_dataset", "RISBench", "RISBench/RISBench_dataset"))
    return any(_is_of_risbench(path) for path in files)


def _is_refsegrs(root: Path) -> bool:
    files = _phrase_files(root, ("", "RefSegRS", "RefSegRS/RefSegRS", "new_dataset2"))
    return any(not _is_of_risbench(path) for path in files)


def _is_jsonl(root: Path) -> bool:
    return any(visible(root / folder, "*.jsonl") for folder in ("", "datainfo"))


LAYOUTS = {
    "rrsis_d": DataLayout("RRSIS-D", read_rrsis_d, RRSISDDataModule, has_refs, write_refer),
    "refer": DataLayout("REFER", read_refer, ReferDataModule, _is_refer, write_refer),
    "risbench": DataLayout("RISBench", read_risbench, RISBenchDataModule, _is_risbench, write_risbench, check_risbench),
    "refsegrs": DataLayout("RefSegRS", read_refsegrs, RefSegRSDataModule, _is_refsegrs, write_refsegrs, check_refsegrs),
    "jsonl": DataLayout("JSON lines", read_jsonl, JsonlDataModule, _is_jsonl, write_jsonl),
}
