"""The learning rates of a table's runs, and how each was chosen."""

from collections.abc import Mapping, Sequence
from typing import Any


def find_rate(about: Mapping[str, Any]) -> str:
    """Returns an evaluation's learning rate as the table shows it, empty where it is not recorded."""
    rate = about.get("lr")
    return f"{rate:g}" if isinstance(rate, int | float) and not isinstance(rate, bool) else ""


def find_choice(about: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the candidates and their scores on val that the rate was chosen from, None where it was not chosen.

    A rate that was changed after the choice is no choice any more.
    """
    choice = about.get("lr_choice")
    if not isinstance(choice, Mapping) or not isinstance(choice.get("val"), Mapping):
        return None
    return choice if choice.get("lr") == about.get("lr") else None


def tell_choice(about: Mapping[str, Any]) -> str:
    """Returns from what an evaluation's rate was chosen, and by what; empty where it was not."""
    choice = find_choice(about)
    return f"chosen from {', '.join(choice['val'])} by {choice.get('by') or 'val'}" if choice else ""


def shows_rates(abouts: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether a table has a column of rates: runs differ in them, or one was to be chosen."""
    known = {find_rate(about) for about in abouts} - {""}
    return len(known) > 1 or any(isinstance(about.get("lr_choice"), Mapping) for about in abouts)


def rate_notes(labels: Sequence[str], abouts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says for which rows the rate was chosen on val, from which values, and for which it was not."""
    chosen: dict[str, list[str]] = {}
    others: list[str] = []
    for label, about in zip(labels, abouts, strict=True):
        how = tell_choice(about)
        if how:
            chosen.setdefault(how, []).append(label)
        else:
            others.append(label)
    notes = [f"Learning rate (lr) {how}: {', '.join(named)}." for how, named in chosen.items()]
    if others:
        notes.append(f"Learning rate (lr) stated, no choice on val is recorded: {', '.join(others)}.")
    return notes
