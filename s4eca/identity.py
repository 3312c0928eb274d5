"""What makes a run the run it is, and the one list of the keys of its config that do not.

Three questions are answered by it: does a run folder hold the run that a command asks for (`resume=auto`), do two
workers search the same study, and are two trainings seeds of one another (`s4eca table`). Weights and data are no
matter of the config: a path is a place, and what lies there is compared by its hash. This module needs no torch.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase, translate
from functools import cache
from math import prod
from typing import Any

ELSEWHERE = (
    # what a run is called, and what becomes of it
    *("name", "resume", "evaluate", "logger", "hydra"),
    # how the learning rate was chosen; the rate itself counts
    *("lr_from", "lr_choice"),
    # places; what lies there is compared by hash
    *("weights_folder", "vision.weights", "text.weights", "text.tokenizer"),
    *("data.root", "data.parts.*.root", "data.cache", "model.feature_cache"),
    *("trainer.default_root_dir", "callbacks.*.dirpath"),
    # how samples are loaded and counted
    *("data.num_workers", "data.pin_memory", "data.strict_counts", "data.expected", "data.eval_batch_size"),
    # where a step is computed and what is kept for its backward pass; gradients are the same to 1e-6
    *("trainer.accelerator", "trainer.strategy"),
    *("model.segmenter.grad_checkpointing", "model.segmenter.compile"),
    # what a run shows and looks for, and what is no part of training and validation
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps", "trainer.profiler"),
    *("trainer.detect_anomaly", "trainer.num_sanity_val_steps", "trainer.inference_mode"),
    *("trainer.limit_test_batches", "trainer.limit_predict_batches", "trainer.enable_autolog_hparams"),
)
"""Keys of `train.yaml` that do not make a run another one, and all that is below them; `*` stands for any text.

