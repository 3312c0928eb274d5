"""Which switch exists for the part that takes the most time; what it brings is for the next profile to say."""

from collections.abc import Callable, Mapping
from typing import Any

from s4eca.profiling.parts import (
    BACKWARD,
    CACHE,
    CALLBACKS,
    DECODER,
    FUSION,
    LOADER,
    LOSS,
    METHOD,
    OPTIMIZER,
    RECOMPUTED,
    REST,
    TEXT,
    TRANSFER,
    VISION,
)
from s4eca.profiling.report import Report

# an override, and whether the key's value means that it is not switched on yet
Switch = tuple[str, Callable[[Any], bool]]


def _is(*off: Any) -> Callable[[Any], bool]:
    return lambda value: value in off


_BF16: Switch = ("trainer.precision=bf16-mixed", _is("32-true", "32", 32))
_DTYPE: Switch = ("model.segmenter.tower_dtype=bf16", _is("fp32"))
_SDPA: Switch = ("vision.attention=sdpa", _is("eager"))
_COMPILE: Switch = ("model.segmenter.compile=block", _is("none"))
_SIDE: Switch = ("model.segmenter.placement=side", _is("inside"))
_CACHE: Switch = ("model.feature_cache=FOLDER", _is(None))
_ONCE: Switch = ("model.segmenter.encode_once=true", _is(False, None))
_FEWER: Switch = ("model.segmenter.grad_checkpointing=none", _is("block", "stage"))
_LATER: Switch = ("model.segmenter.start_stage=3", _is(1))
_FPN: Switch = ("decoder=fpn", _is("s4eca.decoders.LAVTDecoder", "s4eca.decoders.lavt.LAVTDecoder"))
_LAST: Switch = ("model.segmenter.channels_last=true", _is(False))

_SWITCHES: dict[str, tuple[Switch, ...]] = {
    LOADER: (
        ("data.cache=FOLDER", _is(None)),
        ("data.num_workers=N", lambda value: isinstance(value, int)),
        ("data.resize=torch", _is("pil")),
    ),
    TRANSFER: (("data.pin_memory=true", _is(False)),),
    CACHE: (),
    TEXT: (_ONCE, _BF16, _DTYPE, _COMPILE, _CACHE),
    VISION: (_BF16, _SDPA, _DTYPE, _COMPILE, _ONCE, _CACHE),
    METHOD: (_COMPILE, _LATER),
    FUSION: (_BF16,),
    DECODER: (_FPN, _LAST, _BF16),
    LOSS: (),
    BACKWARD: (_BF16, _FEWER, _FPN, _SIDE, _LATER),
    RECOMPUTED: (_FEWER,),
    OPTIMIZER: (("model.fused_optimizer=true", _is(False)),),
    CALLBACKS: (("trainer.log_every_n_steps=50", lambda value: isinstance(value, int) and value < 50),),
    REST: (),
}


def advice(report: Report, config: Mapping[str, Any]) -> str:
    """Returns one sentence: the largest part, and the switches of this config that act on it and are off.

    Args:
        report: of the profile.
        config: resolved config of the run.
    """
    part = report.largest
    found = [override for override, off in _SWITCHES[part] if _fits(override, off, config, report)]
    first = f"The largest part is the {part}, {100 * report.share(part):.0f} % of the step"
    if not found:
        return f"{first}; no switch of this config acts on it that is not on already."
    return f"{first}; what acts on it and is off: {', '.join(found)}. Profile again with it to see what it brings."


def _fits(override: str, off: Callable[[Any], bool], config: Mapping[str, Any], report: Report) -> bool:
    key = override.partition("=")[0]
    if key == "decoder":
        key = "decoder._target_"
    value: Any = config
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    if not off(value):
        return False
    gpu = report.gpu_peak is not None
    if override in ("trainer.precision=bf16-mixed", "data.pin_memory=true", _DTYPE[0]):  # for GPUs
        return gpu and (override != _DTYPE[0] or report.precision == "bf16-mixed")
    if override == _SIDE[0]:  # only two methods have a side form
        return report.method in ("s4eca", "frozen")
    if override == _CACHE[0]:
        return report.placement == "side"
    if override in (_COMPILE[0], _LATER[0]):  # at the side nothing is walked with a graph
        return report.placement == "inside"
    return True
