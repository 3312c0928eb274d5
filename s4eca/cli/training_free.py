"""`eval.py model=dgl_rsis …`: evaluation of a method that has no checkpoint."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
import transformers
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import s4eca
from s4eca.build import Config, build_loggers, build_pipeline, build_trainer, instantiate
from s4eca.cli.check_config import check_config
from s4eca.cli.environment import command_line
from s4eca.cli.evaluating import Options, open_split, run_evaluation
from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.semantic.datamodule import SemanticDataModule
from s4eca.data.semantic.palette import ISAID_COLOURS
from s4eca.dgl_rsis.pictures import draw_steps
from s4eca.dgl_rsis.pipeline import Pipeline
from s4eca.errors import S4ecaError
from s4eca.evaluation.semantic.metric import summarise_semantic
from s4eca.evaluation.semantic.page import write_semantic_page
from s4eca.evaluation.semantic.pictures import save_pictures
from s4eca.evaluation.semantic.report import semantic_tables, write_semantic_metrics
from s4eca.files import make_folder
from s4eca.lit.dgl_labels import DglLabels
from s4eca.lit.dgl_rsis import DglRsis, look
from s4eca.weights import BaseWeights, describe_source


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
    if str(config["trainer"]["precision"]) not in ("32-true", "32"):
        raise S4ecaError("a training-free model runs in fp32, as what it keeps was made; leave out trainer.precision.")
    return config


def name_of(config: Config) -> tuple[str, str]:
    """Returns what an evaluation is called in the folder under `outputs`, and where its numbers are shown."""
    name, title = config["model"]["name"], config["model"]["title"]
    if config.get("variant"):
        name, title = f"{name}_{config['variant']}", f"{title}, {config['variant']}"
    return (config["name"], f"{config['name']}: {title}") if config["name"] else (name, title)


def evaluate_training_free(config: Config, folder: Path | None, options: Options) -> float:
    """Evaluates the training-free method and returns the mIoU; `run_evaluation` says what is written.

    Args:
        config: what `resolve` gave.
        folder: where the results go; None for `outputs/NAME/eval/DATASET_SPLIT`.
        options: split and extras.

    Raises:
        S4ecaError: anything the user can mend, before the first sample wherever it can be known by then.
    """
    check_config(config)
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
            **({"depth": data.depth} if data.depth != 8 else {}),
            "tuning": "none, training-free",
        }
        return describe(config, data, pipeline, options) | facts | module.summary()

    summary = run_evaluation(config, data, module, folder, options, about, explain, name_of(config)[1])
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
    pipeline = build_pipeline(config, data.name, expressions=False)
    module = DglLabels(pipeline, config["model"]["labels"], data.labels, options.pictures)
    make_folder(folder)
    loggers = build_loggers(config, folder)
    trainer = build_trainer(config, folder, [], loggers)
    trainer.test(module, datamodule=data, verbose=False)
    about = describe(config, data, pipeline, options) | data.facts() | module.summary()
    summary = summarise_semantic(module.scores, about, data.labels, module.images)
    if trainer.is_global_zero:
        files = [*write_semantic_metrics(folder, summary)]
        files.append(write_semantic_page(folder, summary, module.gallery.pictures, ISAID_COLOURS))
        files += save_pictures(folder / "pictures", module.gallery.pictures, ISAID_COLOURS)
        console = Console(soft_wrap=True)
        console.print(semantic_tables(summary, f"{data.name}, {options.split}: {about['name']}"))
        for path in files:
            print(os.path.relpath(path))
        finish_wandb(loggers)
    return summary["scores"]["mIoU16"]


def describe(
    config: Config, data: ReferringDataModule | SemanticDataModule, pipeline: Pipeline, options: Options
) -> dict[str, Any]:
    """Returns what the numbers of an evaluation belong to; `parts` says all of it, `settings` what was chosen."""
    labels = isinstance(data, SemanticDataModule)
    parts = describe_parts(config, pipeline, labels)
    return {
        "name": name_of(config)[1],
        "dataset": data.name,
        "split": options.split,
        "data": (data.fingerprint() if isinstance(data, SemanticDataModule) else data.fingerprint((options.split,)))[
            options.split
        ],
        "backbones": describe_backbones(pipeline),
        "settings": _settings(config, labels),
        "parts": parts,
        "precision": config["trainer"]["precision"],
        "versions": {
            "s4eca": s4eca.__version__,
            "torch": str(torch.__version__),
            "lightning": lightning.__version__,
            "transformers": transformers.__version__,
        },
        "command": command_line(),
    }


def describe_parts(config: Config, pipeline: Pipeline, labels: bool) -> dict[str, Any]:
    """Returns all that decides the masks: settings with their defaults, hashes of weights, words; no places."""
    parts = {
        "proposer": pipeline.proposer.identity(),
        "regions": pipeline.regions.identity(),
        "knowledge": pipeline.knowledge.identity(),
        "prompts": config["model"]["prompts"],
    }
    if labels:
        return parts | {"labels": dict(config["model"]["labels"])}
    assert pipeline.grounding is not None  # built for expressions
    return parts | {
        "grounding": pipeline.grounding.identity(),
        "decoupler": dict(config["decoupler"]),
        "selector": dict(config["selector"]),
        "image_size": config["image_size"],
    }


def describe_backbones(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """Returns name, source and sha256 of the models by what they are for, the class of a part without weights."""
    stated: dict[str, dict[str, Any]] = {}
    parts = {"CLIP": pipeline.regions, "grounding": pipeline.grounding, "proposer": pipeline.proposer}
    for role, part in parts.items():
        if part is None:
            continue
        bases = [getattr(module, "base", None) for module in part.modules()]
        models = [base for base in bases if isinstance(base, BaseWeights)]
        for number, base in enumerate(models, 1):
            stated[role if number == 1 else f"{role} {number}"] = base.to_dict()
        if not models:
            kinds = [type(inner).__name__ for inner in getattr(part, "proposers", [part])]
            stated[role] = {"name": " + ".join(kinds)}
    return stated


def _settings(config: Config, labels: bool) -> dict[str, Any]:
    """Returns the choices that a reader asks for first."""
    model = config["model"]
    clip = f"{config['clip']['name']}, weights {describe_source(config['clip']['weights'], config['clip']['seed'])}"
    chosen = {"proposer": _kind(config["proposer"]), "clip": clip, "prompts": model["prompts"]}
    chosen |= {name: value for name, value in model["regions"].items() if name in ("mode", "guidance", "crop")}
    if labels:
        return chosen | dict(model["labels"])
    kinds = {group: _kind(config[group]) for group in ("decoupler", "grounding", "selector")}
    return chosen | kinds | {name: value for name, value in config["selector"].items() if name != "_target_"}


def _kind(node: Config) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def finish_wandb(loggers: Sequence[Logger]) -> None:
    """Ends the W&B run, so that the next evaluation of a multirun has one of its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def default_folder(config: Config, dataset: str, options: Options) -> Path:
    """Returns `outputs/NAME/eval/DATASET_SPLIT`, where `s4eca table outputs/NAME` finds it; a multirun adds `job_N`."""
    shuffled = "" if options.shuffled is None else "_shuffled"
    folder = Path("outputs") / name_of(config)[0]
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        folder /= f"job_{HydraConfig.get().job.num}"
    return folder / "eval" / f"{dataset}_{options.split}{shuffled}"
