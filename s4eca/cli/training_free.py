"""`eval.py model=dgl_rsis …`: evaluation of a method that has no checkpoint."""

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import lightning
import torch
import transformers
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import s4eca
from s4eca.build import Config, build_loggers, build_pipeline, build_trainer, instantiate
from s4eca.cli.evaluating import Options, open_split, run_evaluation
from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.semantic.datamodule import SemanticDataModule
from s4eca.data.semantic.palette import ISAID_COLOURS
from s4eca.dgl_rsis.pictures import draw_steps
from s4eca.errors import S4ecaError
from s4eca.evaluation.semantic.metric import summarise_semantic
from s4eca.evaluation.semantic.page import write_semantic_page
from s4eca.evaluation.semantic.pictures import save_pictures
from s4eca.evaluation.semantic.report import semantic_tables, write_semantic_metrics
from s4eca.files import make_folder
from s4eca.lit.dgl_labels import DglLabels
from s4eca.lit.dgl_rsis import DglRsis, look

STATED = "our re-implementation; what the paper's abstracts leave open is our choice"


def resolve(given: DictConfig) -> Config:
    """Returns the config of a training-free evaluation out of a composed `eval.yaml`.

    Raises:
        S4ecaError: a key that only a checkpoint has a use for, or no data.
    """
    if given.ckpt is not None:
        raise S4ecaError("a training-free model has no checkpoint; leave out ckpt, or else model.")
    for key in ("vision", "text"):
        if given[key].weights is not None:
            raise S4ecaError(
                f"{key}.weights is of a checkpoint's towers; here it is clip.weights and grounding.blip.weights."
            )
    if "_target_" not in given.data:
        raise S4ecaError("a training-free model brings no data of its own; say which by data=NAME data.root=PATH.")
    content = OmegaConf.to_container(given, resolve=True)
    assert isinstance(content, dict)
    config: Config = {str(key): value for key, value in content.items()}
    trainer = {"_target_": "lightning.pytorch.Trainer", "accelerator": "auto", "devices": 1, "precision": "32-true"}
    config["trainer"] = trainer | {name: value for name, value in config["trainer"].items() if value is not None}
    config["name"] = config["name"] or config["model"]["name"]
    return config


def evaluate_training_free(config: Config, folder: Path | None, options: Options) -> float:
    """Evaluates the training-free method and returns the mIoU; `run_evaluation` says what is written.

    Args:
        config: what `resolve` gave.
        folder: where the results go; None for `outputs/NAME/eval/DATASET_SPLIT`.
        options: split and extras.

    Raises:
        S4ecaError: anything the user can mend, before the first sample wherever it can be known by then.
    """
    data = instantiate(config["data"], "data")
    folder = folder or default_folder(config, data.name, options)
    if isinstance(data, SemanticDataModule):
        return evaluate_labels(config, data, folder, options)
    open_split(data, options)
    pipeline = build_pipeline(config, data.name)
    data.tokenizer, data.max_tokens = pipeline.regions.tokenizer, pipeline.regions.max_tokens
    module = DglRsis(pipeline, config["model"]["protocols"])

    def explain(position: int) -> dict[str, Any]:
        return explain_sample(module, data, options.split, position)

    def about() -> dict[str, Any]:
        facts = {
            "expressions": "real" if options.shuffled is None else f"shuffled with seed {options.shuffled}",
            "image_size": config["image_size"],
            "resize": data.resize,
            "tuning": "none, training-free",
        }
        return describe(config, data, options) | facts | module.summary()

    summary = run_evaluation(config, data, module, folder, options, about, explain)
    return summary["protocols"][module.primary]["mIoU"]


def explain_sample(module: DglRsis, data: ReferringDataModule, split: str, position: int) -> dict[str, Any]:
    """Draws the stages of one sample, at the size of the model's input."""
    sample = data.dataset(split, train=False)[position]
    view = look(sample.image, data.references(split)[position].image.stem, sample.mask)
    (evidence,) = module.pipeline.evidence(view, [sample.expression])
    selection = module.pipeline.selector.select(evidence)
    return draw_steps(view.image, sample.mask.numpy(), evidence.proposals, selection)


