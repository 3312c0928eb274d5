"""Writing files so that nobody ever sees half of one."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replaces a file as a whole: writes next to it and moves into place; what was there stays until then."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    # newline="": what csv has written keeps its own line ends
    partial.write_text(text, encoding="utf-8", newline="")
    partial.replace(path)
