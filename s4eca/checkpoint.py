"""Checkpoints: what is saved, and what is checked when it is loaded.

A Lightning checkpoint of a run holds what can change, in four groups (method, norms, fusion, decoder), the states of
optimiser, loops, sampler and random generators, and under `s4eca` everything that is needed to rebuild the network
around it: the resolved config, versions, the tokenizer's files, the identity of the frozen base weights, and the
fingerprint of the training data. Frozen weights are not in it. Loading is strict on everything that is stored, and
never unpickles anything but tensors and plain values.

The folder that people share holds the same without the training states: `method.safetensors`, `head.safetensors`
(norms, fusion, decoder and refinement) and `s4eca.json`.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import safetensors.torch
import timm
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedTokenizerBase

import s4eca
from s4eca.errors import S4ecaError
from s4eca.files import make_folder, write_text
from s4eca.folders import visible
from s4eca.segmenter import ReferringSegmenter, group_of
from s4eca.tokenizer import tokenizer_files, tokenizer_from_files

PREFIX = "segmenter."
META = "s4eca"
PARTS = ("method.safetensors", "head.safetensors", "s4eca.json")
"""What a shared folder is made of; the last one is there when the others are."""
MERGED = {"vision": "vision.safetensors", "text": "text"}
"""What `s4eca merge` puts beside them, by tower: the base weights that the folder's config names so."""
SELECTED_BY = "s4eca_selected_by"
"""What a file says beside `META` since it was written: the score that chose it, None for the last step's."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read.

    Attributes:
        path: where it was read from.
        state: learned tensors by their name in `ReferringSegmenter`.
        meta: what `describe` wrote, and `SELECTED_BY`.
    """

    path: Path
    state: dict[str, Tensor]
    meta: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config of the run.

        Raises:
            S4ecaError: the run was made in Python without a config.
        """
        if not self.meta["config"]:
            raise S4ecaError(
                f"{self.path} was written by a Python script without a config; build the same network and call "
                "s4eca.checkpoint.load_learned."
            )
        return self.meta["config"]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Rebuilds the tokenizer that the run was trained with."""
        return tokenizer_from_files(self.meta["tokenizer"])


