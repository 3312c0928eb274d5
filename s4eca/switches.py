"""The switches that make a run smaller or faster: what each acts on, and which of them a run can have.

What is advised to a user comes from `offered`, which builds the changed config without values first
(`s4eca.dry_build`): a switch that would be refused is not advised.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from s4eca.build import Config
from s4eca.dry_build import dry_build
from s4eca.errors import S4ecaError
from s4eca.profiling.parts import (
    BACKWARD,
    CALLBACKS,
    DECODER,
    FUSION,
    LOADER,
    METHOD,
    OPTIMIZER,
    RECOMPUTED,
    TEXT,
    TRANSFER,
    VISION,
)
from s4eca.settings import shown

BLOCK, STAGE_3, SIDE = 0.14, 0.61, 0.21
"""Shares of the bytes that a training step of S4ECA keeps for the backward pass, on Swin-B and BERT-base at 480 px with
the `fpn` decoder: `benchmarks/results/methods_base.json`."""

FPN = 0.91
"""Share with the `fpn` decoder of what is kept with LAVT's, otherwise as above; the decoders' own parts are 90 and 208
MB an image."""

HALF = "about 50 %, by the width of bf16"

# nodes of the options that a switch chooses
OPTIONS = {"decoder": {"fpn": {"_target_": "s4eca.decoders.fpn.FPNDecoder", "_partial_": True}}}

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Switch:
    """A change of a config.

    Attributes:
        change: the keys that it sets, None where a config has them already or they would do nothing.
        parts: of a training step, whose time it acts on.
        leaves: what is kept in memory with it, in words; None for what is no matter of memory.
        same_run: whether a run can go on with it.
        gpu: whether it saves time on a GPU alone.
        along: further values, for configs that cannot have it without them.
        note: said behind it.
    """

    change: Callable[[Config], Values | None]
    parts: tuple[str, ...] = ()
    leaves: Callable[[Config], str] | None = None
    same_run: bool = False
    gpu: bool = False
    along: Values | None = None
    note: str = ""


@dataclass(frozen=True)
class Offer:
    """A switch that a config can have.

    Attributes:
        setting: as it stands on the command line.
        leaves: what is kept in memory with it, empty where it is no matter of memory.
        same_run: whether a run can go on with it.
        note: said behind it.
    """

    setting: str
    leaves: str = ""
    same_run: bool = False
    note: str = ""


def offered(config: Config, switches: Iterable[Switch]) -> list[Offer]:
    """Returns the switches that a config has not used yet and would not be refused with, in their order.

    Args:
        config: resolved, its budget solved already.
        switches: to choose from.
    """
    config = {**config, "budget": None}
    offers = []
    for switch in switches:
        values = switch.change(config)
        if values is None:
            continue
        along = {key: value for key, value in (switch.along or {}).items() if find(config, key) != value}
        tried = ({**values}, {**values, **along}) if along else ({**values},)
        fitting = next((both for both in tried if can_be_built(changed(config, both))), None)
        if fitting is not None:
            setting = " ".join(f"{key}={shown(value)}" for key, value in fitting.items())
            leaves = switch.leaves(config) if switch.leaves is not None else ""
            offers.append(Offer(setting, leaves, switch.same_run, switch.note))
    return offers


def can_be_built(config: Config) -> bool:
    """Whether a config builds without values."""
    try:
        dry_build(config)
    except S4ecaError:
        return False
    return True


def changed(config: Config, values: Values) -> Config:
    """Returns a config with other values; a group's is the name of an option."""
    config = deepcopy(config)
    for key, value in values.items():
        place, _, name = key.rpartition(".")
        holder = find(config, place) if place else config
        holder[name] = OPTIONS[key][value] if key in OPTIONS else value
    return config


def find(config: Config, key: str) -> Any:
    """Returns the value at a key, None where there is none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _set(key: str, value: Any, off: Callable[[Any], bool]) -> Callable[[Config], Values | None]:
    return lambda config: {key: value} if off(find(config, key)) else None


def _inside(change: Callable[[Config], Values | None]) -> Callable[[Config], Values | None]:
    """For what acts on the walk's graph, which a method at the side has none of."""
    return lambda config: change(config) if find(config, "model.segmenter.placement") == "inside" else None


