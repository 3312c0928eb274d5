"""One judgement in one sentence."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "fail")


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        level: `fail` where a run would end with an error, `warning` where it would suffer, `ok` otherwise.
        about: what was checked, in one or two words.
        says: one sentence; with a remedy where there is something to mend.
    """

    level: Level
    about: str
    says: str


def would_fail(findings: Iterable[Finding]) -> bool:
    """Returns whether something is bound to fail."""
    return any(finding.level == "fail" for finding in findings)