def describe(
    segmenter: ReferringSegmenter,
    config: Mapping[str, Any] | None,
    tokenizer: PreTrainedTokenizerBase,
    data: Mapping[str, Any],
    start: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns what a checkpoint says about itself, as plain values.

    Args:
        segmenter: for the identity of its base weights.
        config: resolved config of the run, None for a run without one.
        tokenizer: its files are stored.
        data: name and fingerprint of the training data, see `ReferringDataModule.fingerprint`.
        start: name and sha256 of the learned weights that training started from, None for a start from nothing.
    """
    return {
        "versions": {
            "s4eca": s4eca.__version__,
            "torch": str(torch.__version__),
            "lightning": lightning.__version__,
            "transformers": transformers.__version__,
            "timm": timm.__version__,
        },
        "config": dict(config or {}),
        "tokenizer": tokenizer_files(tokenizer),
        "method": {"name": segmenter.method.name, "placement": segmenter.scope.placement},
        "base": {"text": segmenter.text.base.to_dict(), "vision": segmenter.vision.base.to_dict()},
        "data": dict(data),
        **({"init_from": dict(start)} if start is not None else {}),
    }


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint file, or the folder that `share` wrote.

    Raises:
        S4ecaError: nothing there, not readable, or not a checkpoint of this package.
    """
    path = Path(path)
    if not path.exists():
        raise S4ecaError(f"there is no checkpoint at {path}; give the path of a .ckpt file or a shared folder.")
    if path.is_dir():
        return _read_folder(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError and others
        reason = str(error).strip().split(". ")[0].split("\n")[0]
        raise S4ecaError(
            f"{path} cannot be read as a checkpoint ({reason}); it is damaged, or holds more than tensors and plain "
            "values, which is never unpickled."
        ) from error
    if not isinstance(content, dict) or META not in content or "state_dict" not in content:
        raise S4ecaError(f"{path} is not a checkpoint of s4eca; give one that a run has written.")
    state = {name.removeprefix(PREFIX): value for name, value in content["state_dict"].items()}
    written = {SELECTED_BY: content[SELECTED_BY]} if SELECTED_BY in content else {}
    return Checkpoint(path, state, {**content[META], **written})


def load_learned(segmenter: ReferringSegmenter, checkpoint: Checkpoint) -> None:
    """Fills everything learned, after checking that the checkpoint belongs to this network.

    Raises:
        S4ecaError: see `check_network` and `check_learned`; the network is unchanged then.
    """
    check_network(segmenter, checkpoint.meta, checkpoint.path)
    check_learned(segmenter, checkpoint.state, checkpoint.path)
    segmenter.load_state_dict(checkpoint.state, strict=False)


def check_learned(segmenter: ReferringSegmenter, state: Mapping[str, Tensor], where: Path | str) -> None:
    """Compares stored tensors with those that the network learns.

    Raises:
        S4ecaError: a tensor is missing, unexpected, or has another shape.
    """
    expected = segmenter.learned_state()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        what = [f"lacks {len(missing)} tensors such as {missing[0]}"] if missing else []
        what += [f"has {len(extra)} tensors too many such as {extra[0]}"] if extra else []
        raise S4ecaError(
            f"{where} {' and '.join(what)}; load it into a network with the same tuning, fusion, decoder and refine "
            "settings."
        )
    for name, value in expected.items():
        if state[name].shape != value.shape:
            raise S4ecaError(
                f"{where} holds {name} of shape {tuple(state[name].shape)}, and this network needs "
                f"{tuple(value.shape)}; load it into a network with the same widths."
            )


def check_network(segmenter: ReferringSegmenter, meta: Mapping[str, Any], where: Path | str) -> None:
    """Compares method and frozen weights with those that the checkpoint was trained with.

    Raises:
        S4ecaError: another method or placement, or a tower whose weights hash to something else.
    """
    method, here = meta["method"], {"name": segmenter.method.name, "placement": segmenter.scope.placement}
    if method != here:
        raise S4ecaError(
            f"{where} was trained with tuning={method['name']}, placement={method['placement']}, and this network has "
            f"tuning={here['name']}, placement={here['placement']}; set tuning={method['name']} "
            f"model.segmenter.placement={method['placement']}, or give a checkpoint of the same method."
        )
    for tower in (segmenter.text, segmenter.vision):
        stored = meta["base"][tower.kind]
        if stored["sha256"] != tower.base.sha256:
            raise S4ecaError(
                f"{where} was trained on {tower.kind} weights {stored['name']} from {stored['source']} "
                f"(sha256 {stored['sha256'][:12]}), and these are {tower.base.name} from {tower.base.source} "
                f"({tower.base.sha256[:12]}); give the same weights with {tower.kind}.weights=PATH."
            )


def share(checkpoint: Checkpoint, folder: str | Path) -> Path:
    """Writes the folder that people share, and returns it; one that is there already is replaced when all is written.

    Other files in it, such as a model card, are left alone.

    Raises:
        S4ecaError: the folder holds something else or merged weights, or the checkpoint brings merged weights.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise S4ecaError(f"{folder} is a file; give an empty or new folder.")
    if visible(folder) and not (folder / "s4eca.json").is_file():
        raise S4ecaError(f"{folder} exists and is no shared checkpoint; give an empty or new folder.")
    stale = [name for name in MERGED.values() if (folder / name).exists()]
    if stale:
        raise S4ecaError(
            f"{folder} holds a merged network, whose weights ({', '.join(stale)}) would be left beside another "
            "checkpoint; give an empty or new folder."
        )
    if any(_weights(checkpoint.meta, tower) == str(checkpoint.path / name) for tower, name in MERGED.items()):
        raise S4ecaError(
            f"{checkpoint.path} is a merged network that brings its own weights, and a folder without them would not "
            "load; share it as it is, by copying the folder."
        )
    make_folder(folder)
    parts: dict[str, dict[str, Tensor]] = {"method": {}, "head": {}}
    for name, value in checkpoint.state.items():
        parts["method" if group_of(name) == "method" else "head"][name] = value.contiguous()
    try:
        with tempfile.TemporaryDirectory(prefix=".share-", dir=folder) as draft:
            for part, tensors in parts.items():
                safetensors.torch.save_file(tensors, Path(draft) / f"{part}.safetensors")
            write_text(Path(draft) / "s4eca.json", json.dumps(checkpoint.meta, indent=2) + "\n")
            for name in PARTS:
                (Path(draft) / name).replace(folder / name)
    except (OSError, safetensors.SafetensorError) as error:
        raise S4ecaError(f"{folder} cannot be written ({error}); make room or choose another folder.") from error
    return folder


def _weights(meta: Mapping[str, Any], tower: str) -> str | None:
    """Returns where a checkpoint says that a tower's weights are; None for a run without a config."""
    return ((meta.get("config") or {}).get(tower) or {}).get("weights")


def _read_folder(folder: Path) -> Checkpoint:
    absent = [name for name in PARTS if not (folder / name).is_file()]
    if absent:
        raise S4ecaError(f"{folder} is no shared checkpoint, it lacks {', '.join(absent)}.")
    try:
        state = {**safetensors.torch.load_file(folder / PARTS[0]), **safetensors.torch.load_file(folder / PARTS[1])}
        meta = json.loads((folder / PARTS[2]).read_text(encoding="utf-8"))
    except (safetensors.SafetensorError, ValueError) as error:
        raise S4ecaError(f"{folder} cannot be read as a shared checkpoint ({error}).") from error
    for tower, name in MERGED.items():
        if _weights(meta, tower) == name and (folder / name).exists():
            meta["config"][tower]["weights"] = str(folder / name)
    return Checkpoint(folder, state, meta)
