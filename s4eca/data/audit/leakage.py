"""Duplicates within a split and leakage between splits."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from s4eca.data.audit.findings import Finding, Severity, on_groups
from s4eca.data.audit.records import Record

K = TypeVar("K", bound=Hashable)


def check_ids(records: Sequence[Record]) -> list[Finding]:
    """Finds ids that occur twice: in a split results would overwrite one another."""
    within = _repeated({i: (record.split, record.id) for i, record in enumerate(records)})
    findings = on_groups(
        Severity.ERROR,
        "repeated-id",
        "ids that occur more than once in a split, although results are stored by id",
        records,
        within,
    )
    everywhere = _repeated({i: record.id for i, record in enumerate(records)})
    across = [group for group in everywhere if _crosses(records, group)]
    text = "ids that occur in more than one split"
    return findings + on_groups(Severity.WARNING, "id-in-two-splits", text, records, across)


def check_images(records: Sequence[Record], digests: Mapping[Path, str]) -> list[Finding]:
    """Finds images and samples that occur twice, within a split or across splits.

    Two images are the same when they are the same file or decode to the same RGB values; two expressions when they
    differ in nothing but case and white space.

    Args:
        records: what to compare.
        digests: hash of the pixels of each image that was decoded; the path stands for any other.
    """
    image: dict[int, str] = {}
    sample: dict[int, tuple[str, str]] = {}
    for i, record in enumerate(records):
        if record.image is not None:
            image[i] = digests.get(record.image, str(record.image))
            sample[i] = (image[i], " ".join(record.expression.casefold().split()))
    same_sample, same_image = _repeated(sample), _repeated(image)
    named = {i: (key, str(records[i].image)) for i, key in image.items()}
    copies = []
    for group in same_image:
        one_of_each_name = list({named[i]: i for i in reversed(group)}.values())[::-1]
        if len(one_of_each_name) > 1:
            copies.append(one_of_each_name)
    return [
        *on_groups(
            Severity.WARNING,
            "leaked-sample",
            "samples (image and expression) that are in more than one split, which flatters scores",
            records,
            [_one_per_split(records, group) for group in same_sample if _crosses(records, group)],
        ),
        *on_groups(
            Severity.WARNING,
            "leaked-image",
            "images that are in more than one split",
            records,
            [_one_per_split(records, group) for group in same_image if _crosses(records, group)],
        ),
        *on_groups(
            Severity.WARNING,
            "repeated-sample",
            "samples (image and expression) that a split holds more than once, so that they weigh more than others",
            records,
            _repeated({i: (records[i].split, key) for i, key in sample.items()}),
        ),
        *on_groups(Severity.NOTE, "image-copies", "images stored under several names", records, copies),
    ]


def _repeated(keys: Mapping[int, K]) -> list[list[int]]:
    """Returns the positions that share a key, for every key that more than one has."""
    groups: dict[K, list[int]] = {}
    for position, key in keys.items():
        groups.setdefault(key, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def _crosses(records: Sequence[Record], group: Sequence[int]) -> bool:
    return len({records[i].split for i in group}) > 1


def _one_per_split(records: Sequence[Record], group: Sequence[int]) -> list[int]:
    """Returns the first member of each split, which is what a reader of the report compares."""
    first: dict[str, int] = {}
    for i in group:
        first.setdefault(records[i].split, i)
    return list(first.values())