Not among them, since they change numbers: precision, `matmul_precision`, `attention`, `tower_dtype`, the number of
steps (the learning rate's schedule depends on it), how often is validated (the best checkpoint is chosen then).
"""

SHOWING = frozenset(
    (
        *("RandomState", "ParameterReport", "Throughput", "Cost", "ValidationPictures", "LearningRateMonitor"),
        *("ProgressBar", "TQDMProgressBar", "RichProgressBar", "ModelSummary", "RichModelSummary"),
        *("DeviceStatsMonitor", "ThroughputMonitor"),
    )
)
"""Classes of callbacks that only show or save; so does a `ModelCheckpoint` that monitors nothing."""

SEEDS = ("seed", "data.seed", "init_from")
"""What seeds of one training may differ in beside that; the weights that `init_from` names are compared by hash."""

# what older configs leave out, since there was no such key
_AS_LEFT_OUT = (("trainer.num_nodes", 1), ("data.depth", 8), ("data.train_share", 1))

_BATCH = ("data.batch_size", "trainer.accumulate_grad_batches", "trainer.devices", "trainer.num_nodes")


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one, with dots in its keys."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def is_any(key: str, patterns: Iterable[str]) -> bool:
    """Whether a key is one of some patterns or below one."""
    return _matcher(tuple(patterns)).fullmatch(key) is not None


@cache
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(item) for pattern in patterns for item in (pattern, f"{pattern}.*")) or "(?!)")


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what makes a run the run it is out of its resolved config: all keys but `ELSEWHERE`, flat.

    Values that say what leaving them out says are left out: older configs do not have all keys.
    """
    flat = flatten(config)
    free = (*ELSEWHERE, *_showing(flat))
    kept = {key: value for key, value in flat.items() if value is not None and not is_any(key, free)}
    if "trainer.devices" in kept:
        kept["trainer.devices"] = _count(kept["trainer.devices"])
    # what is off in Lightning's trainer is off by default
    return {
        key: value
        for key, value in kept.items()
        if not (key.startswith("trainer.") and not value) and (key, value) not in _AS_LEFT_OUT
    }


def training(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what seeds of one training have in common out of a resolved config, flat.

    Devices and batches count as what they come to: the samples of an optimiser step, and those that a batch norm sees
    together.
    """
    known = settings(config)
    apart = (*SEEDS, *_BATCH, "trainer.sync_batchnorm")
    common = {key: value for key, value in known.items() if not is_any(key, apart)}
    if "data.batch_size" not in known:
        return common
    batch, accumulated, *processes = (known.get(key, 1) for key in _BATCH)
    common["effective batch"] = _product(batch, accumulated, *processes)
    common["batch of a norm"] = _product(batch, *processes) if known.get("trainer.sync_batchnorm") else batch
    return common


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns the keys in which two flat mappings differ; a key that one lacks differs too."""
    missing = object()
    return [key for key in {**before, **now} if before.get(key, missing) != now.get(key, missing)]


def describe_training(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what made a checkpoint, as its numbers state it, out of what the checkpoint says of itself.

    Args:
        meta: what `s4eca.checkpoint.describe` wrote. A merged network is what was trained, merged.
    """
    origin = meta.get("merged_from") or meta
    config, data = origin["config"], dict(meta["data"])
    if "drawn_from" in data.get("train", {}):  # other seeds draw other images
        data["train"] = data["train"]["drawn_from"]
    backbones = {}
    for tower in ("vision", "text"):
        options = config.get(tower, {}).get("options")
        backbones[tower] = {**origin["base"][tower], **({"options": dict(options)} if options else {})}
    if meta.get("tokenizer"):
        backbones["text"]["tokenizer"] = tokenizer_hash(meta["tokenizer"])
    parts = config.get("data", {}).get("parts")
    if parts:
        data["parts"] = {
            name: part["layout"] if part.get("repeat", 1) == 1 else f"{part['layout']}, {part['repeat']} times"
            for name, part in parts.items()
            if part
        }
    start = config.get("init_from")
    return {
        "tuning": meta["method"]["name"],
        **({"merged_from": origin["method"]["name"]} if origin is not meta else {}),
        "backbones": backbones,
        **{group: _spoken(config[group]) for group in ("fusion", "decoder", "refine", "loss") if config.get(group)},
        "trained_on": data.pop("name", None),
        "training_data": data,
        **({"init_from": meta.get("init_from") or {"named": str(start)}} if start else {}),
        "config": training(config),
    }


def tokenizer_hash(files: Mapping[str, str]) -> str:
    """Returns the sha256 of what a tokenizer does, out of its files; how it was last called is left out."""
    content: Any = dict(files)
    if "tokenizer.json" in files:
        whole = json.loads(files["tokenizer.json"])
        content = {name: value for name, value in whole.items() if name not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _spoken(node: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the class that a config node names and its settings."""
    name = str(node["_target_"]).rpartition(".")[2]
    return {"name": name, **{key: value for key, value in node.items() if not key.startswith("_")}}


def _showing(flat: Mapping[str, Any]) -> list[str]:
    """Returns the keys of callbacks that only show or save."""
    names = [key.removesuffix("._target_") for key in flat if fnmatchcase(key, "callbacks.*._target_")]
    return [name for name in names if _only_shows(str(flat[f"{name}._target_"]), flat.get(f"{name}.monitor"))]


def _only_shows(target: str, monitor: object) -> bool:
    kind = target.rpartition(".")[2]
    return kind in SHOWING or (kind == "ModelCheckpoint" and monitor is None)


def _count(devices: Any) -> Any:
    """Returns how many devices Lightning takes; those that it counts itself stay as they are called."""
    if devices in (-1, "-1"):
        return "auto"
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if isinstance(devices, list | tuple):
        return len(devices)
    return int(devices) if isinstance(devices, str) and devices.isdecimal() else devices


def _product(*factors: Any) -> Any:
    """Returns a product, as words where a factor is no number (`devices=auto`)."""
    numbers = [factor for factor in factors if isinstance(factor, int)]
    words = [str(factor) for factor in factors if not isinstance(factor, int)]
    return " x ".join([str(prod(numbers)), *words]) if words else prod(numbers)
