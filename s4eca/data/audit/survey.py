"""Finding out what stands at a root, and reading all of it that can be read."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s4eca.data.audit.findings import Finding, Severity, on_names
from s4eca.data.audit.lines import read_lines
from s4eca.data.audit.phrases import read_refsegrs, read_risbench
from s4eca.data.audit.records import Record
from s4eca.data.audit.refer import read_refer
from s4eca.data.readers import refer_layout, refsegrs, risbench, rrsis_d
from s4eca.data.readers.checks import SPLITS
from s4eca.data.readers.layouts import detect_layout, get_layout
from s4eca.data.readers.refer import REFER_COUNTS
from s4eca.errors import S4ecaError
from s4eca.folders import visible

_IMAGE_FOLDERS = ("images/{dataset}/JPEGImages", "images/JPEGImages", "JPEGImages", "images/{dataset}", "images")
# RSRefSeg2's interchange files are called by their dataset
_NAMED_COUNTS = {
    "rrsisd": rrsis_d.RRSIS_D_COUNTS,
    "refsegrs": refsegrs.REFSEGRS_COUNTS,
    "risbench": risbench.RISBENCH_COUNTS,
}


@dataclass(frozen=True)
class Survey:
    """What was read.

    Attributes:
        layout: name of the layout.
        files: annotation files that were read.
        records: all entries of all splits.
        findings: what is wrong with the annotation files themselves.
        published: published number of references by split, empty where it is not known.
    """

    layout: str
    files: list[Path]
    records: list[Record]
    findings: list[Finding]
    published: Mapping[str, int] = field(default_factory=dict)

    @property
    def max_tokens(self) -> int:
        """Length of the token rows that the layout's data module has."""
        return inspect.signature(get_layout(self.layout).module).parameters["max_tokens"].default


def survey(root: str | Path, layout: str | None = None) -> Survey:
    """Reads all splits of what stands at `root`.

    Args:
        root: a dataset's folder; a refs file, with or without what belongs to it; or a `.jsonl` file, which stands for
            the splits beside it that have the same name (`rrsisd_train.jsonl`, `rrsisd_val.jsonl`).
        layout: name of the layout; None finds out.

    Raises:
        S4ecaError: there is nothing at `root` that is known, or another layout than the one that is named.
    """
    root = Path(root)
    if not root.exists():
        raise S4ecaError(f"There is neither a folder nor a file {root}: give the path of a dataset.")
    if layout is not None:
        get_layout(layout)
    if root.is_file():
        return _survey_file(root, layout)
    layout = layout or detect_layout(root)
    if layout == "jsonl":
        groups = _groups(path for folder in ("", "datainfo") for path in visible(root / folder, "*.jsonl"))
        if len(groups) != 1:
            names = ", ".join(str(path) for files in groups.values() for path in files.values()) or "none"
            raise S4ecaError(
                f"{root} should hold the .jsonl files of one dataset ({names} found): give the path of one of them."
            )
        return _lines(*groups.popitem(), root)
    if layout == "refsegrs":
        parts = _layouts(refsegrs.find_layout, root)
        return Survey(layout, _phrase_files(parts), *read_refsegrs(parts), refsegrs.REFSEGRS_COUNTS)
    if layout == "risbench":
        parts = _layouts(risbench.find_layout, root)
        return Survey(layout, _phrase_files(parts), *read_risbench(parts), risbench.RISBENCH_COUNTS)
    try:
        find = rrsis_d.find_layout if layout == "rrsis_d" else refer_layout.find_layout
        places = find(root, need_files=False)
    except S4ecaError:
        refs = refer_layout.find_refs(root)
        if len(refs) != 1:
            raise
        return _refs_alone(refs[0], layout)
    return _refer(places.refs, places.instances, places.images, layout)


def _survey_file(path: Path, layout: str | None) -> Survey:
    if path.suffix == ".jsonl" or layout == "jsonl":
        folder = path.absolute().parent
        groups = _groups([path, *visible(path.parent, "*.jsonl")])
        name = next(name for name, files in groups.items() if path in files.values())
        return _lines(name, groups[name], folder.parent if folder.name == "datainfo" else folder)
    if layout in ("refsegrs", "risbench"):
        raise S4ecaError(f"{path} is a file, and {layout} is read from a folder: give the folder of its phrase files.")
    folder = path.absolute().parent
    try:
        places = refer_layout.find_layout(folder.parent, dataset=folder.name, refs=path.name, need_files=False)
    except S4ecaError:
        return _refs_alone(path, layout or "refer")
    if not places.refs.samefile(path):
        return _refs_alone(path, layout or "refer")
    return _refer(path, places.instances, places.images, layout or "refer")


def _refs_alone(path: Path, layout: str) -> Survey:
    """Reads a refs file whose `instances.json` is not where it belongs."""
    folder = path.absolute().parent
    candidates = [
        base / name.format(dataset=folder.name) for base in (folder, folder.parent) for name in _IMAGE_FOLDERS
    ]
    images = next((candidate for candidate in candidates if candidate.is_dir()), path.parent / "images")
    instances = path.with_name("instances.json")
    return _refer(path, instances if instances.is_file() else None, images, layout)


def _refer(refs: Path, instances: Path | None, images: Path, layout: str) -> Survey:
    records, findings = read_refer(refs, instances, images)
    if instances is None:
        severity = Severity.ERROR if images.is_dir() else Severity.NOTE
        text = "there is no instances.json: masks, boxes, image sizes and the names of categories are not known"
        findings += on_names(severity, "no-instances", text, [refs.name])
    dataset = refs.absolute().parent.name
    published = rrsis_d.RRSIS_D_COUNTS if layout == "rrsis_d" else {**_NAMED_COUNTS, **REFER_COUNTS}.get(dataset, {})
    return Survey(layout, [path for path in (refs, instances) if path], records, findings, published)


def _groups(paths: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """Returns interchange files by dataset (`rrsisd` of `rrsisd_val.jsonl`) and split, train first.

    A file whose name ends in no split is a dataset of its own, under the split "".
    """
    groups: dict[str, dict[str, Path]] = {}
    for path in paths:
        name, _, split = path.stem.rpartition("_")
        if split not in SPLITS:
            name, split = path.stem, ""
        groups.setdefault(name, {}).setdefault(split, path)
    order = [*SPLITS, ""]
    return {name: dict(sorted(files.items(), key=lambda item: order.index(item[0]))) for name, files in groups.items()}


def _lines(name: str, files: Mapping[str, Path], root: Path) -> Survey:
    return Survey("jsonl", list(files.values()), *read_lines(files, root), _NAMED_COUNTS.get(name, {}))


def _layouts(find: Callable[..., Any], root: Path) -> dict[str, Any]:
    """Returns where the parts of each split are; a split without a phrase file is left out, unless all of them are."""
    found = {}
    for split in SPLITS:
        layout = _found(find, root, split, need_files=False)
        if layout is not None:
            found[split] = layout
    if not found:
        find(root, SPLITS[0], need_files=False)  # raises, and says where it looked
    return found


def _found(find: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return find(*arguments, **options)
    except S4ecaError:
        return None


def _phrase_files(layouts: Mapping[str, Any]) -> list[Path]:
    return [layout.phrases for layout in layouts.values()]
