"""From a resolved config to objects: the only place that turns `_target_` into code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger

from s4eca.checkpoint_io import AtomicCheckpointIO
from s4eca.data.datamodule import ReferringDataModule
from s4eca.dgl_rsis.knowledge import Knowledge, available
from s4eca.dgl_rsis.pipeline import Pipeline
from s4eca.errors import S4ecaError, is_out_of_memory
from s4eca.lit.agreement import EpochLoop
from s4eca.lit.distributed import DDP
from s4eca.lit.referring import ReferringModule
from s4eca.settings import check_keys
from s4eca.towers.base import TextTower, VisionTower
from s4eca.weights import HUB
from s4eca.weights_folder import Kept, place, read_folder
from s4eca.weights_folder.needs import nested

Config = dict[str, Any]

SEGMENTER = "s4eca.segmenter.ReferringSegmenter"


def instantiate(node: Mapping[str, Any], key: str, **arguments: Any) -> Any:
    """Builds what a config node describes.

    Args:
        node: plain values with a `_target_`; with `_partial_` what comes back is called with further arguments.
        key: where it stands in the config, for errors.
        arguments: further arguments of the target.

    Raises:
        S4ecaError: a target outside this package and Lightning's callbacks, loggers and trainer, or arguments that do
            not fit it, late ones too; what the target itself raises as S4ecaError passes through.
    """
    if "_target_" not in node:
        raise S4ecaError(f"{key} names no part to build, only {', '.join(node) or 'nothing'}; choose an option of it.")
    check_keys(node, key)

    def build(**late: Any) -> Any:
        with _fitting(node, key):
            return made(**late)

    with _fitting(node, key):
        made = hydra.utils.instantiate(dict(node), _partial_=True, _convert_="all")
    return build if node.get("_partial_") else build(**arguments)


@contextmanager
def _fitting(node: Mapping[str, Any], key: str) -> Iterator[None]:
    """Turns what goes wrong in a constructor into a sentence."""
    try:
        yield
    except (S4ecaError, ImportError, OSError, MemoryError):
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, S4ecaError):
            if is_out_of_memory(cause):
                raise
            cause = cause.__cause__
        if cause is not None:
            raise cause from None
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        fits = isinstance(error, InstantiationException | TypeError)
        how = f"does not fit {node['_target_']}" if fits else "cannot be had here"
        raise S4ecaError(f"the config under {key} {how}: {reason}.") from error


def build_data(config: Config) -> ReferringDataModule:
    """Builds the data module of an expression dataset.

    Raises:
        S4ecaError: data of another kind, and what `instantiate` raises.
    """
    check_expressions(config)
    return instantiate(config["data"], "data")


def check_expressions(config: Mapping[str, Any]) -> None:
    """Refuses data without expressions."""
    if str(config["data"].get("_target_")).startswith("s4eca.data.semantic."):
        raise S4ecaError("these data have label maps and no expressions; they are for eval.py model=dgl_rsis alone.")


def open_weights(config: Config) -> Kept | None:
    """Reads the manifest of `weights_folder`; None where the config names no folder.

    Raises:
        S4ecaError: the folder is not there, or its manifest is damaged.
    """
    folder = config.get("weights_folder")
    return None if folder is None else read_folder(folder)


def build_model(node: Mapping[str, Any], key: str, kept: Kept | None, **arguments: Any) -> Any:
    """Builds a tower or another part with weights, taking from a weights folder what would come from the hub.

    What is built says of itself what it says when it comes from the hub, and the node stays as it was: a checkpoint
    does not know the folder's files.

    Args:
        node: as `instantiate` takes it; nodes within it may have weights too.
        key: where it stands in the config, for errors.
        kept: what `open_weights` gave.
        arguments: further arguments of the target.

    Raises:
        S4ecaError: what `instantiate` and `s4eca.weights_folder.place` raise.
    """
    if kept is None:
        return instantiate(node, key, **arguments)
    check_keys(node, key)
    for name in nested(node):
        value, inner = node[name], f"{key}.{name}"
        items = [build_model(item, inner, kept) for item in (value if isinstance(value, list) else [value])]
        arguments[name] = items if isinstance(value, list) else items[0]
    own = {name: value for name, value in node.items() if name not in arguments}
    placed = place(kept, own, key)
    built = instantiate(placed, key, **arguments)
    if placed.get("weights") != own.get("weights"):
        built.base = replace(built.base, source=str(own.get("weights", HUB)))
    return built


def build_towers(config: Config) -> tuple[TextTower, VisionTower]:
    """Builds both towers, frozen."""
    kept = open_weights(config)
    return build_model(config["text"], "text", kept), build_model(config["vision"], "vision", kept)


def build_module(config: Config, towers: tuple[TextTower, VisionTower] | None = None) -> ReferringModule:
    """Builds towers, method, fusion, decoder, refinement and loss, and the LightningModule around them.

    Args:
        config: resolved config.
        towers: what `build_towers` gave, where they are built already.
    """
    model = dict(config["model"])
    text, vision = towers or build_towers(config)
    segmenter = instantiate(
        {"_target_": SEGMENTER, **model.pop("segmenter")},
        "model.segmenter",
        text=text,
        vision=vision,
        method=instantiate(config["tuning"], "tuning"),
        fusion=instantiate(config["fusion"], "fusion"),
        decoder=instantiate(config["decoder"], "decoder"),
        refine=instantiate(config["refine"], "refine") if config.get("refine") else None,  # older configs have none
    )
    loss = instantiate(config["loss"], "loss")
    module = instantiate(model, "model", segmenter=segmenter, loss=loss)
    module.config = config
    return module


def build_pipeline(config: Config, dataset: str, expressions: bool = True) -> Pipeline:
    """Builds the training-free method.

    Args:
        config: resolved config with the groups `model`, `decoupler`, `proposer`, `clip`, `grounding` and `selector`.
        dataset: name of the data, whose knowledge is taken where `model.knowledge` is null.
        expressions: whether there are any; label maps need no grounding model.

    Raises:
        S4ecaError: nothing is known of the dataset, weights that cannot be resolved, or settings that do not fit.
    """
    model = config["model"]
    if model["knowledge"] is None and dataset not in available():
        raise S4ecaError(
            f"nothing is known of the classes of {dataset}; choose model.knowledge={'|'.join(available())} or give the"
            " path of a YAML file like theirs."
        )
    knowledge = Knowledge.load(model["knowledge"] or dataset)
    selector = instantiate(config["selector"], "selector")
    decoupler = instantiate(config["decoupler"], "decoupler", knowledge=knowledge)
    kept = open_weights(config)
    proposer = build_model(config["proposer"], "proposer", kept)
    clip = build_model(config["clip"], "clip", kept)
    shared = {"clip": clip} if config["grounding"].get("clip") == config["clip"] else {}  # loaded once
    grounding = {name: value for name, value in config["grounding"].items() if name not in shared}
    return Pipeline(
        decoupler=decoupler,
        proposer=proposer,
        regions=instantiate(model["regions"], "model.regions", clip=clip),
        grounding=build_model(grounding, "grounding", kept, **shared) if expressions else None,
        selector=selector,
        knowledge=knowledge,
        prompts=model["prompts"],
        cache=model["cache"],
    )


def build_callbacks(config: Config, folder: Path) -> list[Callback]:
    """Builds the callbacks; checkpoints go to `folder/checkpoints`.

    Raises:
        S4ecaError: a callback selects by a score of the test split.
    """
    callbacks = []
    for name, node in config["callbacks"].items():
        if not node:
            continue
        monitor = str(node.get("monitor") or "")
        if monitor.startswith("test"):
            raise S4ecaError(f"callbacks.{name}.monitor={monitor} selects on the test split; choose a val/ score.")
        callback = instantiate(node, f"callbacks.{name}")
        if isinstance(callback, ProgressBar) and config.get("trainer", {}).get("enable_progress_bar") is False:
            continue
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / "checkpoints")
        callbacks.append(callback)
    return callbacks


def build_loggers(config: Config, folder: Path) -> list[Logger]:
    """Builds the loggers of the config; what they keep on disk goes to `folder`."""
    loggers: list[Logger] = []
    for name, node in config["logger"].items():
        try:
            loggers.append(instantiate(node, f"logger.{name}", save_dir=str(folder)))
        except ModuleNotFoundError as error:
            raise S4ecaError(f"logger={name} needs a package that is missing; pip install 's4eca[{name}]'.") from error
    return loggers


def build_trainer(config: Config, folder: Path, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    """Builds the trainer; it writes into `folder` only, and checkpoints atomically."""
    settings = config["trainer"]
    several = settings.get("devices", 1) not in (1, "1") and settings.get("strategy", "auto") in ("auto", "ddp")
    trainer = instantiate(
        settings,
        "trainer",
        **({"strategy": DDP()} if several else {}),
        default_root_dir=str(folder),
        callbacks=callbacks,
        logger=loggers or False,
        enable_model_summary=False,
        # the data module's samplers know their share of the data themselves
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO()],
    )
    EpochLoop.install(trainer)
    return trainer
