"""From a node that names the hub to one that names the files of a weights folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s4eca.errors import S4ecaError
from s4eca.overrides import shell_word
from s4eca.weights.sources import is_hollow
from s4eca.weights_folder.manifest import MANIFEST, Kept
from s4eca.weights_folder.needs import Need, own_needs


def place(kept: Kept, node: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns a node whose own weights and tokenizer are paths, after their hashes were compared.

    Args:
        kept: the folder.
        node: plain values; nodes within it are left as they are.
        key: where it stands in the config, for errors.

    Raises:
        S4ecaError: the folder lacks something, or a file is not what the manifest says.
    """
    return {**node, **{setting: str(locate(kept, need)) for setting, need in own_needs(node, key).items()}}


def locate(kept: Kept, need: Need) -> Path:
    """Returns where something of the hub lies in the folder: a file, or the folder of a model of transformers."""
    record = kept.records.get(need.repository)
    files = record.parts.get(need.part) if record else None
    if files is None:
        what = need.part if need.part in ("weights", "tokenizer") else need.part.rpartition("/")[2]
        raise S4ecaError(
            f"weights_folder={kept.folder} lacks {what} of {need.repository}, which {need.setting} asks for; add it "
            f"with `s4eca weights fetch {shell_word('out', kept.folder)} …` and the training's words, where the hub "
            "can be reached."
        )
    for file in () if is_hollow() else files:  # nothing of them is read on the meta device
        kept.check(need.repository, file)
    home = kept.home(need.repository)
    if need.candidates:
        return (home / files[0]).absolute()
    strange = kept.unknown(need.repository)
    if strange:  # transformers would read it
        raise S4ecaError(f"{strange[0]} is not in the manifest of weights_folder={kept.folder}; take it out.")
    return home.absolute()


def usable_folder(config: Mapping[str, Any]) -> str | None:
    """Returns the weights folder that a run was trained with, None where this machine has none there."""
    folder = config.get("weights_folder")
    return folder if folder is not None and (Path(folder) / MANIFEST).is_file() else None
