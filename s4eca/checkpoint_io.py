"""Writing checkpoints so that a run always has a whole one: space looked for first, moved into place last."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import Tensor

from s4eca.cache import readable
from s4eca.checkpoint import META, SELECTED_BY
from s4eca.errors import S4ecaError

MARGIN = 64 * 2**20
"""Bytes that must be free beyond the tensors: tokenizer, config, the zip file's own entries, and the run's logs."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes next to the target and moves into place, so that a killed run never leaves half a checkpoint.

    The new one is on the disk, not only in the system's memory, before the old one goes, so that this also holds when
    the machine fails. Until then there must be room for both.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves to `path`; a checkpoint that was there before is replaced only by a complete one.

        Raises:
            S4ecaError: no room for it, or a folder that cannot be written to; what was there before is still there.
        """
        if storage_options is not None:
            raise TypeError("checkpoints are files on this machine, for which there are no storage_options.")
        target = Path(path)
        if META in checkpoint:
            checkpoint = {**checkpoint, SELECTED_BY: _selecting(checkpoint, str(path))}
        partial = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)  # left by a killed run
            _check_space(target, stored_bytes(checkpoint) + MARGIN)
            try:
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
                _sync_folder(target.parent)
            finally:
                partial.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
            raise S4ecaError(
                f"the checkpoint {target} could not be written ({reason}){_kept(target)}; make room or choose another "
                "folder, then go on with the run."
            ) from error


def stored_bytes(content: Any) -> int:
    """Returns the bytes of all storages that a checkpoint's tensors lie in; a view brings the whole of its storage."""
    storages: dict[int, int] = {}

    def walk(node: Any) -> None:
        if isinstance(node, Tensor):
            storage = node.untyped_storage()
            storages[storage.data_ptr() or id(storage)] = storage.nbytes()
        elif isinstance(node, Mapping):
            for value in node.values():
                walk(value)
        elif isinstance(node, list | tuple):
            for value in node:
                walk(value)

    walk(content)
    return sum(storages.values())


def _selecting(checkpoint: Mapping[str, Any], path: str) -> str | None:
    """Returns the score of the `ModelCheckpoint` that has just found this file to be the best, None where none has."""
    for state in checkpoint.get("callbacks", {}).values():
        if isinstance(state, Mapping) and state.get("monitor") and state.get("best_model_path") == path:
            return str(state["monitor"])
    return None


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise S4ecaError(
            f"the checkpoint {target} needs {readable(needed)} and {readable(free)} are free{_kept(target)}; make room "
            "or choose another folder, then go on with the run."
        )


def _kept(target: Path) -> str:
    return ", the earlier one is kept" if target.is_file() else ""


def _sync_folder(folder: Path) -> None:
    """Makes the new name last through a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
