"""Which files exist, asked folder by folder."""

import os
from pathlib import Path


class Listing:
    """Which files exist; each folder is listed once, since single questions take minutes on a network disk."""

    def __init__(self) -> None:
        self._folders: dict[Path, frozenset[str]] = {}

    def folder(self, path: Path) -> frozenset[str]:
        """Returns the names in a folder, nothing where it does not exist."""
        if path not in self._folders:
            self._folders[path] = frozenset(os.listdir(path) if path.is_dir() else ())  # noqa: PTH208
        return self._folders[path]

    def has(self, path: Path) -> bool:
        """Returns whether the file is there."""
        return path.name in self.folder(path.parent)
