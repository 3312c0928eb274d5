"""Where a checkpoint comes from: a path, an artifact of W&B, or a repository of the hub.

    PATH                                          a .ckpt file, or a folder that `s4eca share` or `merge` wrote
    wandb:ENTITY/PROJECT/ARTIFACT:VERSION         an artifact; VERSION is v3 or an alias such as best and latest
    wandb:ENTITY/PROJECT/RUN                      the best checkpoint of a run with logger.wandb.log_model=true
    hf:OWNER/REPO[@REVISION][/FOLDER]             a shared folder in a repository, or the only .ckpt file there
    hf:OWNER/REPO[@REVISION]/[FOLDER/]FILE.ckpt   one checkpoint file

What was fetched once is used again: a version of an artifact out of the user's cache folder, a commit of the hub out of
the hub's own cache, both without a network. Which files a commit has is noted when the hub has said so; where it never
has, a repository without a file's name is refused, because the file in the cache may be one of several.
"""

import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from s4eca.errors import S4ecaError
from s4eca.files import make_folder, write_text
from s4eca.folders import is_hidden, visible
from s4eca.overrides import shell_word
from s4eca.weights.sources import first_line

WANDB, HUB = "wandb:", "hf:"
ARTIFACT = re.compile(r"(?P<entity>[^/:]+)/(?P<project>[^/:]+)/(?P<name>[^/:]+)(:(?P<version>[^/:]+))?")
REPOSITORY = re.compile(r"(?P<id>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<inside>.+))?")
# what `s4eca.checkpoint.share` and `s4eca.merge` write
SHARED = ("s4eca.json", "method.safetensors", "head.safetensors", "vision.safetensors", "text/*")


def is_remote(source: str | Path) -> bool:
    """Whether a checkpoint is named by where it is published, not by a path."""
    return str(source).startswith((WANDB, HUB))


def locate_checkpoint(source: str | Path) -> Path:
    """Returns where a checkpoint lies on this machine, after fetching it where it is published.

    Args:
        source: a path, which is returned as it is, or one of the forms above.

    Raises:
        S4ecaError: an incomplete name, nothing there, no access, no network, or several checkpoints.
    """
    text = str(source)
    if text.startswith(WANDB):
        return _from_wandb(text)
    return _from_hub(text) if text.startswith(HUB) else Path(source)


def label(source: str) -> str:
    """Returns a published checkpoint's name as the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", source)


def _from_wandb(source: str) -> Path:
    match = ARTIFACT.fullmatch(source.removeprefix(WANDB))
    if match is None:
        raise S4ecaError(
            f"{source} names no artifact; write wandb:ENTITY/PROJECT/ARTIFACT:VERSION, or wandb:ENTITY/PROJECT/RUN."
        )
    project, version = f"{match['entity']}/{match['project']}", match["version"]
    name = match["name"] if version else f"model-{match['name']}"  # as Lightning's WandbLogger calls it
    cache = _cache() / "wandb" / project
    if version and re.fullmatch(r"v\d+", version) and (cache / f"{name}-{version}").is_dir():
        return _only_checkpoint(cache / f"{name}-{version}", source)
    artifact = _artifact(source, f"{project}/{name}", [version] if version else ["best", "latest"])
    folder = cache / f"{name}-{artifact.version}"
    if not folder.is_dir():
        make_folder(cache)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=cache))
        try:
            artifact.download(root=str(partial))
            partial.rename(folder)
        except Exception as error:  # wandb raises its own errors, requests' and OSError
            if not folder.is_dir():  # another process may have been faster
                raise S4ecaError(_no_artifact(source, error)) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return _only_checkpoint(folder, source)


def _artifact(source: str, name: str, versions: list[str]) -> Any:
    """Returns the first of some versions of an artifact of W&B that there is."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise S4ecaError(f"{source} needs a package that is missing; pip install 's4eca[wandb]'.") from error
    for place, version in enumerate(versions, 1):
        try:
            return wandb.Api().artifact(f"{name}:{version}")
        except Exception as error:  # wandb raises UsageError, CommError, ValueError and requests' own
            if place == len(versions) or not _is_absent(error):
                raise S4ecaError(_no_artifact(source, error)) from error
    raise AssertionError("no version was asked for")


def _is_absent(error: Exception) -> bool:
    return bool(re.search(r"not found|does not exist|could not find|no artifact", str(error), re.IGNORECASE))


