"""One training run, from a resolved config to a run folder."""

import json
import os
import signal
import sys
import warnings
from collections.abc import Sequence
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

from s4eca.budget import solve_budget
from s4eca.build import Config, build_callbacks, build_data, build_loggers, build_module, build_towers, build_trainer
from s4eca.checkpoint import load_learned, read_checkpoint
from s4eca.checkpoint_source import locate_checkpoint
from s4eca.cli.check_config import check_config
from s4eca.cli.environment import environment
from s4eca.cli.eval import default_folder, evaluate
from s4eca.cli.evaluating import Options
from s4eca.cli.resuming import ENDED, last_checkpoint, write_ended
from s4eca.dry_build import check_build
from s4eca.errors import S4ecaError
from s4eca.features import plan_features
from s4eca.files import write_text
from s4eca.frozen_dtype import check_precision
from s4eca.identity import describe_training
from s4eca.lit.agreement import failing_as_one
from s4eca.lit.csv_log import CSVLog
from s4eca.lit.last_step import LastStep
from s4eca.lit.wandb_run import keep_wandb_run
from s4eca.matmul import use_matmul_precision
from s4eca.memory import out_of_memory_explained
from s4eca.overrides import shell_word
from s4eca.stopping import StopSignals, requeue
from s4eca.tuning.base import Scope
from s4eca.weights import hash_weights


def train(config: Config, folder: Path, resume: Path | None = None, more: Sequence[Callback] = ()) -> float | None:
    """Runs one training.

    Args:
        config: resolved config.
        folder: run folder; gets `config.yaml`, `environment.json`, `metrics.csv`, `cost.json`, `checkpoints/`,
            `pictures/` and, when nothing is left to train, `ended.json`.
        resume: checkpoint to go on from.
        more: callbacks beside those of the config.

    Returns:
        The best score of the checkpoint callback that monitors one, None where there is none.

    Raises:
        S4ecaError: anything the user can mend, before the first step wherever it can be known by then.
        SystemExit: SIGTERM (status 143), SIGUSR1 (138) or Ctrl-C (130), after the last complete step was saved.
    """
    with StopSignals() as signals:
        try:
            config, best, chosen = _fit(config, folder, resume, more, signals)
            if config["evaluate"] is not None:
                if signals.asked is not None:  # in the last step
                    raise SIGTERMException
                evaluate_run(config, chosen, config["evaluate"])
            return best
        except (SIGTERMException, KeyboardInterrupt, SystemExit) as stop:
            if not signals.is_stop(stop):
                raise
            sys.exit(_say_stopped(folder, signals))


def _fit(
    config: Config, folder: Path, resume: Path | None, more: Sequence[Callback], signals: StopSignals
) -> tuple[Config, float | None, Path]:
    """Trains; returns the config with the widths that a budget has solved, the best score, the checkpoint to take."""
    lightning.seed_everything(config["seed"], workers=True, verbose=False)
    use_matmul_precision(config.get("matmul_precision", "highest"))  # older run folders do not say
    if "torch._dynamo" in sys.modules:  # what an earlier run of this process has compiled counts towards a limit
        torch._dynamo.reset()
    check_config(config)
    if "segmenter" not in config["model"]:
        raise S4ecaError("model=dgl_rsis is training-free; evaluate it with python eval.py model=dgl_rsis.")
    if config["evaluate"] not in (None, "val", "test"):
        raise S4ecaError(f"evaluate={config['evaluate']} is no split to end with; choose val, test or null.")
    is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if resume is None and is_first and (folder / "config.yaml").exists():
        raise S4ecaError(
            f"{folder} holds a run already; go on with it by {shell_word('resume', folder)}, or choose another "
            "hydra.run.dir (in a multirun, a hydra.sweep.subdir that names every key that is swept)."
        )
    last_step = LastStep(last_checkpoint(folder), signals)
    callbacks = [*build_callbacks(config, folder), *more, last_step]
    check_build(config, solve=resume is None)
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
    check_precision(module.segmenter, config["trainer"]["precision"])
    data.tokenizer = module.segmenter.text.load_tokenizer()  # type: ignore[operator]
    module.segmenter.text.check_length(data.max_tokens)  # type: ignore[operator]
    if config["init_from"] and resume is None:  # a resumed run has it in its checkpoint
        start = read_checkpoint(locate_checkpoint(config["init_from"]))
        load_learned(module.segmenter, start)
        module.start = {"name": start.path.name, "sha256": hash_weights(start.state)}
        if start.meta["config"] and start.config["tuning"] != config["tuning"]:
            warnings.warn(
                f"{config['init_from']} was trained with other settings of tuning={module.segmenter.method.name} than "
                "this run; its weights may mean something else here.",
                stacklevel=1,
            )
    folder.mkdir(parents=True, exist_ok=True)
    if is_first:  # another process may come here before the first has seen that the folder holds no run
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
        write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    loggers = [CSVLog(folder), *build_loggers(keep_wandb_run(config, folder), folder)]
    trainer = build_trainer(config, folder, callbacks, loggers)
    plan_features(module.features, data, trainer)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_hyperparams(config)
            # what the config only names, with hashes
            made_by = describe_training(module.describe(data))
            logger.log_hyperparams({name: made_by[name] for name in ("backbones", "training_data")})
    if is_first:
        (folder / ENDED).unlink(missing_ok=True)  # a run that ended may go on with more steps
    if resume is not None:  # its folder holds checkpoints, of course
        warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
    try:
        memory = out_of_memory_explained(config, training=True, onward=lambda: _onward(folder))
        with failing_as_one(trainer, folder), memory:
            trainer.fit(module, data, ckpt_path=str(resume) if resume else None, weights_only=True)
    except BaseException:
        _finish_wandb(loggers, failed=True)
        raise
    _finish_wandb(loggers, failed=False)
    return (config, *_end(trainer, folder))


