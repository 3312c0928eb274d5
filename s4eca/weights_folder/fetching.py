"""Filling a weights folder from the hub; what is there and intact is left alone."""

import shutil
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import WeakFileLock

from s4eca.cache import readable
from s4eca.errors import S4ecaError
from s4eca.files import make_folder
from s4eca.folders import visible
from s4eca.weights.sources import first_line
from s4eca.weights_folder.manifest import MANIFEST, UNFINISHED, Kept, Record, hash_file, read_folder
from s4eca.weights_folder.needs import TOKENIZER, Need

# configs, vocabularies and processors, which lie at the top of a repository
SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
# weights in the order in which transformers looks for them, an index bringing its shards
WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
PACKAGES = ("s4eca", "huggingface_hub", "timm", "transformers")


def fetch_weights(needs: Iterable[Need], folder: str | Path, say: Callable[[str], None]) -> Kept:
    """Brings what is needed into a folder, and returns it.

    A file is downloaded beside its place, hashed, compared with what the hub says of it, and moved into place; the
    manifest follows at once, so that a fetch that was broken off goes on with the file that it stopped at; a connection
    that is lost goes on within the file. A repository stays at the revision that it was first fetched at. One process
    fetches into a folder at a time, a second one waits.

    Args:
        needs: of the configs, see `list_needs`.
        folder: to fill; new, empty, or filled before.
        say: is given a line for each repository and each file.

    Raises:
        S4ecaError: a foreign folder, too little room, or repositories that could not be had, after all others were.
    """
    folder = Path(folder)
    _check_place(folder)
    make_folder(folder / UNFINISHED)
    with WeakFileLock(folder / UNFINISHED / "lock"):
        kept = read_folder(folder, "out=") if (folder / MANIFEST).is_file() else Kept(folder, {})
        kept.write()
        wanted: dict[str, list[Need]] = {}
        for need in dict.fromkeys(needs):
            wanted.setdefault(need.repository, []).append(need)
        failed, plans = [], []
        for repository, asked in sorted(wanted.items()):
            if _is_complete(kept, repository, asked):
                say(f"{repository}: there already, intact")
                continue
            try:
                plans.append((repository, asked, _plan(kept, repository, asked)))
            except S4ecaError as error:
                failed.append(str(error))
        waiting = [sibling for *_, (_, _, files) in plans for sibling in files]
        size = sum(sibling.size or 0 for sibling in waiting)
        _check_room(folder, size)
        if waiting:
            say(f"{len(waiting)} files to fetch, {readable(size)}")
        for repository, asked, (about, parts, files) in plans:
            try:
                _bring(kept, repository, about, files, say)
            except S4ecaError as error:
                failed.append(str(error))
                continue
            record = kept.records[repository]
            record.parts.update(parts)
            record.serves = sorted({*record.serves, *(need.setting for need in asked)})
            kept.write()
            shutil.rmtree(folder / UNFINISHED / kept.home(repository).name, ignore_errors=True)
    if failed:
        raise S4ecaError(f"{len(failed)} of {len(wanted)} repositories were not fetched: {' '.join(failed)}")
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)  # a process that waits may hold its lock there already
    return kept


def choose_files(need: Need, siblings: dict[str, RepoSibling]) -> list[str]:
    """Returns the files of a repository that a need is made of, the first being the one where it is a single one.

    Raises:
        S4ecaError: the repository has no such thing.
    """
    if need.candidates:
        found = [name for name in need.candidates if name in siblings][:1]
    else:
        small = [name for name in siblings if any(fnmatch(name, form) for form in SMALL) and "/" not in name]
        found = [name for name in small if not name.endswith(".index.json")]
        if need.part != TOKENIZER:
            whole = next((name for name in WHOLE if name in siblings), None)
            stem, end = (whole or "").removesuffix(".index.json").rsplit(".", 1) if whole else ("", "")
            shards = [name for name in siblings if fnmatch(name, f"{stem}-*-of-*.{end}")]
            found = [*found, whole, *(shards if whole.endswith(".index.json") else [])] if whole else []
    if not found:
        raise S4ecaError(
            f"{need.repository} has no {' or '.join(need.candidates) or need.part}, which {need.setting} asks for."
        )
    return found


