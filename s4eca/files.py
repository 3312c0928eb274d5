"""Writing files so that nobody ever sees half of one."""

import hashlib
import os
from pathlib import Path

from s4eca.errors import S4ecaError
from s4eca.folders import visible


def write_text(path: Path, text: str) -> None:
    """Replaces a file as a whole: writes next to it and moves into place; what was there stays until then.

    Raises:
        S4ecaError: the place cannot be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            # newline="": what csv has written keeps its own line ends
            partial.write_text(text, encoding="utf-8", newline="")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise S4ecaError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error


def hash_files(path: Path) -> str:
    """Returns the sha256 of a file, or of the names and contents of all files below a folder, without hidden ones."""
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in (item for item in visible(path, "**/*") if item.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}|{hash_files(file)}|".encode())
    return digest.hexdigest()


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it; raises `S4ecaError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise S4ecaError(
            f"The folder {folder} cannot be made ({error.strerror or error}): choose another place."
        ) from error


def check_writable(file: Path) -> None:
    """Makes a file's folder and raises `S4ecaError` where the file could not be written, before the work is done."""
    if file.is_dir():
        raise S4ecaError(f"{file} is a folder: name a file.")
    make_folder(file.parent)
    if not os.access(file.parent, os.W_OK):
        raise S4ecaError(f"{file} cannot be written: choose another place.")
