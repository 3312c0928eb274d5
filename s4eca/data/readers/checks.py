"""What every reader checks before it yields a reference."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s4eca.data.readers.listing import Listing
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError

SPLITS = ("train", "val", "test")


def check_split(split: str) -> None:
    """Raises `S4ecaError` unless `split` is one of `train`, `val` and `test`."""
    if split not in SPLITS:
        raise S4ecaError(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")


def check_by_split(option: str, given: Any, kind: type) -> None:
    """Checks an option that maps splits to something, so that a misspelt split is not passed over.

    Args:
        option: its name.
        given: what was given for it; None is nothing to check.
        kind: the type of the values.

    Raises:
        S4ecaError: it is no mapping, a key is no split, or a value is of another type.
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise S4ecaError(f"data.{option}={given} is no mapping: give it as data.{option}={{train: …, test: …}}.")
    for split, value in given.items():
        if split not in SPLITS:
            raise S4ecaError(f"data.{option} names a split {split!r}: its keys are {', '.join(SPLITS)}.")
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = "a whole number" if kind is int else "a text"
            raise S4ecaError(f"data.{option}.{split}={value} is not {wanted}: give one.")


def is_id(value: Any) -> bool:
    """Returns whether a value can be an id of an annotation file: a whole number or a text.

    A number with a point counts where it is whole; what writes tables makes 7.0 of 7, and the two are equal. Python
    turns numbers of thousands of digits into no text.
    """
    if isinstance(value, float):
        return value.is_integer()
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() <= 64
    return isinstance(value, str)


def read_mark(value: Any) -> bool | None:
    """Returns a `no_target` mark, None where it is not given.

    Raises:
        ValueError: it is neither true nor false nor 1 nor 0; the text "false" would count as true.
    """
    if value is None:
        return None
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError(f"its no_target is {value!r} where true or false is expected")
    return bool(value)


def check_unique(
    references: Iterable[Reference], source: Path | str, remedy: str = "remove the repeated entries"
) -> None:
    """Raises `S4ecaError` where an id occurs twice, since results are stored by id."""
    counts = Counter(reference.id for reference in references)
    repeated = [id for id, count in counts.items() if count > 1]
    if repeated:
        raise S4ecaError(f"{source} has {len(repeated)} ids more than once ({first_few(repeated)}): {remedy}.")


def check_expressions(references: Iterable[Reference], source: Path) -> None:
    """Raises one `S4ecaError` that counts the references without an expression and names the first ones."""
    empty = [reference.id for reference in references if not reference.expression]
    if empty:
        raise S4ecaError(
            f"{source} has {len(empty)} references whose expression is empty ({first_few(empty)}): complete or remove"
            " them."
        )


def check_files(references: Iterable[Reference], wanted: Iterable[Path]) -> None:
    """Raises one `S4ecaError` that counts the files in `wanted` that are missing and names the first ones."""
    ids = [reference.id for reference in references]
    listing = Listing()
    missing = [(id, path) for id, path in zip(ids, wanted, strict=True) if not listing.has(path)]
    if missing:
        names = first_few([f"{path.name} of reference {id}" for id, path in missing])
        folder = missing[0][1].parent
        raise S4ecaError(
            f"{len(missing)} of {len(ids)} files are missing from {folder} ({names}), and {listing.describe(folder)}:"
            " complete the folder, or correct the names in the annotations."
        )


def check_count(dataset: str, split: str, found: int, expected: Mapping[str, int], strict: bool) -> None:
    """Compares a split's size with the published one.

    Args:
        dataset: the dataset's name for the message.
        split: `train`, `val` or `test`.
        found: number of references read.
        expected: published sizes by split; a split that it does not name is not compared, unless `strict` is set.
        strict: raise instead of warning.

    Raises:
        S4ecaError: the sizes differ or this one is not in `expected` and `strict` is set, `expected` is no mapping of
            splits to sizes, or nothing was found at all.
    """
    check_by_split("expected", expected, int)
    if found == 0:
        raise S4ecaError(f"The {split} split of {dataset} is empty: check that data.root holds the whole dataset.")
    if strict and split not in expected:
        raise S4ecaError(
            f"The size of the {split} split of {dataset} is not in data.expected: add {split} or set"
            " data.strict_counts=false."
        )
    if split not in expected or found == expected[split]:
        return
    message = f"The {split} split of {dataset} has {found:,} references where {expected[split]:,} are expected"
    if strict:
        raise S4ecaError(f"{message}: complete the dataset or set data.strict_counts=false.")
    warnings.warn(f"{message}; results will not compare with published ones.", stacklevel=3)


def published_counts(
    dataset: str, known: Mapping[str, Mapping[str, int]], given: Mapping[str, int] | None, strict: bool
) -> Mapping[str, int]:
    """Returns the split sizes that a dataset is compared with.

    Args:
        dataset: its name.
        known: published sizes by dataset.
        given: what the caller expects, which goes before what is known.
        strict: whether the sizes have to be compared.

    Raises:
        S4ecaError: `strict` is set and there is nothing to compare with.
    """
    counts = known.get(dataset, {}) if given is None else given
    if strict and not counts:
        raise S4ecaError(
            f"No published split sizes are known for {dataset or 'this dataset'}: give them as"
            " data.expected={train: N, val: N, test: N} or set data.strict_counts=false."
        )
    return counts


def unique_ids(names: Sequence[str]) -> list[str]:
    """Returns ids for references that are named by their image alone, in the same order.

    The first reference of an image keeps the image's name, the next ones are `NAME_1`, `NAME_2`, …; a number that is
    taken by another image is passed over.

    >>> unique_ids(["a", "b", "a", "a"])
    ['a', 'b', 'a_1', 'a_2']
    """
    taken = set(names)
    seen: dict[str, int] = {}
    ids = []
    for name in names:
        number = seen.get(name)
        id = name
        if number is not None:
            while (id := f"{name}_{number}") in taken:
                number += 1
            taken.add(id)
        seen[name] = 1 if number is None else number + 1
        ids.append(id)
    return ids


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """Returns the first names, with dots where there are more."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def dataset_name(called: str) -> str:
    """Returns the name under which a dataset's results stand: `rrsis_d` for what its own files call `rrsisd`."""
    return {"rrsisd": "rrsis_d"}.get(called, called)
