"""Evaluations out of random numbers, for tests of what is made from them."""

from collections.abc import Sequence

import numpy as np

from s4eca.evaluation.results import Evaluation, SampleInfo

CATEGORIES = (
    "Expressway-Service-area", "Expressway-toll-station", "airplane", "airport", "baseballfield", "basketballcourt",
    "bridge", "chimney", "dam", "golffield", "groundtrackfield", "harbor", "overpass", "ship", "stadium", "storagetank",
    "tenniscourt", "trainstation", "vehicle", "windmill",
)  # fmt: skip


def make_evaluation(
    count: int,
    categories: Sequence[str] = CATEGORIES,
    empty: int = 0,
    no_target: int = 0,
    protocols: Sequence[str] = ("lavt", "original", "detris"),
    side: int = 100,
    **about,
) -> Evaluation:
    """Random pixels for `count` samples with a target, and then for some with an empty truth or without a target."""
    rng = np.random.default_rng(count)
    total = count + empty + no_target
    codes = rng.integers(0, len(categories), total) if categories else np.full(total, -1)
    names = [categories[code] if code >= 0 else None for code in codes]
    used = sorted({name for name in names if name is not None})
    area = np.where(np.arange(total) < count, np.int64(side**2 * rng.uniform(0.0005, 0.3, total)), 0)
    nothing = np.arange(total) >= count + empty
    samples = [
        SampleInfo(
            f"{place:05d}", f"{place // 2:05d}.jpg", f"the {names[place] or 'thing'} number {place}", names[place],
            bool(nothing[place]), (side, side), int(area[place]),
        )
        for place in range(total)
    ]  # fmt: skip
    rows = {}
    for number, protocol in enumerate(protocols):
        quality = np.clip(rng.beta(4, 1.5, total) + 0.02 * number, 0, 1)
        intersection = np.int64(area * quality)
        union = (
            area + np.int64(area * (1 - quality) * rng.uniform(0, 1, total)) + (area == 0) * rng.integers(0, 2, total)
        )
        content = np.zeros((total, 6), np.int64)
        content[:, 0], content[:, 1], content[:, 2], content[:, 3] = np.arange(total), intersection, union, area
        content[:, 4] = [-1 if name is None else used.index(name) for name in names]
        content[:, 5] = nothing
        rows[protocol] = content
    given = {"dataset": "RRSIS-D", "split": "test", "name": "a run", "seed": 3, "image_size": 480}
    return Evaluation(given | about, samples, rows)
