"""One training run, from a resolved config to a run folder."""

import json
import os
import platform
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import OmegaConf
from rich.console import Console

from s4eca.budget import solve_budget
from s4eca.build import Config, build_callbacks, build_data, build_loggers, build_module, build_towers, build_trainer
from s4eca.checkpoint import load_learned, read_checkpoint
from s4eca.cli.eval import evaluate
from s4eca.cli.evaluating import Options
from s4eca.errors import S4ecaError
from s4eca.features import plan_features
from s4eca.files import write_text
from s4eca.lit.csv_log import CSVLog
from s4eca.tuning.base import Scope


def train(config: Config, folder: Path, resume: Path | None = None, more: Sequence[Callback] = ()) -> float | None:
    """Runs one training.

    Args:
        config: resolved config.
        folder: run folder; gets `config.yaml`, `environment.json`, `metrics.csv`, `cost.json`, `checkpoints/` and
            `pictures/`.
        resume: checkpoint to go on from.
        more: callbacks beside those of the config.

    Returns:
        The best score of the checkpoint callback that monitors one, None where there is none.

    Raises:
        S4ecaError: anything the user can mend, before the first step wherever it can be known by then.
    """
    lightning.seed_everything(config["seed"], workers=True, verbose=False)
    if "segmenter" not in config["model"]:
        raise S4ecaError("model=dgl_rsis is training-free; evaluate it with python eval.py model=dgl_rsis.")
    if config["evaluate"] not in (None, "val", "test"):
        raise S4ecaError(f"evaluate={config['evaluate']} is no split to end with; choose val, test or null.")
    is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if resume is None and is_first and (folder / "config.yaml").exists():
        raise S4ecaError(
            f"{folder} holds a run already; go on with it by resume={folder}, or choose another hydra.run.dir (in a "
            "multirun, a hydra.sweep.subdir that names every key that is swept)."
        )
    callbacks = [*build_callbacks(config, folder), *more]
    data = build_data(config)
    data.prepare_data()
    data.setup("fit")
    towers = build_towers(config)
    if config["budget"] is not None and resume is None:  # a resumed run's config has the widths already
        segmenter = config["model"]["segmenter"]
        scope = Scope(segmenter["placement"], segmenter["start_stage"])
        tuning, solved = solve_budget(config["tuning"], *towers, config["budget"], scope)
        config = {**config, "tuning": tuning}
        if is_first:
            print(solved)
    module = build_module(config, towers)
    data.tokenizer = module.segmenter.text.load_tokenizer()  # type: ignore[operator]
    module.segmenter.text.check_length(data.max_tokens)  # type: ignore[operator]
    if config["init_from"] and resume is None:  # a resumed run has it in its checkpoint
        start = read_checkpoint(config["init_from"])
        load_learned(module.segmenter, start)
        if start.meta["config"] and start.config["tuning"] != config["tuning"]:
            warnings.warn(
                f"{config['init_from']} was trained with other settings of tuning={module.segmenter.method.name} than "
                "this run; its weights may mean something else here.",
                stacklevel=1,
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    loggers = [CSVLog(folder), *build_loggers(config, folder)]
    trainer = build_trainer(config, folder, callbacks, loggers)
    plan_features(module.features, data, trainer)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_hyperparams(config)
    try:
        trainer.fit(module, data, ckpt_path=str(resume) if resume else None, weights_only=True)
    except SIGTERMException:  # a SystemExit of status 0, which schedulers would take for success
        _finish_wandb(loggers, failed=True)
        saved = (folder / "checkpoints" / "last.ckpt").is_file()
        onward = f"go on with: python train.py resume={os.path.relpath(folder)}" if saved else "nothing was saved yet"
        print(f"stopped by SIGTERM at step {trainer.global_step}; {onward}")
        sys.exit(128 + signal.SIGTERM)
    except BaseException:
        _finish_wandb(loggers, failed=True)
        raise
    _finish_wandb(loggers, failed=False)
    best = _report(trainer, folder)
    if config["evaluate"] is not None:
        evaluate_run(config, trainer, config["evaluate"])
    return best


def evaluate_run(config: Config, trainer: Trainer, split: str) -> None:
    """Evaluates a run that has just ended as `eval.py` does: its best checkpoint, or its end where none is selected."""
    chosen = [
        Path(callback.best_model_path)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path
    ]
    if not chosen:
        chosen = [Path(trainer.default_root_dir) / "checkpoints" / "end.ckpt"]
        trainer.save_checkpoint(chosen[0])
    settings = {**config["trainer"], "limit_test_batches": 1.0}
    model = {**config["model"], "feature_cache": None}
    checkpoint = read_checkpoint(chosen[0])
    evaluate({**config, "trainer": settings, "model": model}, checkpoint, None, Options(split, pictures=2))


def environment() -> dict[str, Any]:
    """Returns what the run ran on."""
    names = ("s4eca", "torch", "torchvision", "lightning", "transformers", "timm", "hydra-core", "peft", "numpy")
    try:
        here = Path(__file__).parent
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "packages": {name: metadata.version(name) for name in names},
        "git": commit,
    }


def _report(trainer: Trainer, folder: Path) -> float | None:
    console, best = Console(soft_wrap=True), None
    if not trainer.is_global_zero:
        return None
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.best_model_path and callback.monitor:
            assert callback.best_model_score is not None
            best = float(callback.best_model_score)
            path = os.path.relpath(callback.best_model_path)
            console.print(f"best {callback.monitor} {best:.4f}", highlight=False)
            console.print(f"evaluate with: python eval.py ckpt={path}", highlight=False)
    console.print(f"run folder: {os.path.relpath(folder)}", highlight=False)
    return best


def _finish_wandb(loggers: list[Any], failed: bool) -> None:
    """Closes the W&B run, which a multirun would otherwise go on writing to."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish(exit_code=int(failed))
