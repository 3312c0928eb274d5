"""What the `about` of an evaluation says about its numbers, and in what two of them differ."""

from collections.abc import Mapping
from typing import Any

from s4eca.identity import differing

SAME = (
    *("tuning", "fusion", "decoder", "refine", "loss", "training_data", "trained_on", "init_from", "config"),
    "merged_from",
    *("learned_parameters", "placement", "selected_by", "recipe", "parts"),
    *("expressions", "image_size", "resize", "max_tokens", "precision", "data", "at"),
)
"""Entries in which evaluations must agree, beside their backbones, to be taken for seeds; what they cost is none."""

FOR_PROGRAMS = ("config", "parts")
"""Entries that hold all settings; what a reader asks for first stands beside them."""

UNSTATED = "backbone not stated"

_OURS = ("tuning", "recipe", "checkpoint")  # what an evaluation of ours has always said
_NAMES = {"config": "", "parts": "", "data": "evaluated data", "selected_by": "checkpoint chosen by"}
_LENGTH, _TOLD = 60, 4  # characters of a value, differences of a list


def is_shuffled(about: Mapping[str, Any]) -> bool:
    """Returns whether the images were given other samples' expressions."""
    return about.get("expressions", "real") != "real"


def approximated(about: Mapping[str, Any], protocol: str) -> str | None:
    """Returns what stands for a protocol where masks that others made cannot be scored exactly by it, else None."""
    notes = about.get("notes")
    exact = {"input": "lavt", "original": "original"}.get(str(about.get("at"))) == protocol
    return str(notes[protocol]) if isinstance(notes, Mapping) and protocol in notes and not exact else None


def lacks_identity(about: Mapping[str, Any]) -> bool:
    """Whether an evaluation of ours was written before these said what made them: it may be of any backbone."""
    return not stated_backbones(about) and "predictions" not in about and any(entry in about for entry in _OURS)


def stated_backbones(about: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Returns the models that the numbers stand on, by what they are for; none where that is not stated."""
    backbones = about.get("backbones")
    if not isinstance(backbones, Mapping):
        return {}
    return {str(role): base for role, base in backbones.items() if isinstance(base, Mapping) and base.get("name")}


def name_weights(base: Mapping[str, Any]) -> str:
    """Returns where a backbone's weights are from: the hub, a file or folder, or its random ones by their seed."""
    source = str(base.get("source") or "hub")
    if source.startswith("random:"):
        return f"random weights of seed {source.partition(':')[2]}"
    return source.rpartition("/")[2]


def name_backbone(base: Mapping[str, Any]) -> str:
    """Returns a backbone's name and where its weights are from, where that is not the hub's own place for it."""
    weights = name_weights(base)
    return str(base["name"]) if weights == "hub" else f"{base['name']} ({weights})"


def name_backbones(about: Mapping[str, Any]) -> str:
    """Returns the names of all backbones, each once, or that they are not stated."""
    return " and ".join(dict.fromkeys(map(name_backbone, stated_backbones(about).values()))) or UNSTATED


def list_entries(about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what made the numbers but the seed, as plain values by name; runs that share it are seeds of one another.

    What has a hash is that hash: where weights were read from makes no difference.
    """
    return {entry: compared for entry, (compared, _) in _entries(about).items()}


def list_differences(*abouts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the entries in which what made some evaluations differs, in words: for each the value of every one.

    Of what an earlier version has written, the entries that all state are compared, and that backbones are not stated.
    """
    listed = [_entries(about) for about in abouts]
    compared = [{key: value for key, (value, _) in entries.items()} for entries in listed]
    keys = dict.fromkeys(key for entries in compared for key in differing(compared[0], entries))
    if len({lacks_identity(about) for about in abouts}) > 1:
        common = {key: [entries[key][1] for entries in listed] for key in keys if all(key in item for item in listed)}
        return {"backbones": [name_backbones(about) for about in abouts], **common}
    return {key: [entries[key][1] if key in entries else "not stated" for entries in listed] for key in keys}


def tell_differences(differences: Mapping[str, list[str]]) -> str:
    """Returns differences as a list in words, the first few of them."""
    told = [f"{entry} ({'; '.join(dict.fromkeys(values))})" for entry, values in differences.items()]
    return ", ".join(told[:_TOLD]) + (f", and {len(told) - _TOLD} more" if len(told) > _TOLD else "")


def _entries(about: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Returns for each entry what is compared, and how it is shown."""
    found: dict[str, tuple[Any, str]] = {}
    for role, base in stated_backbones(about).items():
        name = f"{role} backbone" if role in ("vision", "text") else role
        # one and the same file may be of two architectures, which differ in their activation
        found[name] = [base["name"], base.get("sha256")], name_backbone(base) + _short(base.get("sha256"))
        if base.get("tokenizer"):
            found[f"{role} tokenizer"] = base["tokenizer"], _short(base["tokenizer"]).strip()
    for entry in SAME:
        value, name = about.get(entry), _NAMES.get(entry, entry.replace("_", " "))
        if entry == "config" and isinstance(value, Mapping):
            value = {key: item for key, item in value.items() if not _is_told(key, about)}
        if isinstance(value, Mapping):
            found |= _flat(value, name)
        elif value is not None:
            found[name] = value, _text(value)
    if lacks_identity(about) and about.get("checkpoint") is not None:
        found["checkpoint"] = about["checkpoint"], _text(about["checkpoint"])
    return found


def _is_told(key: str, about: Mapping[str, Any]) -> bool:
    """Whether an entry of its own says what a key of the config does."""
    group, _, name = key.partition(".")
    if group in ("vision", "text") and name in ("_target_", "name"):
        return group in stated_backbones(about)
    return group in ("fusion", "decoder", "refine", "loss") and group in about


def _flat(value: Mapping[str, Any], entry: str) -> dict[str, tuple[Any, str]]:
    """Returns a mapping's values by names with dots in them; data with a hash are that hash."""
    if value.get("sha256"):
        count = f"{value['count']:,} samples" if isinstance(value.get("count"), int) else _text(value.get("name"))
        return {entry: (value["sha256"], count + _short(value["sha256"]))}
    found: dict[str, tuple[Any, str]] = {}
    for name, item in value.items():
        # the name of a part stands for it
        key = entry if name == "name" and entry else f"{entry}.{name}" if entry else str(name)
        found |= _flat(item, key) if isinstance(item, Mapping) else {key: (item, _text(item))}
    return found


def _short(sha256: Any) -> str:
    return f" [{sha256[:12]}]" if isinstance(sha256, str) else ""


def _text(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"
