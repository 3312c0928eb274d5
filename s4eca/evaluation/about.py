"""What the `about` of an evaluation says about its numbers."""

from collections.abc import Mapping
from typing import Any


def is_shuffled(about: Mapping[str, Any]) -> bool:
    """Returns whether the images were given other samples' expressions."""
    return about.get("expressions", "real") != "real"


def approximated(about: Mapping[str, Any], protocol: str) -> str | None:
    """Returns what stands for a protocol where masks that others made cannot be scored exactly by it, else None."""
    notes = about.get("notes")
    exact = {"input": "lavt", "original": "original"}.get(str(about.get("at"))) == protocol
    return str(notes[protocol]) if isinstance(notes, Mapping) and protocol in notes and not exact else None
