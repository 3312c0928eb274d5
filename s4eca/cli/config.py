"""Where the configs are, and what the entries do with them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s4eca.cli.messages import guarded
from s4eca.errors import S4ecaError
from s4eca.identity import flatten
from s4eca.launched import agreed_name
from s4eca.sweep.rates import rate_of

AUTO = "auto"
"""What `resume` is to be where a command goes on with its run folder, or starts it."""


def conf_dir() -> str:
    """Returns the config folder: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


def run_folder(resume: str | None, name: str, now: str) -> str:
    """Returns the folder a run writes: a new one, the one it resumes, or with `resume=auto` that of the SLURM job.

    Raises:
        S4ecaError: `resume=auto`, and nothing says which folder stays the same.
    """
    if resume != AUTO:
        return resume or f"outputs/{name}/{agreed_name(now)}"
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise S4ecaError("resume=auto needs a folder that stays the same; give hydra.run.dir=PATH with it.")
    return f"outputs/{name}/slurm_{job}"


def lr_choice(source: str, row: str) -> DictConfig:
    """Returns a row's learning rate in a comparison and how it was chosen, see `s4eca.sweep.rates`."""
    return OmegaConf.create(rate_of(source, row, Path(conf_dir()) / "rates"))


OmegaConf.register_new_resolver("run_folder", guarded(run_folder), replace=True)
OmegaConf.register_new_resolver("lr_choice", guarded(lr_choice), replace=True)


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolves a config into plain values."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def with_trainer_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's config, nested or flat, with the keys of `conf/trainer/default.yaml` that an older run lacks."""
    keys = OmegaConf.to_container(OmegaConf.load(Path(conf_dir()) / "trainer" / "default.yaml"))
    assert isinstance(keys, dict)
    if "trainer" in config:
        return {**config, "trainer": {**keys, **config["trainer"]}}
    return {**flatten({"trainer": keys}), **config}


def overrides(*without: str) -> list[str]:
    """Returns the command line's overrides, leaving out those of some keys."""
    given = HydraConfig.get().overrides.task
    return [item for item in given if item.partition("=")[0].lstrip("+~") not in without]


def apply_overrides(config: DictConfig, given: list[str], where: str) -> None:
    """Changes single keys of a finished config.

    Raises:
        S4ecaError: a key that is not there, or an override that is no plain KEY=VALUE.
    """
    OmegaConf.set_struct(config, True)
    parser = OverridesParser.create()
    for item in given:
        override = parser.parse_override(item)
        key = override.key_or_group
        if override.is_delete() or override.is_add() or isinstance(OmegaConf.select(config, key), DictConfig):
            raise S4ecaError(f"{item} cannot be applied to {where}; only single keys can be changed as KEY=VALUE.")
        try:
            OmegaConf.update(config, key, override.value(), force_add=False)
        except OmegaConfBaseException as error:
            raise S4ecaError(f"{where} has no key {key}; the keys are those of its config.yaml.") from error
