"""What every reader checks before it yields a reference."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from s4eca.data.references import Reference
from s4eca.errors import S4ecaError

SPLITS = ("train", "val", "test")


def check_split(split: str) -> None:
    """Raises `S4ecaError` unless `split` is one of `train`, `val` and `test`."""
    if split not in SPLITS:
        raise S4ecaError(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")


def check_unique(references: Iterable[Reference], source: Path) -> None:
    """Raises `S4ecaError` where an id occurs twice, since results are stored by id."""
    counts = Counter(reference.id for reference in references)
    repeated = [id for id, count in counts.items() if count > 1]
    if repeated:
        raise S4ecaError(
            f"{source} has {len(repeated)} ids more than once ({_first(repeated)}): remove the repeated entries."
        )


def check_files(references: Iterable[Reference], wanted: Iterable[Path]) -> None:
    """Raises one `S4ecaError` that counts the files in `wanted` that are missing and names the first ones.

    Each folder is listed once: asking for 12,000 files one by one takes minutes on a network disk.
    """
    ids = [reference.id for reference in references]
    listings: dict[Path, set[str]] = {}
    missing = []
    for id, path in zip(ids, wanted, strict=True):
        folder = path.parent
        if folder not in listings:
            listings[folder] = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        if path.name not in listings[folder]:
            missing.append((id, path))
    if missing:
        names = _first([f"{path.name} of reference {id}" for id, path in missing])
        raise S4ecaError(
            f"{len(missing)} of {len(ids)} files are missing from {missing[0][1].parent} ({names}):"
            " unpack the dataset's archive again."
        )


def check_count(dataset: str, split: str, found: int, expected: Mapping[str, int], strict: bool) -> None:
    """Compares a split's size with the published one.

    Args:
        dataset: the dataset's name for the message.
        split: `train`, `val` or `test`.
        found: number of references read.
        expected: published sizes by split; a split that it does not name is not compared.
        strict: raise instead of warning.

    Raises:
        S4ecaError: the sizes differ and `strict` is set, or nothing was found at all.
    """
    if found == 0:
        raise S4ecaError(f"The {split} split of {dataset} is empty: check that data.root holds the whole dataset.")
    if split not in expected or found == expected[split]:
        return
    message = f"The {split} split of {dataset} has {found:,} references where {expected[split]:,} are expected"
    if strict:
        raise S4ecaError(f"{message}: complete the dataset or set data.strict_counts=false.")
    warnings.warn(f"{message}; results will not compare with published ones.", stacklevel=3)


def _first(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
