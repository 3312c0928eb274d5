"""What a folder holds for the user: hidden files, and those that desktops leave behind, are passed over."""

from pathlib import Path

_LEFT_BEHIND = {"thumbs.db", "desktop.ini", "__macosx"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: `._train.jsonl`, `~$train.jsonl`, `Thumbs.db`, `__MACOSX`."""
    return name.startswith((".", "~$")) or name.lower() in _LEFT_BEHIND


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """Returns what matches a glob pattern in a folder, in order of paths; nothing where there is no such folder.

    Hidden files and whatever is in hidden folders below `folder` are left out; `folder` itself may be hidden.
    """
    found = folder.glob(pattern)
    return sorted(path for path in found if not any(map(is_hidden, path.relative_to(folder).parts)))
