"""Where the files of a REFER dataset are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s4eca.data.readers.listing import Listing
from s4eca.errors import S4ecaError
from s4eca.folders import visible

_BASES = ("", "refer/data")
_FOLDERS = ("JPEGImages", "PNGImages")
# NWPU-Refer comes with corrected files named new_…, which its loaders prefer, and with its images in image/image
_REFS = ("new_refs({split_by}).p", "refs({split_by}).p")
_INSTANCES = ("new_instances.json", "instances.json")
_PLAIN_FOLDERS = ("images/{dataset}", "image/image", "image", "images")


@dataclass(frozen=True)
class Names:
    """What the parts of a REFER dataset may be called, in the order in which they are looked for.

    Attributes:
        title: the dataset's name for messages.
        bases: folders below the root.
        annotations: folders below a base that may hold the two annotation files.
        refs: file names.
        instances: file names.
        images: folders below a base.
        all_bases: messages name the bases that do not exist, too.
    """

    title: str
    bases: Sequence[str]
    annotations: Sequence[str]
    refs: Sequence[str]
    instances: Sequence[str]
    images: Sequence[str]
    all_bases: bool = False


@dataclass(frozen=True)
class Layout:
    """The three places a REFER dataset is read from."""

    refs: Path
    instances: Path
    images: Path


def find_layout(
    root: str | Path,
    dataset: str | None = None,
    split_by: str | None = None,
    refs: str | None = None,
    instances: str | None = None,
    images: str | None = None,
    need_files: bool = True,
) -> Layout:
    """Finds the annotation files and the image folder of a REFER dataset, see `read_refer` for the arguments.

    Raises:
        S4ecaError: something is missing, or several datasets are there and none is named.
    """
    root = check_root(root, "a REFER dataset")
    if dataset is None or (split_by is None and refs is None):
        found = [path for path in find_refs(root) if refs in (None, path.name) and _is_by(path, split_by)]
        if dataset is not None:
            found = [path for path in found if path.parent.name == dataset] or found
        if len(found) != 1:
            listed = ", ".join(str(path.relative_to(root)) for path in found) or "none"
            raise S4ecaError(
                f"One refs file is needed below {root} and {len(found)} were found ({listed}), while"
                f" {Listing().describe(root)}: name it with data.dataset=… and data.split_by=… or data.refs=…."
            )
        dataset, refs = found[0].parent.name if found[0].parent != root else "", found[0].name
    names = Names(
        title=f"The dataset {dataset}" if dataset else "The dataset",
        bases=(*_BASES, dataset, f"{dataset}-data", f"refer/{dataset}-data") if dataset else _BASES,
        annotations=(dataset, "") if dataset else ("",),
        refs=(refs,) if refs else [name.format(split_by=split_by) for name in _REFS],
        instances=(instances,) if instances else _INSTANCES,
        images=[f"images/{dataset}/{name}" for name in _FOLDERS if dataset]
        + [f"images/{name}" for name in _FOLDERS]
        + [*_FOLDERS, *(name.format(dataset=dataset) for name in _PLAIN_FOLDERS if dataset or "{" not in name)],
    )
    return locate(root, names, root / images if images else None, need_files)


def find_refs(root: Path) -> list[Path]:
    """Returns the refs files in `root`, in its folders and in those of `refer/data`, in order of their paths."""
    patterns = [f"{base}{name}" for base in ("", "*/", "refer/data/*/") for name in ("*refs*.p", "*refs*.json")]
    return sorted(path for pattern in patterns for path in visible(root, pattern) if path.is_file())


def _is_by(path: Path, split_by: str | None) -> bool:
    return split_by is None or path.name in [name.format(split_by=split_by) for name in _REFS]


def check_root(root: str | Path, title: str) -> Path:
    """Returns the root as a path; raises `S4ecaError` where there is no such folder."""
    root = Path(root)
    if not root.is_dir():
        raise S4ecaError(f"There is no folder {root}: set data.root to the folder that holds {title}.")
    return root


def locate(root: Path, names: Names, images: Path | None, need_files: bool = True) -> Layout:
    """Finds the three parts of a dataset below one base.

    Args:
        root: the dataset's root.
        names: what may be where.
        images: the image folder where the caller knows it.
        need_files: False where the image folder may be missing.

    Raises:
        S4ecaError: something is missing; the message says what, and lists every place that was looked at.
    """
    looked: list[str] = []
    folders = " or ".join(dict.fromkeys(Path(name).name for name in names.images if "Images" in name))
    labels = " or ".join(names.refs), " or ".join(names.instances), f"the folder {images or folders}"
    absent = set(labels)
    for base in (root / name for name in names.bases):
        places = (
            [base / folder / name for folder in names.annotations for name in names.refs],
            [base / folder / name for folder in names.annotations for name in names.instances],
            [images] if images else [base / folder for folder in names.images],
        )
        found = [next((path for path in paths if path.exists()), None) for paths in places]
        refs, instances, folder = found
        if not need_files:
            folder = folder or places[2][0]
        if refs and instances and folder:
            return Layout(refs, instances, folder)
        absent -= {label for label, path in zip(labels, found, strict=True) if path}
        if names.all_bases or base.is_dir():
            looked += [str(path) for paths in places for path in paths]
    what = " and ".join(sorted(absent)) or "one folder that holds all three parts"
    raise S4ecaError(
        f"{names.title} is not complete in {root}, {what} was not found: arrange the files as data/README.md shows"
        f" (looked for {', '.join(dict.fromkeys(looked))}; {Listing().describe(root)})."
    )