def _check_place(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise S4ecaError(f"out={folder} is a file; give a folder.")
    if visible(folder) and not (folder / MANIFEST).is_file():
        raise S4ecaError(f"out={folder} holds something else; give a new folder, or one that a fetch has filled.")


def _is_complete(kept: Kept, repository: str, asked: list[Need]) -> bool:
    record = kept.records.get(repository)
    if record is None or not {need.part for need in asked} <= record.parts.keys():
        return False
    if not {need.setting for need in asked} <= {*record.serves}:
        record.serves = sorted({*record.serves, *(need.setting for need in asked)})
        kept.write()
    return all(_is_intact(kept, repository, file) for need in asked for file in record.parts[need.part])


def _is_intact(kept: Kept, repository: str, file: str) -> bool:
    try:
        kept.check(repository, file)
    except S4ecaError:
        return False
    return True


def _plan(kept: Kept, repository: str, asked: list[Need]) -> tuple[ModelInfo, dict[str, list[str]], list[RepoSibling]]:
    """Returns what the hub says of a repository, the files of each part, and those that are to be fetched."""
    record = kept.records.get(repository)
    revision = record.revision if record else asked[0].revision
    try:
        about = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:  # the hub client raises OSError, httpx and its own errors
        raise S4ecaError(_explain(repository, revision, error)) from error
    siblings = {sibling.rfilename: sibling for sibling in about.siblings or []}
    parts = {need.part: choose_files(need, siblings) for need in asked}
    names = dict.fromkeys(name for files in parts.values() for name in files)
    known = record.files if record else {}
    files = [siblings[name] for name in names if name not in known or not _is_intact(kept, repository, name)]
    return about, parts, files


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise S4ecaError(
            f"{folder} needs {readable(needed)} more and its disk has {readable(free)} free: make room, or choose "
            "another folder with out=FOLDER."
        )


def _bring(kept: Kept, repository: str, about: ModelInfo, files: list[RepoSibling], say: Callable[[str], None]) -> None:
    """Downloads files one by one; each is in the manifest as soon as it is in its place."""
    card, versions = about.card_data, {name: metadata.version(name) for name in PACKAGES}
    licence = card.get("license_name") or card.get("license") if card else None
    record = kept.records.setdefault(repository, Record(str(about.sha), licence and str(licence)))
    record.versions = versions
    beside = kept.folder / UNFINISHED / kept.home(repository).name
    for number, sibling in enumerate(files, 1):
        name = sibling.rfilename
        try:
            path = Path(huggingface_hub.hf_hub_download(repository, name, revision=record.revision, local_dir=beside))
        except Exception as error:  # the hub client raises OSError, httpx and its own errors
            raise S4ecaError(_explain(f"{name} of {repository}", record.revision, error)) from error
        digest, size = hash_file(path), path.stat().st_size
        promised = sibling.lfs.sha256 if sibling.lfs else digest
        if digest != promised or (sibling.size is not None and size != sibling.size):
            path.unlink()
            raise S4ecaError(f"{name} of {repository} arrived damaged, with the sha256 {digest[:12]}…; fetch it again.")
        target = kept.home(repository) / name
        make_folder(target.parent)
        path.replace(target)
        record.files[name] = {"sha256": digest, "size": size}
        kept.write()
        say(f"{repository} ({number} of {len(files)}): {name}, {readable(size)}")


def _explain(what: str, revision: str | None, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return f"{what} is gated; accept its licence at the hub's page, log in with `hf auth login`, and fetch again."
    if isinstance(error, RevisionNotFoundError):
        return f"{what} has no revision {revision} at the hub any more; fetch into a new folder."
    if isinstance(error, RepositoryNotFoundError):
        return f"{what} is not at the hub, or is private; check the name, or log in with `hf auth login`."
    if isinstance(error, HfHubHTTPError) or not first_line(error):
        return f"{what} was refused by the hub ({first_line(error) or type(error).__name__}); fetch again later."
    return f"{what} could not be reached at the hub ({first_line(error)}); fetch again where there is a network."
