"""Trying many settings of a selector on evidence that was gathered once."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s4eca.dgl_rsis.base import Selector
from s4eca.dgl_rsis.parts import Evidence
from s4eca.errors import S4ecaError


@dataclass(frozen=True)
class Trial:
    """One combination of settings and what it scored at the size of the model's input.

    Attributes:
        settings: those that were tried.
        miou: mean over the samples, a fraction.
        oiou: ΣI / ΣU, a fraction.
        fallbacks: how many samples had one.
    """

    settings: Mapping[str, Any]
    miou: float
    oiou: float
    fallbacks: int


def combine(space: Mapping[str, Sequence[Any]], selector: Selector) -> list[tuple[dict[str, Any], Selector]]:
    """Returns all combinations of settings, each with its selector.

    Args:
        space: values to try of some of the selector's fields; the others stay as they are.
        selector: a dataclass.

    Raises:
        S4ecaError: a field that the selector does not have, no values, or a value that it refuses.
    """
    known = [field.name for field in dataclasses.fields(selector)]  # type: ignore[arg-type]
    for name, values in space.items():
        if name not in known:
            raise S4ecaError(f"space.{name} is no setting of the selector; it has {', '.join(known)}.")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise S4ecaError(f"space.{name}={values} is no list of values; write space.{name}=[A,B].")
    if not space:
        raise S4ecaError("the space is empty; name settings to try, as space.alpha=[0.4,0.6].")
    combinations = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    return [(chosen, dataclasses.replace(selector, **chosen)) for chosen in combinations]  # type: ignore[type-var]


def try_all(
    combinations: Sequence[tuple[Mapping[str, Any], Selector]], samples: Iterable[tuple[Evidence, np.ndarray]]
) -> list[Trial]:
    """Scores every combination on every sample, one sample at a time, and returns the trials, the best first.

    Args:
        combinations: what `combine` gave.
        samples: evidence and truth (H, W) bool of each; samples with an empty truth have no IoU and are passed over.

    Raises:
        S4ecaError: no sample has a truth.
    """
    intersections: list[list[int]] = []
    unions: list[list[int]] = []
    fallbacks = np.zeros(len(combinations), np.int64)
    for evidence, truth in samples:
        area = int(truth.sum())
        if not area:
            continue
        selections = [selector.select(evidence) for _, selector in combinations]
        shared = [int(np.count_nonzero(selection.mask & truth)) for selection in selections]
        intersections.append(shared)
        unions.append(
            [
                int(np.count_nonzero(selection.mask)) + area - both
                for selection, both in zip(selections, shared, strict=True)
            ]
        )
        fallbacks += [selection.fallback is not None for selection in selections]
    if not intersections:
        raise S4ecaError("no sample of the split has a truth to compare with; sweep on another split.")
    inter, union = np.array(intersections, np.float64), np.array(unions, np.float64)
    miou, oiou = (inter / union).mean(axis=0), inter.sum(axis=0) / union.sum(axis=0)
    trials = [
        Trial(settings, float(miou[place]), float(oiou[place]), int(fallbacks[place]))
        for place, (settings, _) in enumerate(combinations)
    ]
    return sorted(trials, key=lambda trial: (-trial.miou, -trial.oiou))
