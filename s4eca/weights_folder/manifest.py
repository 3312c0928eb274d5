"""What a weights folder holds: one folder for each repository of the hub, and `manifest.json` about their files."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from s4eca.errors import S4ecaError
from s4eca.files import write_text
from s4eca.folders import visible
from s4eca.overrides import shell_word
from s4eca.text import read_json

MANIFEST, UNFINISHED = "manifest.json", ".fetching"
FORM = 1  # of the manifest; another number is not read

_hashed: dict[tuple[str, int, int], str] = {}


@dataclass
class Record:
    """What is kept of one repository.

    Attributes:
        revision: commit of the hub that all files are from.
        licence: as the hub states it, None where it states none.
        files: sha256 and size in bytes of each file, by its path in the repository.
        parts: files of `weights`, of `tokenizer`, and of each single file that was asked for, once they are complete.
        serves: the config settings that it was fetched for, for example `vision.name=swin_base_patch4_...`.
        versions: of the packages that fetched it.
    """

    revision: str
    licence: str | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    serves: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass
class Kept:
    """A weights folder.

    Attributes:
        folder: where it is.
        records: by repository, for example `google-bert/bert-base-uncased`.
    """

    folder: Path
    records: dict[str, Record]

    def home(self, repository: str) -> Path:
        """Returns the folder of a repository."""
        return self.folder / repository.replace("/", "--")

    def write(self) -> None:
        """Replaces the manifest as a whole."""
        content = {"form": FORM, "repositories": {name: asdict(self.records[name]) for name in sorted(self.records)}}
        write_text(self.folder / MANIFEST, json.dumps(content, indent=2) + "\n")

    def check(self, repository: str, file: str) -> None:
        """Compares a file with what the manifest says of it.

        Raises:
            S4ecaError: it is missing, or is another file.
        """
        said, path = self.records[repository].files[file], self.home(repository) / file
        fetch = f"s4eca weights fetch {shell_word('out', self.folder)} …"
        again = f"fetch it again with `{fetch}`, where the hub can be reached"
        if not path.is_file():
            raise S4ecaError(f"{path} is in the manifest and not there; {again}.")
        size = path.stat().st_size
        if size != said["size"]:
            raise S4ecaError(
                f"{path} has {size} bytes, and the manifest says {said['size']}: it is damaged or another file; "
                f"{again}."
            )
        found = hash_file(path)
        if found != said["sha256"]:
            raise S4ecaError(
                f"{path} has the sha256 {found[:12]}…, and the manifest says {said['sha256'][:12]}…: it is damaged or "
                f"another file; {again}."
            )

    def unknown(self, repository: str) -> list[Path]:
        """Returns the files in a repository's folder that the manifest does not name."""
        home = self.home(repository)
        known = self.records[repository].files.keys()
        there = [path for path in visible(home, "**/*") if path.is_file()]
        return [path for path in there if path.relative_to(home).as_posix() not in known]


def hash_file(path: Path) -> str:
    """Returns the sha256 of a file; within one process it is read once for each size and time of change."""
    state = path.stat()
    key = str(path.resolve()), state.st_size, state.st_mtime_ns
    if key not in _hashed:
        with path.open("rb") as file:
            _hashed[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashed[key]


def read_folder(folder: str | Path, setting: str = "weights_folder=") -> Kept:
    """Reads the manifest of a weights folder; no file is hashed yet.

    Args:
        folder: that `fetch_weights` wrote.
        setting: what stands before the folder where it was named, for errors.

    Raises:
        S4ecaError: no such folder, no manifest in it, or one that is damaged.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise S4ecaError(
            f"{setting}{folder} {'has no manifest.json' if folder.is_dir() else 'does not exist'}; give a folder that "
            "`s4eca weights fetch out=FOLDER` wrote."
        )
    try:
        content = read_json(path)
        if content["form"] != FORM:
            raise ValueError(f"its form is {content['form']}, not {FORM}")
        records = {str(name): Record(**values) for name, values in content["repositories"].items()}
        for name, record in records.items():
            _check_record(name, record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise S4ecaError(
            f"{path} is damaged ({type(error).__name__}: {error}); fetch into a new folder with `s4eca weights fetch "
            "out=FOLDER …`."
        ) from error
    return Kept(folder, records)


def _check_record(name: str, record: Record) -> None:
    for path in (name, *record.files):
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"{path} leads out of the folder")
    for said in record.files.values():
        if not isinstance(said["size"], int) or len(said["sha256"]) != 64:
            raise ValueError(f"a file of {name} has no size or no sha256")
    lost = {file for files in record.parts.values() for file in files} - record.files.keys()
    if lost:
        raise ValueError(f"{min(lost)} of {name} has no sha256")


def verify_folder(kept: Kept, tell: Callable[[Path, str], None]) -> list[str]:
    """Hashes every file anew.

    Args:
        kept: the folder.
        tell: is given each file of the manifest, and `intact`, `damaged` or `missing`.

    Returns:
        A line for each file that is damaged, missing, or unknown to the manifest.
    """
    _hashed.clear()
    wrong: list[str] = []
    for name, record in sorted(kept.records.items()):
        for file in sorted(record.files):
            path, state = kept.home(name) / file, "intact"
            try:
                kept.check(name, file)
            except S4ecaError as error:
                state = "damaged" if path.is_file() else "missing"
                wrong.append(f"{state}: {path.relative_to(kept.folder)} ({str(error).partition(';')[0]})")
            tell(path, state)
    homes = {kept.home(name).name for name in kept.records}
    for path in visible(kept.folder):
        if path.name not in {MANIFEST, *homes}:
            wrong.append(f"unknown: {path.relative_to(kept.folder)}")
    for name in sorted(kept.records):
        wrong += [f"unknown: {path.relative_to(kept.folder)}" for path in kept.unknown(name)]
    return wrong
