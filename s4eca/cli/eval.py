"""Evaluation of a checkpoint: everything it needs but the base weights and the data is in the checkpoint.

`model=dgl_rsis` evaluates the training-free method instead, which has none.
"""

import json
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from s4eca.build import Config, build_data, build_module
from s4eca.checkpoint import SELECTED_BY, Checkpoint, load_learned, read_checkpoint
from s4eca.checkpoint_source import is_remote, label, locate_checkpoint
from s4eca.cli.check_config import check_config
from s4eca.cli.entry import run_hydra
from s4eca.cli.environment import command_line
from s4eca.cli.evaluating import Options, open_split, run_evaluation
from s4eca.cli.training_free import evaluate_training_free, resolve
from s4eca.data.datamodule import ReferringDataModule
from s4eca.dry_build import check_build
from s4eca.errors import S4ecaError
from s4eca.frozen_dtype import for_precision
from s4eca.identity import describe_training
from s4eca.lit.referring import ReferringModule
from s4eca.matmul import use_matmul_precision
from s4eca.memory import out_of_memory_explained
from s4eca.parameters import count_parameters, method_share
from s4eca.weights_folder import usable_folder


def evaluate(
    config: Config, checkpoint: Checkpoint, folder: Path | None, options: Options, origin: str | None = None
) -> dict[str, Any]:
    """Evaluates a checkpoint under all its protocols and writes what was measured, see `run_evaluation`.

    Args:
        config: resolved config to build data and network from.
        checkpoint: as `read_checkpoint` gives it.
        folder: where the results go; None for `RUN/eval/CHECKPOINT_DATASET_SPLIT`.
        options: split and extras.
        origin: how the checkpoint was named, where that is no path; its results then go to `outputs/ORIGIN/eval`.

    Returns:
        The content of `metrics.json`.

    Raises:
        S4ecaError: anything the user can mend, before the first sample wherever it can be known by then.
    """
    config = for_precision(config)
    check_config(config)
    check_build(config)
    use_matmul_precision(config.get("matmul_precision", "highest"))  # older checkpoints do not say
    data = build_data(config)
    open_split(data, options)
    data.tokenizer = checkpoint.tokenizer()
    module = build_module(config)
    load_learned(module.segmenter, checkpoint)
    folder = folder or default_folder(checkpoint.path, data.name, options, origin)
    with out_of_memory_explained(config, training=False):
        return run_evaluation(
            config, data, module, folder, options, lambda: describe(config, checkpoint, data, module, options, origin)
        )


def describe(
    config: Config,
    checkpoint: Checkpoint,
    data: ReferringDataModule,
    module: ReferringModule,
    options: Options,
    origin: str | None = None,
) -> dict[str, Any]:
    """Returns what the numbers of an evaluation belong to, as `metrics.json` and the report state it."""
    segmenter = module.segmenter
    counts = count_parameters(segmenter)
    return {
        "name": config["name"],
        "dataset": data.name,
        "split": options.split,
        "data": data.fingerprint((options.split,))[options.split],
        "expressions": "real" if options.shuffled is None else f"shuffled with seed {options.shuffled}",
        "image_size": config["image_size"],
        "resize": data.resize,
        **({"depth": data.depth} if data.depth != 8 else {}),
        "max_tokens": data.max_tokens,
        "checkpoint": origin or checkpoint.path.name,
        "selected_by": selected_by(checkpoint),
        "seed": config["seed"],
        **describe_training(checkpoint.meta),
        "learned_parameters": {place: count.learned for place, count in counts.items() if count.learned},
        "method_share": method_share(segmenter),
        "precision": config["trainer"]["precision"],
        "placement": segmenter.scope.placement,
        "cost": training_cost(checkpoint.path),
        "versions": checkpoint.meta["versions"],
        "lr": checkpoint.config["model"].get("lr"),
        "lr_choice": checkpoint.config.get("lr_choice"),  # by which `s4eca rates` chose it
        "command": command_line(),
    }


def training_cost(ckpt: Path) -> dict[str, Any] | None:
    """Returns what the training run measured of itself (`cost.json`); None for a checkpoint outside its run folder."""
    path = ckpt.parent.parent / "cost.json"
    if ckpt.parent.name != "checkpoints" or not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise S4ecaError(f"{path} is damaged ({error}); delete it to evaluate without the training's cost.") from error


