"""`train.py` and `s4eca train`: what the command line says, or the run folder that it goes on with."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from s4eca.cli.check_config import check_config
from s4eca.cli.config import AUTO, apply_overrides, overrides, plain
from s4eca.cli.entry import run_hydra
from s4eca.cli.resuming import Start, saved_run, start_or_go_on
from s4eca.cli.training import tell_ended, train
from s4eca.errors import S4ecaError
from s4eca.launched import check_sweep

FIXED = ("budget", "init_from", "comparison", "experiment")


def _task(config: DictConfig) -> float | None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    if config.resume is None:
        start = Start(plain(config))
    elif config.resume == AUTO:
        start = start_or_go_on(plain(config), folder)
    else:
        start = _go_on(Path(config.resume))
    check_config(start.config, HydraConfig.get().runtime.choices if config.resume is None else None)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        check_sweep(start.config["trainer"], HydraConfig.get().launcher["_target_"])
    if start.ended is not None:
        return tell_ended(start.config, folder, start.ended)
    return train(start.config, folder, start.checkpoint)


def _go_on(folder: Path) -> Start:
    """Goes on with a folder's config, changed where the command line says so."""
    if not folder.is_dir():
        raise S4ecaError(f"resume={folder} is not a folder; give the run folder of the run to go on with.")
    given = overrides("resume")
    fixed = [item for item in given if item.partition("=")[0] in FIXED]
    if fixed:
        raise S4ecaError(f"{fixed[0]} cannot change a run that is resumed; start a new run with it.")
    config, last = saved_run(folder)
    apply_overrides(config, given, "the resumed run")
    return Start({**plain(config), "resume": None}, last)


def main() -> None:
    """Entry point of `train.py` and `s4eca train`."""
    run_hydra(_task, "train")