def evaluate_labels(config: Config, data: SemanticDataModule, folder: Path, options: Options) -> float:
    """Evaluates open-vocabulary segmentation: a label for every pixel, one confusion matrix over the split.

    The folder gets `report.html`, `metrics.json`, `metrics.csv` and `pictures/`.

    Returns:
        The mIoU over the classes and background.

    Raises:
        S4ecaError: an option that label maps have no use for, and anything else the user can mend.
    """
    if options.predictions is not None or options.shuffled is not None:
        raise S4ecaError(f"{data.name} has label maps: predictions=… and shuffle_expressions=true are for expressions.")
    data.evaluated = options.split
    data.setup("test")
    pipeline = build_pipeline(config, data.name)
    module = DglLabels(pipeline, config["model"]["labels"], data.labels, options.pictures)
    make_folder(folder)
    loggers = build_loggers(config, folder)
    trainer = build_trainer(config, folder, [], loggers)
    trainer.test(module, datamodule=data, verbose=False)
    about = describe(config, data, options) | data.facts() | module.summary()
    summary = summarise_semantic(module.scores, about, data.labels, module.images)
    if trainer.is_global_zero:
        files = [*write_semantic_metrics(folder, summary)]
        files.append(write_semantic_page(folder, summary, module.gallery.pictures, ISAID_COLOURS))
        files += save_pictures(folder / "pictures", module.gallery.pictures, ISAID_COLOURS)
        console = Console(soft_wrap=True)
        console.print(semantic_tables(summary, f"{data.name}, {options.split}"))
        for path in files:
            console.print(os.path.relpath(path), highlight=False)
    return summary["scores"]["mIoU16"]


def describe(config: Config, data: ReferringDataModule | SemanticDataModule, options: Options) -> dict[str, Any]:
    """Returns what the numbers of a training-free evaluation belong to."""
    model = config["model"]
    return {
        "name": config["name"],
        "method": f"{model['name']} ({STATED})",
        "dataset": data.name,
        "split": options.split,
        "data": _fingerprint(data, options.split),
        "settings": settings_of(config),
        "precision": config["trainer"]["precision"],
        "versions": {
            "s4eca": s4eca.__version__,
            "torch": str(torch.__version__),
            "lightning": lightning.__version__,
            "transformers": transformers.__version__,
        },
        "recipe": recipe(config),
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _fingerprint(data: ReferringDataModule | SemanticDataModule, split: str) -> dict[str, Any]:
    return (data.fingerprint() if isinstance(data, SemanticDataModule) else data.fingerprint((split,)))[split]


def settings_of(config: Config) -> dict[str, Any]:
    """Returns what was chosen of each part, as the report states it; no places and no weights."""
    kinds = {group: _kind(config[group]) for group in ("decoupler", "proposer", "grounding", "selector")}
    numbers = {"selector": config["selector"], "regions": config["model"]["regions"]}
    return {
        **kinds,
        "clip": config["clip"]["name"],
        "prompts": config["model"]["prompts"],
        **{
            f"{group}.{name}": value
            for group, node in numbers.items()
            for name, value in node.items()
            if name != "_target_" and value is not None
        },
    }


def _kind(node: Config) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def recipe(config: Config) -> str:
    """Returns a hash of all that decides the masks; places, workers and batch sizes do not."""
    groups = ("decoupler", "proposer", "clip", "grounding", "selector", "model", "image_size")
    content = _without({name: config[name] for name in groups}, {"cache", "batch_size", "points_per_batch", "name"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def default_folder(config: Config, dataset: str, options: Options) -> Path:
    """Returns `outputs/NAME/eval/DATASET_SPLIT`, where `s4eca table outputs/NAME` finds it."""
    shuffled = "" if options.shuffled is None else "_shuffled"
    return Path("outputs") / config["name"] / "eval" / f"{dataset}_{options.split}{shuffled}"


def _without(node: Any, keys: Set[str]) -> Any:
    if isinstance(node, Mapping):
        return {name: _without(value, keys) for name, value in node.items() if name not in keys}
    return [_without(value, keys) for value in node] if isinstance(node, list) else node