def evaluate_run(config: Config, chosen: Path, split: str) -> None:
    """Evaluates a run that has ended as `eval.py` does.

    Args:
        config: the run's.
        chosen: its best checkpoint, or its last where none is selected.
        split: `val` or `test`.
    """
    settings = {**config["trainer"], "limit_test_batches": 1.0, "fast_dev_run": False}
    segmenter = {**config["model"]["segmenter"], "compile": "none"}  # as eval.py does
    model = {**config["model"], "feature_cache": None, "segmenter": segmenter}
    checkpoint = read_checkpoint(chosen)
    with out_of_memory_explained(config, training=False):
        evaluate({**config, "trainer": settings, "model": model}, checkpoint, None, Options(split, pictures=2))


def tell_ended(config: Config, folder: Path, ended: dict[str, Any]) -> float | None:
    """Says that a run has nothing left to train, and evaluates it where that is asked for and missing.

    Returns:
        Its best score, as `train` does.
    """
    print(f"{os.path.relpath(folder)} has ended at step {ended['step']}; nothing is left to train")
    chosen, split = folder / ended["checkpoint"], config["evaluate"]
    if split is not None:
        options = Options(split, pictures=2)
        results = default_folder(chosen, build_data(config).name, options) / "metrics.json"
        if results.is_file():
            print(f"evaluated: {os.path.relpath(results.parent)}")
        else:
            evaluate_run(config, chosen, split)
    return ended["best"]


def _end(trainer: Trainer, folder: Path) -> tuple[float | None, Path]:
    """Notes and says what a run has come to; returns its best score and the checkpoint to evaluate."""
    best, chosen = None, last_checkpoint(folder)
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.best_model_path and callback.monitor:
            assert callback.best_model_score is not None
            best, chosen = float(callback.best_model_score), Path(callback.best_model_path)
            if trainer.is_global_zero:
                print(f"best {callback.monitor} {best:.4f}")
                print(f"evaluate with: python eval.py {shell_word('ckpt', os.path.relpath(chosen))}")
    # none is there after a trial run such as trainer.fast_dev_run=true; a late process sees what the first has written
    if not trainer.strategy.broadcast(chosen.is_file()):
        trainer.save_checkpoint(chosen, weights_only=False)
    if trainer.is_global_zero:
        name = os.path.relpath(chosen.resolve(), folder.resolve())
        write_ended(folder, {"step": trainer.global_step, "best": best, "checkpoint": name})
        print(f"run folder: {os.path.relpath(folder)}")
    return best, chosen


def _onward(folder: Path) -> str:
    saved = last_checkpoint(folder).is_file()
    onward = f"go on with: python train.py {shell_word('resume', os.path.relpath(folder))}"
    return onward if saved else "nothing was saved yet"


def _say_stopped(folder: Path, signals: StopSignals) -> int:
    """Says what stopped the run and how it goes on; returns the exit status, by which a scheduler sees that it did."""
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        step = f" at step {signals.step}" if signals.step is not None else ""
        print(f"stopped by {signals.name}{step}; {_onward(folder)}")
        if signals.asked == signal.SIGUSR1:
            print(requeue(), flush=True)
    return signals.status


def _finish_wandb(loggers: list[Any], failed: bool) -> None:
    """Closes the W&B run, which a multirun would otherwise go on writing to."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish(exit_code=int(failed))
