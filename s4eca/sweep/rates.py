"""Learning rates of a comparison's rows: chosen on the validation split, kept in a file, read by the comparison.

A file has a line per row of `conf/comparison`, `ROW: {lr: …, val: {RATE: SCORE, …}, by: …}`, and one for `default`;
`val` and `by` are missing where the rate is stated and was not chosen.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s4eca.errors import S4ecaError

DEFAULT = "default"
HEADER = """\
# Learning rates of a comparison's rows, for lr_from=THIS FILE; written by s4eca rates. Each is the best of `val` on the
# validation split, by what `by` says; where there is no `val`, the rate is stated and was not chosen.
"""


def rate_of(source: str, row: str, shipped: Path) -> dict[str, Any]:
    """Returns what a file says of a row: `lr`, `val` and `by`, the last two None where it was not chosen.

    Args:
        source: name of a file in `shipped`, or a path that ends in .yaml.
        row: name of a row of the comparison; one that the file does not have gets the default.
        shipped: `conf/rates`.

    Raises:
        S4ecaError: no such file, or no file of rates.
    """
    entries = read_rates(Path(source) if source.endswith((".yaml", ".yml")) else shipped / f"{source}.yaml")
    entry = entries.get(row) or entries.get(DEFAULT)
    if entry is None:
        raise S4ecaError(f"lr_from={source} has no learning rate of {row} and no default; add a line to it.")
    return {"lr": entry["lr"], "val": entry.get("val"), "by": entry.get("by")}


def read_rates(path: Path) -> dict[str, dict[str, Any]]:
    """Reads a file of rates.

    Raises:
        S4ecaError: it is not there, or is none.
    """
    if not path.is_file():
        raise S4ecaError(f"lr_from: there is no {path}; s4eca rates FOLDER --out FILE.yaml writes one.")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise S4ecaError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}.") from error
    rows = content if isinstance(content, dict) else {}
    wrong = [str(row) for row, entry in rows.items() if not (isinstance(entry, dict) and _is_rate(entry.get("lr")))]
    if wrong or not rows:
        raise S4ecaError(
            f"{path} holds no learning rates ({', '.join(wrong) or 'it is empty'}): a line is ROW: {{lr: 1e-4}}."
        )
    return {str(row): entry for row, entry in rows.items()}


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def at_edge(entry: Mapping[str, Any]) -> str | None:
    """Returns `smallest` or `largest` where that one of the tried rates was chosen, None where it lies between."""
    rates = sorted(map(float, entry["val"]))
    # as written in the file
    place = rates.index(float(f"{entry['lr']:g}"))
    return {0: "smallest", len(rates) - 1: "largest"}.get(place)


def written(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the text of a file of rates."""
    lines = "\n".join(f"{row}: {json.dumps(dict(entry))}" for row, entry in entries.items())
    return f"{HEADER}{lines}\n"
