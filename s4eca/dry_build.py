"""Building all that a config describes without its values: whether a run would be refused, before it reads anything.

Networks are built on PyTorch's meta device, where tensors have shapes and no memory: half a second for Swin-B with
BERT-base, and no weights, no data and no network are asked for.
"""

import copy
import json
import warnings
from contextlib import suppress
from functools import lru_cache

import torch

from s4eca.budget import solve_budget
from s4eca.build import Config, build_data, build_module, build_towers
from s4eca.features import check_cacheable
from s4eca.frozen_dtype import check_precision
from s4eca.lit.sharded import FSDP, check_sharded
from s4eca.settings import find_class
from s4eca.towers.base import TextTower, VisionTower
from s4eca.tuning.base import Scope
from s4eca.weights import SizesUnknownError

TOWERS = ("text", "vision", "weights_folder")


@lru_cache(maxsize=2)
def _hollow_towers(nodes: str) -> tuple[TextTower, VisionTower]:
    """Builds both towers without values, once for all configs that have these nodes, in JSON."""
    return build_towers(dict(zip(TOWERS, json.loads(nodes), strict=True)))


def dry_build(config: Config, solve: bool = False) -> None:
    """Builds a training's data module and network without values.

    Args:
        config: resolved.
        solve: whether the width is still to be solved for `budget`.

    Raises:
        S4ecaError: what the run itself would be refused with.
        SizesUnknownError: nothing on this machine says how large a tower is; the run would ask the hub.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # the run itself will warn
        data = build_data(config)
        with torch.device("meta"):
            text, vision = copy.deepcopy(_hollow_towers(json.dumps([config.get(name) for name in TOWERS])))
            if solve and config["budget"] is not None:
                segmenter = config["model"]["segmenter"]
                scope = Scope(segmenter["placement"], segmenter["start_stage"])
                config = {**config, "tuning": solve_budget(config["tuning"], text, vision, config["budget"], scope)[0]}
            module = build_module(config, (text, vision))
    trainer = config["trainer"]
    check_precision(module.segmenter, trainer["precision"])
    text.check_length(data.max_tokens)  # type: ignore[operator]
    check_cacheable(module.features, data, trainer["precision"])
    strategy = trainer.get("strategy")
    if isinstance(strategy, dict) and issubclass(find_class(strategy["_target_"], "trainer.strategy"), FSDP):
        check_sharded(module, trainer["precision"])


def check_build(config: Config, solve: bool = False) -> None:
    """Refuses a training that could not be built, as far as that can be known; arguments as `dry_build`'s.

    Raises:
        S4ecaError: what the run itself would be refused with.
    """
    with suppress(SizesUnknownError):
        dry_build(config, solve)