def selected_by(checkpoint: Checkpoint) -> str:
    """Returns the score that chose a checkpoint among those of its run, or `the last step`."""
    if SELECTED_BY in checkpoint.meta:
        score = checkpoint.meta[SELECTED_BY]
    else:  # written before files said so themselves
        best = checkpoint.config.get("callbacks", {}).get("best") or {}
        score = None if checkpoint.path.stem == "last" else best.get("monitor")
    return str(score or "the last step")


def merge(trained: Config, given: DictConfig) -> Config:
    """Returns the config of an evaluation: the checkpoint's, changed where the command line says something.

    `data=NAME` replaces the data; single keys that are not null change single values.
    """
    merged = OmegaConf.create(trained)
    merged["logger"] = given.logger
    merged["name"] = given.name or merged["name"]
    merged["data"]["cache"] = None  # folders of the machine that trained
    merged["model"]["feature_cache"] = None
    if (merged["data"].get("augmentation") or {}).get("turn_features"):
        merged["data"]["augmentation"]["turn_features"] = False  # nothing is turned, and no features are kept
    merged["trainer"]["limit_test_batches"] = 1.0
    # those of the training were for its own number of processes, and for trying it out
    merged["trainer"].update({"strategy": "auto", "num_nodes": 1, "sync_batchnorm": False, "fast_dev_run": False})
    merged["weights_folder"] = given.weights_folder or usable_folder(trained)
    if merged["trainer"]["accelerator"] in ("gpu", "cuda") and not torch.cuda.is_available():
        merged["trainer"]["accelerator"] = "auto"
    for name, value in ((given.get("model") or {}).get("segmenter") or {}).items():
        if value is not None:
            merged["model"]["segmenter"][name] = value
    for key in ("data", "vision", "text", "trainer"):
        # unresolved: what a data config refers to, such as image_size, is the checkpoint's
        change = OmegaConf.to_container(given[key], resolve=False)
        assert isinstance(change, dict)
        if "_target_" in change:
            merged[key] = change
        else:
            for name, value in change.items():
                if value is not None:
                    merged[key][name] = value
    content = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def evaluate_composed(given: DictConfig) -> float:
    """Evaluates as a composed `eval.yaml` says and returns the mIoU of the first protocol."""
    options = Options(
        given.split,
        given.pictures,
        given.predictions,
        given.bootstrap,
        given.seed if given.shuffle_expressions else None,
    )
    folder = Path(given.out) if given.out else None
    if folder and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise S4ecaError("the evaluations of a multirun would write over one another; leave out `out`.")
    target = given.model.get("_target_")
    if target is None and given.get("variant"):
        raise S4ecaError(f"ablation={given.variant} is of the training-free model; give model=dgl_rsis with it.")
    if target not in (None, "s4eca.lit.dgl_rsis.DglRsis"):
        raise S4ecaError(f"model={given.model.get('name', 'referring')} is trained; give ckpt=PATH of a run instead.")
    if target is not None:
        return evaluate_training_free(resolve(given), folder, options)
    if given.ckpt is None:
        raise S4ecaError("there is nothing to evaluate; give ckpt=PATH of a run, or model=dgl_rsis.")
    checkpoint = read_checkpoint(locate_checkpoint(given.ckpt))
    origin = str(given.ckpt) if is_remote(given.ckpt) else None
    summary = evaluate(merge(checkpoint.config, given), checkpoint, folder, options, origin)
    return summary["protocols"][next(iter(summary["protocols"]))]["mIoU"]


def default_folder(ckpt: Path, dataset: str, options: Options, origin: str | None = None) -> Path:
    """Returns `RUN/eval/CHECKPOINT_DATASET_SPLIT` beside the checkpoints of a run.

    A published checkpoint lies in a cache folder; its results go to `outputs/ORIGIN/eval/CHECKPOINT_DATASET_SPLIT`.
    """
    parent = ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent
    if origin is not None:
        parent = Path("outputs") / label(origin)
    shuffled = "" if options.shuffled is None else "_shuffled"
    name = ckpt.name.removesuffix(".ckpt")  # of a folder all of it: v1.2 and v1.3 are two
    return parent / "eval" / f"{name}_{dataset}_{options.split}{shuffled}"


def main() -> None:
    """Entry point of `eval.py` and `s4eca eval`."""
    run_hydra(evaluate_composed, "eval")
