"""Going on with a run folder: what it holds, and whether a command asks for the same run."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from s4eca.build import Config, instantiate
from s4eca.cli.config import with_trainer_keys
from s4eca.errors import S4ecaError
from s4eca.files import write_text
from s4eca.identity import differing, flatten, is_any, settings
from s4eca.overrides import shell_word
from s4eca.tuning.base import TuningMethod

ENDED = "ended.json"

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
    return OmegaConf.create(with_trainer_keys(config)), last


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
    """Compares two resolved configs in what makes a run (`s4eca.identity`), without the widths that a budget sets.

    The content of data, frozen weights and tokenizer is compared by hash when the checkpoint is loaded.

    Returns:
        A text `KEY: BEFORE, now NOW` for every key that differs.
    """
    solved = _solved_keys(before) if before.get("budget") is not None else []
    before, now = with_trainer_keys(before), with_trainer_keys(now)
    keys = [key for key in differing(settings(before), settings(now)) if not is_any(key, solved)]
    old, new = flatten(before), flatten(now)
    return [f"{key}: {_show(old, key)}, now {_show(new, key)}" for key in keys]


def write_ended(folder: Path, content: Mapping[str, Any]) -> None:
    """Notes that there is nothing left to train."""
    write_text(folder / ENDED, json.dumps(content, indent=2) + "\n")


def _solved_keys(config: Config) -> list[str]:
    method: TuningMethod = instantiate(config["tuning"], "tuning")
    return [f"tuning.{key}" for key in method.width.keys] if method.width is not None else []


def _show(leaves: Mapping[str, Any], key: str) -> str:
    return f"{leaves[key]}" if key in leaves else "not there"
