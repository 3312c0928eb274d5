"""What runs cost, as columns of a comparison table: budget, learned parameters, memory, time."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

COSTS = {
    "percent": "% of towers",
    "learned": "learned M",
    "kept": "kept MiB/sample",
    "peak": "peak GiB",
    "step": "step ms",
}
"""Key and heading of every cost.

percent: the method's learned parameters by the towers' parameters, as `s4eca.parameters.method_share`, in percent.
learned: everything learned, the head (norms, fusion, decoder) included, in millions.
kept: bytes that a whole training step keeps for its backward pass, by the samples in the batch, in MiB.
peak: most memory in use on a GPU at once, in GiB; no value on a CPU.
step: median time of a training step, in milliseconds.
"""

EQUAL_OVER_SEEDS = ("percent", "learned")

HOW = (
    "a training run measures it (cost.json in its run folder) and eval.py writes it beside the scores: evaluate the"
    " checkpoint where the run has left it"
)

_MIB, _GIB = 2**20, 2**30


def find_cost_problem(about: Mapping[str, Any]) -> str | None:
    """Says what is wrong with what an evaluation says of cost; None where it is in order or says nothing."""
    share, learned, cost = (about.get(key) for key in ("method_share", "learned_parameters", "cost"))
    if share is not None and not _is_amount(share):
        return f"has method_share = {share!r} instead of a fraction"
    if learned is not None and not (isinstance(learned, Mapping) and all(map(_is_amount, learned.values()))):
        return f"has learned_parameters = {learned!r} instead of counts"
    if cost is None:
        return None
    if not isinstance(cost, Mapping):
        return f"has cost = {cost!r} instead of an object"
    for entry, value, needed in (
        ("saved_bytes.step", _within(cost, "saved_bytes", "step"), True),
        ("peak_bytes", cost.get("peak_bytes"), False),
        ("step_seconds.median", _within(cost, "step_seconds", "median"), False),
    ):
        if not _is_amount(value) and (needed or value is not None):
            return f"has cost.{entry} = {value!r} instead of an amount"
    size = cost.get("batch_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        return f"has cost.batch_size = {size!r} instead of a count"
    return None


def read_costs(about: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the value of each of `COSTS`, None where there is none."""
    share, learned, cost = (about.get(key) for key in ("method_share", "learned_parameters", "cost"))
    values: dict[str, float | None] = dict.fromkeys(COSTS)
    values["percent"] = None if share is None else 100 * share
    values["learned"] = None if learned is None else sum(learned.values()) / 1e6
    if cost is not None:
        peak, median = cost.get("peak_bytes"), _within(cost, "step_seconds", "median")
        values["kept"] = cost["saved_bytes"]["step"] / cost["batch_size"] / _MIB
        values["peak"] = None if peak is None else peak / _GIB
        values["step"] = None if median is None else 1000 * median
    return values


def spread_costs(abouts: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float | None] | None]:
    """Returns mean and sample deviation of each of `COSTS` over the seeds that have a value.

    The deviation is None for a single value and for what does not depend on the seed.
    """
    read = [read_costs(about) for about in abouts]
    spreads: dict[str, tuple[float, float | None] | None] = {}
    for key in COSTS:
        known = [value for values in read if (value := values[key]) is not None]
        varies = len(known) > 1 and key not in EQUAL_OVER_SEEDS
        spreads[key] = (statistics.fmean(known), statistics.stdev(known) if varies else None) if known else None
    return spreads


def cost_notes(labels: Sequence[str], groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Says what the costs mean, where and with which batches they were measured, and for which rows they were not.

    Args:
        labels: names of the rows.
        groups: for each row what its evaluations say of themselves, `about`.
    """
    settings: dict[str, list[str]] = {}
    without: list[str] = []
    for label, abouts in zip(labels, groups, strict=True):
        missing = sum(about.get("cost") is None for about in abouts)
        if missing:
            without.append(label if missing == len(abouts) else f"{label} ({missing} of {len(abouts)} seeds)")
        for setting in find_settings(abouts):
            settings.setdefault(setting, []).append(label)
    notes = ["% of towers: the method's learned parameters by the towers' parameters; learned: those of the head too."]
    if settings:
        notes.append(
            "Kept: what a training step keeps for its backward pass, by sample. Step: median time of a training batch"
            " from when it is on the device until after the optimiser, loading left out."
        )
    if len(settings) == 1:
        notes.append(f"Memory and time of all rows: {next(iter(settings))}.")
    elif settings:
        listed = "; ".join(f"{setting}: {', '.join(named)}" for setting, named in settings.items())
        notes.append(
            "Memory and time were not measured alike, and only rows of the same device, precision and batch size"
            f" compare. {listed}."
        )
    if without:
        notes.append(f"Without memory and time: {', '.join(without)}; {HOW}.")
    return notes


def find_settings(abouts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what costs were measured with, in words and each once: device, precision, batch size and more."""
    settings = []
    for cost in (about.get("cost") for about in abouts):
        if cost is not None:
            known = (str(cost.get(key) or f"{key} not recorded") for key in ("device", "precision"))
            words = [*known, f"batch size {cost['batch_size']}"]
            words += [f"{cost['processes']} processes"] if cost.get("processes", 1) != 1 else []
            words += ["features from disk"] if cost.get("feature_cache") else []
            recomputed = cost.get("grad_checkpointing", "none")
            words += [f"activations recomputed per {recomputed}"] if recomputed != "none" else []
            settings.append(", ".join(words))
    return list(dict.fromkeys(settings))


def format_cost(value: float, deviation: float | None, spread: str = "{}±{}") -> str:
    """Writes a value with three significant digits or all of its whole ones, the deviation to the same place."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value else 0
    mean = f"{value:.{digits}f}"
    return mean if deviation is None else spread.format(mean, f"{deviation:.{digits}f}")


def _within(cost: Mapping[str, Any], *keys: str) -> Any:
    node: Any = cost
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
