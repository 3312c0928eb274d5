"""Going on with a run folder: what it holds, and whether a command asks for the same run."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from s4eca.build import Config, instantiate
from s4eca.cli.config import flatten
from s4eca.errors import S4ecaError
from s4eca.files import write_text
from s4eca.overrides import shell_word
from s4eca.tuning.base import TuningMethod

ENDED = "ended.json"

LOCAL = (
    *("resume", "evaluate", "logger.*", "weights_folder", "vision.weights", "text.weights"),
    *("data.root", "data.parts.*.root", "data.cache", "data.num_workers", "data.pin_memory", "data.strict_counts"),
    *("data.eval_batch_size", "model.feature_cache", "trainer.log_every_n_steps", "trainer.enable_progress_bar"),
    *("model.segmenter.grad_checkpointing", "model.segmenter.compile"),
    *("callbacks.last.*", "callbacks.pictures.*", "callbacks.progress_bar.*"),
)
"""Keys that may differ when a run goes on: places, what a machine has room for, what is shown.

The content of the data and of the frozen weights is compared by hash with the checkpoint's. The number of steps is not
among them: the learning rate's schedule depends on it, so that another number is another training.
"""

_SHOWN = 5


@dataclass(frozen=True)
class Start:
    """How a command starts or goes on.

    Attributes:
        config: to run with.
        checkpoint: to go on from, None for a start from nothing.
        ended: what `ended.json` holds where there is nothing left to train.
    """

    config: Config
    checkpoint: Path | None = None
    ended: dict[str, Any] | None = None


def saved_run(folder: Path) -> tuple[DictConfig, Path]:
    """Returns the config and the last checkpoint of a run folder.

    Raises:
        S4ecaError: one of them is not there, or the checkpoint is damaged.
    """
    saved, last = folder / "config.yaml", last_checkpoint(folder)
    for path in (saved, last):
        if not path.is_file():
            raise S4ecaError(f"resume={folder} cannot go on: it has no {path.relative_to(folder)}; start a new run.")
    if not zipfile.is_zipfile(last):
        raise S4ecaError(f"{last} is damaged; start a new run, from another checkpoint with init_from=CKPT.")
    config = OmegaConf.load(saved)
    assert isinstance(config, DictConfig)
    return config, last


def last_checkpoint(folder: Path) -> Path:
    """Returns where a run's last checkpoint is."""
    return folder / "checkpoints" / "last.ckpt"


def start_or_go_on(config: Config, folder: Path) -> Start:
    """Decides what `resume=auto` does in a folder.

    Args:
        config: resolved config of the command.
        folder: where its run is, or will be.

    Raises:
        S4ecaError: the folder holds a run with another config, or what is no whole run.
    """
    config = {**config, "resume": None}
    if not last_checkpoint(folder).is_file():
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            (folder / "config.yaml").unlink(missing_ok=True)  # of a start that came to no checkpoint
        return Start(config)
    saved, last = saved_run(folder)
    before = OmegaConf.to_container(saved, resolve=True)
    assert isinstance(before, dict)
    other = {str(key): value for key, value in before.items()}
    changed = differences(other, config)
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise S4ecaError(
            f"{folder} holds a run of another config ({', '.join(changed[:_SHOWN])}{more}); choose another "
            f"hydra.run.dir, or change that run on purpose with {shell_word('resume', folder)} KEY=VALUE."
        )
    ended = folder / ENDED
    content = json.loads(ended.read_text(encoding="utf-8")) if ended.is_file() else None
    return Start({**config, "tuning": other["tuning"]}, last, content)


def differences(before: Config, now: Config) -> list[str]:
    """Compares two resolved configs, without what may differ when a run goes on and the widths that a budget sets.

    Returns:
        A text `KEY: BEFORE, now NOW` for every key that differs.
    """
    free = [*LOCAL, *(_solved_keys(before) if before.get("budget") is not None else [])]
    old, new = flatten(before), flatten(now)
    keys = [key for key in {**old, **new} if not any(fnmatch(key, pattern) for pattern in free)]
    return [
        f"{key}: {_show(old, key)}, now {_show(new, key)}"
        for key in keys
        if key not in old or key not in new or old[key] != new[key]
    ]


def write_ended(folder: Path, content: Mapping[str, Any]) -> None:
    """Notes that there is nothing left to train."""
    write_text(folder / ENDED, json.dumps(content, indent=2) + "\n")


def _solved_keys(config: Config) -> list[str]:
    method: TuningMethod = instantiate(config["tuning"], "tuning")
    return [f"tuning.{key}" for key in method.width.keys] if method.width is not None else []


def _show(leaves: Mapping[str, Any], key: str) -> str:
    return f"{leaves[key]}" if key in leaves else "not there"