def _is(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _trained_by(config: Config, method: str) -> bool:
    return str(find(config, "tuning._target_")).endswith(f".{method}")


def _to_side(config: Config) -> Values | None:
    """The one trained method that has this form is S4ECA."""
    inside = find(config, "model.segmenter.placement") == "inside"
    return {"model.segmenter.placement": "side"} if inside and _trained_by(config, "S4ECA") else None


def _to_fpn(config: Config) -> Values | None:
    return {"decoder": "fpn"} if str(find(config, "decoder._target_")).endswith(".LAVTDecoder") else None


def _to_cache(config: Config) -> Values | None:
    free = find(config, "model.segmenter.placement") == "side" and find(config, "model.feature_cache") is None
    return {"model.feature_cache": "FOLDER"} if free else None


def _more_workers(config: Config) -> Values | None:
    workers, most = find(config, "data.num_workers"), os.cpu_count() or 1
    return {"data.num_workers": min(max(2 * workers, 1), most)} if workers < most else None


def _fused(config: Config) -> Values | None:
    scaled = str(find(config, "trainer.precision")).startswith("16")  # whose gradients a fused optimiser cannot clip
    return {"model.fused_optimizer": True} if not scaled and find(config, "model.fused_optimizer") is False else None


def _smaller(batch: int) -> int | None:
    """Returns the largest part of a batch into which it divides; None for a single sample."""
    return max((size for size in range(1, batch) if batch % size == 0), default=None)


def _smaller_batch(config: Config) -> Values | None:
    size, accumulated = find(config, "data.batch_size"), find(config, "trainer.accumulate_grad_batches") or 1
    smaller = _smaller(size)
    if smaller is None:
        return None
    return {"data.batch_size": smaller, "trainer.accumulate_grad_batches": accumulated * size // smaller}


def _evaluated(config: Config) -> int:
    return find(config, "data.eval_batch_size") or find(config, "data.batch_size")


def _smaller_evaluation(config: Config) -> Values | None:
    smaller = _smaller(_evaluated(config))
    return None if smaller is None else {"data.eval_batch_size": smaller}


def _share(share: float) -> Callable[[Config], str]:
    return lambda _: f"{share:.0%} (measured with S4ECA)".replace("%", " %", 1)


def _part(batch: int) -> str:
    return f"{(_smaller(batch) or batch) / batch:.0%}".replace("%", " %")


_32 = _is("32-true", "32", 32)
_KEY = "model.segmenter"

CHECKPOINTING = Switch(
    _inside(_set(f"{_KEY}.grad_checkpointing", "block", _is("none"))), leaves=_share(BLOCK), same_run=True
)
BATCH = Switch(
    _smaller_batch, leaves=lambda config: _part(find(config, "data.batch_size")), note=" (the same effective batch)"
)
EVALUATION_BATCH = Switch(_smaller_evaluation, leaves=lambda config: _part(_evaluated(config)))
BF16 = Switch(
    _set("trainer.precision", "bf16-mixed", _32), (TEXT, VISION, FUSION, DECODER, BACKWARD), lambda _: HALF, True, True
)
SIDE_FORM = Switch(
    _to_side, (BACKWARD,), _share(SIDE), along={f"{_KEY}.compile": "none", f"{_KEY}.grad_checkpointing": "none"}
)
LIGHT_DECODER = Switch(_to_fpn, (DECODER, BACKWARD), _share(FPN))
LATER = Switch(
    _inside(_set(f"{_KEY}.start_stage", 3, lambda stage: type(stage) is int and stage < 3)),
    (METHOD, BACKWARD),
    leaves=_share(STAGE_3),
)

TRAINING_MEMORY = (CHECKPOINTING, BATCH, BF16, LIGHT_DECODER, LATER, SIDE_FORM)
"""The most effective first that changes nothing in the results."""

EVALUATION_MEMORY = (EVALUATION_BATCH, BF16)

TIME = (
    Switch(_set("data.cache", "FOLDER", _is(None)), (LOADER,)),
    Switch(_more_workers, (LOADER,)),
    Switch(_set("data.resize", "torch", _is("pil")), (LOADER,)),
    Switch(_set("data.pin_memory", True, _is(False)), (TRANSFER,), gpu=True),
    BF16,
    Switch(_set("vision.attention", "sdpa", _is("eager")), (VISION,)),
    Switch(_set(f"{_KEY}.tower_dtype", "bf16", _is("fp32")), (TEXT, VISION), gpu=True),
    Switch(_set(f"{_KEY}.compile", "block", _is("none")), (TEXT, VISION, METHOD)),
    Switch(_set(f"{_KEY}.encode_once", True, _is(False, None)), (TEXT, VISION)),
    Switch(_to_cache, (TEXT, VISION), along={f"{_KEY}.tower_dtype": "fp32"}),
    Switch(_set(f"{_KEY}.grad_checkpointing", "none", _is("block", "stage")), (BACKWARD, RECOMPUTED)),
    LIGHT_DECODER,
    Switch(_set(f"{_KEY}.channels_last", True, _is(False)), (DECODER,)),
    SIDE_FORM,
    LATER,
    Switch(_fused, (OPTIMIZER,)),
    Switch(_set("trainer.log_every_n_steps", 50, lambda steps: type(steps) is int and steps < 50), (CALLBACKS,)),
)
