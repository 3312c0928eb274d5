"""What an audit says: findings, each with a severity, a count and the samples it is about."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from s4eca.data.audit.records import Record
from s4eca.data.defects import DefectError

ERRORS = (
    *("unreadable-file", "no-instances", "bad-entry", "repeated-annotation-id", "missing-annotation"),
    *("missing-image-entry", "other-image", "other-split", "missing-image", "missing-mask", "damaged-image"),
    *("damaged-mask", "unusable-image", "unusable-mask", "empty-split", "empty-expression", "repeated-id"),
    "no-target-with-mask",
)
"""Codes of the errors: what training and evaluation refuse too. A test holds a fixture of each against the readers."""


class Severity(StrEnum):
    """How much a finding matters; `s4eca.data.audit` says which finding has which."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: error, warning or note.
        code: a short fixed name, such as `empty-mask`.
        text: what was found and what follows from it; it does not repeat the count.
        count: how often.
        names: ids of the samples, or names of the files, in the dataset's order.
        records: positions of the samples in the audit's records, for drawing them; empty where no sample is meant.
    """

    severity: Severity
    code: str
    text: str
    count: int
    names: tuple[str, ...] = ()
    records: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.severity is Severity.ERROR and self.code not in ERRORS:
            raise ValueError(f"{self.code} is not among ERRORS")

    def plain(self) -> dict[str, Any]:
        """Returns the finding as JSON holds it."""
        return {
            "severity": self.severity.value,
            "code": self.code,
            "text": self.text,
            "count": self.count,
            "names": list(self.names),
        }


def on_records(
    severity: Severity, code: str, text: str, records: Sequence[Record], positions: Iterable[int]
) -> list[Finding]:
    """Returns one finding about the records at `positions`, or none where there are no positions."""
    found = tuple(positions)
    if not found:
        return []
    return [Finding(severity, code, text, len(found), tuple(records[i].id for i in found), found)]


def on_groups(
    severity: Severity, code: str, text: str, records: Sequence[Record], groups: Sequence[Sequence[int]]
) -> list[Finding]:
    """Returns one finding that counts groups of records that belong together, such as copies of an image.

    A group's name lists its members with their splits: `30001 (train) = 30094 (val)`.
    """
    if not groups:
        return []
    names = tuple(" = ".join(f"{records[i].id} ({records[i].split})" for i in group) for group in groups)
    return [Finding(severity, code, text, len(groups), names, tuple(i for group in groups for i in group))]


def on_names(severity: Severity, code: str, text: str, names: Iterable[str]) -> list[Finding]:
    """Returns one finding about things that are no samples, such as files, or none where there are none."""
    found = tuple(names)
    return [Finding(severity, code, text, len(found), found)] if found else []


def no_references(path: Path, count: int) -> list[Finding]:
    """Returns an error for an annotation file that holds no line or entry, of which there are `count`."""
    return [] if count else on_names(Severity.ERROR, "empty-split", "annotation files without an entry", [path.name])


def on_defects(text: str, defects: Sequence[DefectError]) -> list[Finding]:
    """Returns an error for defects of one kind, or none where there are none; the text ends with the first sentence."""
    if not defects:
        return []
    return on_names(
        Severity.ERROR, defects[0].code, f"{text} (the first: {defects[0]})", [item.name for item in defects]
    )