def _no_artifact(source: str, error: Exception) -> str:
    reason = first_line(error) or type(error).__name__
    if re.search(r"api.key|log ?in|not authenticated|permission|unauthorized|\b40[13]\b", reason, re.IGNORECASE):
        return f"W&B does not let you read {source} ({reason}); log in with `wandb login`."
    if _is_absent(error):
        return (
            f"W&B has no {source} ({reason}); check its name on the project's page. A run has checkpoints there if it "
            "was trained with logger.wandb.log_model=true."
        )
    return (
        f"{source} could not be fetched from W&B ({reason}); fetch it where there is a network, with "
        f"`wandb artifact get`, and give ckpt=PATH."
    )


def _from_hub(source: str) -> Path:
    match = REPOSITORY.fullmatch(source.removeprefix(HUB).rstrip("/"))
    inside = PurePosixPath(match["inside"] or "") if match else PurePosixPath()
    if match is None or ".." in inside.parts:
        raise S4ecaError(f"{source} names no repository; write hf:OWNER/REPO[@REVISION][/FOLDER] or …/FILE.ckpt.")
    repository, revision = match["id"], match["revision"]
    try:
        if inside.suffix == ".ckpt":
            return Path(huggingface_hub.hf_hub_download(repository, str(inside), revision=revision))
        wanted = [str(inside / name) for name in SHARED]
        folder = Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=wanted)) / inside
        if (folder / "s4eca.json").is_file():
            return folder
        beginning = f"hf:{repository}{f'@{revision}' if revision else ''}/"
        names = _names_in(repository, revision, source, beginning)
        paths = [PurePosixPath(name) for name in names if name.endswith(".ckpt")]
        found = [str(path) for path in paths if path.is_relative_to(inside) and not is_hidden(path.name)]
        _check_count(found, source, beginning)
        return Path(huggingface_hub.hf_hub_download(repository, found[0], revision=revision))
    except S4ecaError:
        raise
    except Exception as error:  # the hub client raises OSError, httpx and its own errors
        raise S4ecaError(_not_at_hub(source, repository, error)) from error


def _names_in(repository: str, revision: str | None, source: str, beginning: str) -> list[str]:
    """Returns the files of a repository, without a network as they were noted when it was there.

    Raises:
        S4ecaError: they are not known, and some were fetched before.
    """
    noted = _cache() / "hub" / repository
    try:
        about = huggingface_hub.HfApi().model_info(repository, revision=revision)
    except Exception:
        # no file is asked for, so that a folder with some of its files is whole enough
        root = Path(
            huggingface_hub.snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=[])
        )
        if (noted / f"{root.name}.json").is_file():
            return json.loads((noted / f"{root.name}.json").read_text(encoding="utf-8"))
        here = sorted(path.relative_to(root).as_posix() for path in visible(root, "**/*.ckpt"))
        if not here:
            raise
        raise S4ecaError(
            f"{source} names no file and the hub cannot be asked which ones it has; here {_are(here)}, say which one, "
            f"for example ckpt={beginning}{here[0]}."
        ) from None
    names = [sibling.rfilename for sibling in about.siblings or []]
    with suppress(S4ecaError):  # a home that cannot be written to
        make_folder(noted)
        write_text(noted / f"{about.sha}.json", json.dumps(names) + "\n")
    return names


def _are(names: list[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {', '.join(names)}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s4eca"


def _not_at_hub(source: str, repository: str, error: Exception) -> str:
    if isinstance(error, RevisionNotFoundError):
        return f"the hub has no such revision of {repository}; give a branch, a tag or a commit of it in {source}."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the hub has no {repository}, or it is private or gated ({source}); check the name, or log in with "
            "`hf auth login`."
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"{repository} has no such file ({source}); check its name on the hub."
    reason = first_line(error) or type(error).__name__
    return (
        f"{source} could not be fetched from the hub ({reason}); fetch it where there is a network, with "
        f"`hf download {repository}`, and give ckpt=PATH."
    )


def _only_checkpoint(folder: Path, source: str) -> Path:
    if (folder / "s4eca.json").is_file():
        return folder
    found = [str(path.relative_to(folder)) for path in visible(folder, "**/*.ckpt")]
    _check_count(found, source, f"{folder}/")
    return folder / found[0]


def _check_count(found: list[str], source: str, beginning: str) -> None:
    if not found:
        raise S4ecaError(f"{source} holds neither a shared checkpoint (s4eca.json) nor a .ckpt file.")
    if len(found) > 1:
        raise S4ecaError(
            f"{source} holds {len(found)} checkpoints, {', '.join(sorted(found))}; say which one, for example "
            f"{shell_word('ckpt', f'{beginning}{min(found)}')}."
        )
