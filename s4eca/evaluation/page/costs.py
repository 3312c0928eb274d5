"""What a training took, as lines of the report in people's units."""

import math
from collections.abc import Mapping
from typing import Any

from s4eca.evaluation.page.wording import Fact


def list_costs(about: Mapping[str, Any]) -> list[Fact]:
    """Returns what `cost.json` holds in words, see `s4eca.lit.cost`; what was not measured is left out."""
    cost = about.get("cost")
    if not isinstance(cost, Mapping):
        return []
    parameters, saved, seconds = (cost.get(key) or {} for key in ("parameters", "saved_bytes", "step_seconds"))
    step, batch, percent = (_known(value) for value in (saved.get("step"), cost.get("batch_size"), cost.get("percent")))
    kept = None if step is None or not batch else step / batch
    median, q1, q3 = (_known(seconds.get(key)) for key in ("median", "q1", "q3"))
    peak, waited = _known(cost.get("peak_bytes")), _known(cost.get("data_wait"))
    share = "" if percent is None else f", {percent:.2f} % of the backbones"
    half = "" if q1 is None or q3 is None else f", half of the steps within {_duration(q1)} to {_duration(q3)}"
    lines = {
        "Backbones": _parameters(parameters.get("towers")),
        "Learned by the method": _parameters(parameters.get("method"), share),
        "Learned by norms, fusion and decoder": _parameters(parameters.get("head")),
        "Kept for the backward pass": None if kept is None else f"{_bytes(kept)} per sample",
        "Peak memory of the GPU": None if peak is None else _bytes(peak),
        "Time per step": None if median is None else f"{_duration(median)}{half}",
        "Waiting for data": None if waited is None else f"{100 * waited:.0f} % of the time",
        "Measured with": _setting(cost),
    }
    return [Fact(label, value) for label, value in lines.items() if value]


def _setting(cost: Mapping[str, Any]) -> str:
    words = [str(cost[key]) for key in ("device", "precision") if cost.get(key)]
    words += [f"batch size {cost['batch_size']}"] if cost.get("batch_size") else []
    words += [f"{cost['processes']} processes"] if cost.get("processes", 1) != 1 else []
    words += ["features of the backbones from disk"] if cost.get("feature_cache") else []
    if cost.get("grad_checkpointing", "none") != "none":
        words.append(f"activations recomputed per {cost['grad_checkpointing']}")
    return ", ".join(words)


def _known(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not math.isnan(value) else None


def _parameters(value: Any, more: str = "") -> str | None:
    known = _known(value)
    if known is None:
        return None
    return f"{known:,.0f}{more}" if known < 10_000 else f"{known / 1e6:,.2f} M{more}"


def _bytes(value: float) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.3g} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
