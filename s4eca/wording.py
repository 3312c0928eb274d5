"""Small grammar of sentences that are put together."""

from collections.abc import Sequence


def indefinite(words: str) -> str:
    """Returns words with `a` or `an` before them, by their first letter."""
    return f"{'an' if words.lower().startswith(tuple('aeiou')) else 'a'} {words}"


def first(names: Sequence[str], limit: int = 5) -> str:
    """Returns the first names, and how many there are where that is not all of them."""
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])}, … {len(names):,} in all"
