"""Which files exist, asked folder by folder."""

import os
import unicodedata
from collections import Counter
from pathlib import Path

from s4eca.folders import is_hidden

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


class Listing:
    """Which files exist; each folder is listed once, since single questions take minutes on a network disk."""

    def __init__(self) -> None:
        self._folders: dict[Path, frozenset[str]] = {}
        self._hidden: dict[Path, frozenset[str]] = {}
        self._alike: dict[Path, dict[str, str | None]] = {}

    def folder(self, path: Path) -> frozenset[str]:
        """Returns the names in a folder without hidden ones, nothing where it does not exist."""
        if path not in self._folders:
            try:
                names = os.listdir(path)  # noqa: PTH208
            except (FileNotFoundError, NotADirectoryError):
                names = []
            self._hidden[path] = frozenset(filter(is_hidden, names))
            self._folders[path] = frozenset(names) - self._hidden[path]
        return self._folders[path]

    def has(self, path: Path) -> bool:
        """Returns whether the file is there, hidden or not."""
        return path.name in self.folder(path.parent) or path.name in self._hidden[path.parent]

    def match(self, path: Path) -> Path | None:
        """Returns the file of this name, or else the only one that Windows or macOS would take for it.

        Such a name differs in capitals, or in how its accents are composed. None where there is no file.
        """
        folder = path.parent
        names = self.folder(folder)
        if path.name in names:
            return path
        if folder not in self._alike:
            alike: dict[str, str | None] = {}
            for name in names:
                key = _key(name)
                alike[key] = None if key in alike else name
            self._alike[folder] = alike
        found = self._alike[folder].get(_key(path.name))
        return folder / found if found else None

    def describe(self, folder: Path) -> str:
        """Returns what is in a folder, or in the nearest one above it that exists, for messages that miss something."""
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        names = sorted(self.folder(folder))
        kinds = Counter(Path(name).suffix.lower() for name in names)
        images = {kind: count for kind, count in kinds.items() if kind in IMAGE_SUFFIXES}
        if images:
            kind = max(images, key=lambda kind: images[kind])
            first = next(name for name in names if name.lower().endswith(kind))
            return f"{folder} holds {images[kind]:,} {kind} files, such as {first}"
        return f"{folder} holds {', '.join(names[:5]) or 'nothing'}{', …' if len(names) > 5 else ''}"


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
