"""`train.py` and `s4eca train`: what the command line says, or the run folder that it goes on with."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from s4eca.cli.config import apply_overrides, conf_dir, overrides, plain
from s4eca.cli.messages import end_sweep, guarded, show_warnings
from s4eca.cli.training import train
from s4eca.errors import S4ecaError


def _saved_run(folder: Path) -> tuple[DictConfig, Path]:
    """Returns the config and the last checkpoint of a run folder."""
    saved, last = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    for path in (saved, last):
        if not path.is_file():
            raise S4ecaError(f"resume={folder} cannot go on: it has no {path.relative_to(folder)}; start a new run.")
    config = OmegaConf.load(saved)
    assert isinstance(config, DictConfig)
    return config, last


@guarded
def _task(config: DictConfig) -> float | None:
    folder, last = Path(HydraConfig.get().runtime.output_dir), None
    if config.resume:
        if not Path(config.resume).is_dir():
            raise S4ecaError(f"resume={config.resume} is not a folder; give the run folder of the run to go on with.")
        given = overrides("resume")
        fixed = [
            item for item in given if item.partition("=")[0] in ("budget", "init_from", "comparison", "experiment")
        ]
        if fixed:
            raise S4ecaError(f"{fixed[0]} cannot change a run that is resumed; start a new run with it.")
        config, last = _saved_run(Path(config.resume))
        apply_overrides(config, given, "the resumed run")
    devices = config.trainer.devices
    many = devices not in (1, "1")
    if HydraConfig.get().mode == RunMode.MULTIRUN and (many or str(config.trainer.get("strategy")).startswith("ddp")):
        raise S4ecaError(
            f"a multirun with trainer.devices={devices} would start the sweep again in every process; set "
            "trainer.devices=1, or start one run per job."
        )
    content = plain(config)
    content["resume"] = None
    return train(content, folder, last)


def main() -> None:
    """Entry point of `train.py` and `s4eca train`."""
    show_warnings()
    hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")(_task)()
    end_sweep()
