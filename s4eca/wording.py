"""Small grammar of sentences that are put together."""


def indefinite(words: str) -> str:
    """Returns words with `a` or `an` before them, by their first letter."""
    return f"{'an' if words.lower().startswith(tuple('aeiou')) else 'a'} {words}"
