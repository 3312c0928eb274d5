"""What was left out and why."""

from collections.abc import Iterator


class Tally:
    """A count for every reason, and the first case of each.

    Attributes:
        counts: by reason, in the order in which they came up.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, reason: str, case: str = "", count: int = 1) -> None:
        """Counts cases of a reason; `case` is said of the first one."""
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count
            self._first.setdefault(reason, case)

    def lines(self) -> Iterator[str]:
        """Yields a line for every reason."""
        for reason, count in self.counts.items():
            case = self._first[reason]
            yield f"{count:,} {reason}" + (f" (the first: {case})" if case else "")
