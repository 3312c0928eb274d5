"""How the report says things: numbers as the field prints them, facts about a run, what a protocol compares."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s4eca.evaluation.about import FOR_PROGRAMS, name_backbone, stated_backbones
from s4eca.evaluation.tables.rates import find_rate, tell_choice

NOTHING = "\N{EN DASH}"

_SIZES = {
    "lavt": "compared at the network's input size, the truth resized to it with PIL's nearest",
    "original": "compared at the original image's size, to which the logits are resized",
    "detris": "compared at the original image's size, to which the probabilities are resized; above 0.35 is the mask",
}
_RULES = {
    "lavt": "A hit at X is IoU ≥ X; IoU is I / U, 0 where the union is empty (LAVT, RMSIN).",
    "original": "A hit at X is IoU ≥ X; IoU is I / U, 0 where the union is empty.",
    "detris": "A hit at X is IoU > X, X in float32; IoU is I / (U + 1e-6) (CRIS, ETRIS, DETRIS).",
}

# with a place of their own on the page, or for programs
_TITLE = ("dataset", "split", "name", "command", "notes", "cost", "lr_choice", *FOR_PROGRAMS)
_LABELS = {
    "tuning": "Tuning method",
    "backbones": "Backbones",
    "fusion": "Fusion",
    "decoder": "Decoder",
    "refine": "Refinement",
    "loss": "Loss",
    "trained_on": "Trained on",
    "training_data": "Training data",
    "checkpoint": "Checkpoint",
    "selected_by": "Checkpoint chosen by",
    "predictions": "Predictions",
    "expressions": "Expressions",
    "learned_parameters": "Trainable parameters",
    "method_share": "Method's share of the towers",
    "lr": "Learning rate",
    "seed": "Seed",
    "image_size": "Image size",
    "resize": "Resizing",
    "depth": "Bits in use of the images' samples",
    "max_tokens": "Tokens per expression",
    "precision": "Precision",
    "data": "Data fingerprint",
    "versions": "Versions",
}


@dataclass(frozen=True)
class Fact:
    """A line about what was evaluated."""

    label: str
    value: str


def percent(value: float | None) -> str:
    """Returns a fraction in percent with two decimals; a dash where there is no value."""
    return NOTHING if value is None or math.isnan(value) else f"{value * 100:.2f}"


def count(value: float | None) -> str:
    """Returns a count with thousands separators; a dash where there is no value."""
    return NOTHING if value is None or math.isnan(value) else f"{value:,.0f}"


def span(interval: Sequence[float | None] | None) -> str | None:
    """Returns an interval of fractions as `LOW–HIGH` in percent, None where there is none."""
    if interval is None or any(end is None or math.isnan(end) for end in interval):
        return None
    return "\N{EN DASH}".join(percent(end) for end in interval)


def headline(about: Mapping[str, Any]) -> str:
    """Returns dataset and split."""
    return " ".join(str(about[key]) for key in ("dataset", "split") if about.get(key)) or "Evaluation"


def list_facts(about: Mapping[str, Any]) -> list[Fact]:
    """Returns what `about` holds beside title and command: known keys first, then all others under their own name."""
    known = [key for key in _LABELS if key in about]
    others = [key for key in about if key not in _LABELS and key not in _TITLE]
    facts = []
    for key in [*known, *others]:
        if key == "backbones":
            facts += [Fact(_role(role), _backbone(base)) for role, base in stated_backbones(about).items()]
        elif key == "lr":
            facts.append(Fact(_LABELS[key], ", ".join(filter(None, (find_rate(about), tell_choice(about)))) or NOTHING))
        else:
            facts.append(Fact(_LABELS.get(key, _spoken(key)), _value(about[key], key)))
    return facts


def _role(role: str) -> str:
    return f"{_spoken(role)} backbone" if role in ("vision", "text") else _spoken(role)


def _backbone(base: Mapping[str, Any]) -> str:
    options = base.get("options")
    return name_backbone(base) + _hash(base) + (f"; {_value(options)}" if options else "")


def explain(protocol: str, about: Mapping[str, Any]) -> str:
    """Returns one line on what a protocol compares; `about["notes"]` says it for masks made elsewhere."""
    stated = about.get("notes")
    given = stated.get(protocol) if isinstance(stated, Mapping) else None
    what = given or _SIZES.get(protocol, "")
    what = what[:1].upper() + what[1:]
    return " ".join(f"{part.rstrip('.')}." for part in (what, _RULES.get(protocol)) if part)


def _hash(value: Mapping[str, Any]) -> str:
    sha256 = value.get("sha256")
    return f", sha256 {sha256[:12]}" if isinstance(sha256, str) else ""


def _spoken(key: str) -> str:
    words = key.replace("_", " ")
    return words[:1].upper() + words[1:]


def _value(value: Any, key: str = "") -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "method_share":
        return f"{percent(value)} %"
    if key == "image_size" and isinstance(value, int):
        return f"{value} px"
    if isinstance(value, int):
        return str(value) if "seed" in key else f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping) and isinstance(value.get("count"), int) and value.get("sha256"):
        share = f"{100 * value['share']:g} % of the images of " if "share" in value else ""
        return f"{share}{value['count']:,} samples{_hash(value)}"
    if isinstance(value, Mapping) and value.get("name"):
        rest = {name: item for name, item in value.items() if name not in ("name", "sha256")}
        return str(value["name"]) + _hash(value) + (f" ({_value(rest)})" if rest else "")
    if isinstance(value, Mapping):
        return "; ".join(f"{_spoken(str(name)).lower()} {_value(item, str(name))}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_value(item) for item in value)
    return str(value)
