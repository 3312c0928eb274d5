"""Keys of annotation entries that are nearly, but not quite, the ones that readers look for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from s4eca.data.audit.findings import Finding, Severity


def check_keys(rows: Iterable[Mapping[str, Any]], known: Iterable[str], where: str) -> list[Finding]:
    """Finds misspelt keys: unknown ones that resemble a known key which the same entry lacks.

    Args:
        rows: entries of one kind.
        known: the keys that such an entry may have.
        where: what the entries are, for the text.
    """
    expected = set(known)
    counts: Counter[tuple[str, str]] = Counter()
    guesses: dict[tuple[frozenset[str], str], str | None] = {}
    for row in rows:
        keys = frozenset(key for key in row if isinstance(key, str))
        for key in keys - expected:
            if (keys, key) not in guesses:
                close = get_close_matches(key, sorted(expected - keys), n=1, cutoff=0.8)
                guesses[keys, key] = close[0] if close else None
            meant = guesses[keys, key]
            if meant is not None:
                counts[key, meant] += 1
    return [
        Finding(Severity.WARNING, "misspelt-key", f"{where} have `{key}` where others have `{meant}`", count, (key,))
        for (key, meant), count in sorted(counts.items())
    ]
