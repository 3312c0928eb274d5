from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from s4eca.data.references import Batch
from s4eca.evaluation.results import Evaluation, SampleInfo


def build(
    masks: torch.Tensor,
    original_masks: Sequence[torch.Tensor] | None = None,
    index: Sequence[int] | None = None,
    categories: Sequence[str | None] | None = None,
    no_target: Sequence[bool] | None = None,
) -> Batch:
    """A batch around masks (B, H, W); the original masks are the same ones unless given."""
    masks = torch.as_tensor(masks, dtype=torch.bool)
    n = len(masks)
    originals = list(masks) if original_masks is None else [mask.bool() for mask in original_masks]
    return Batch(
        index=torch.tensor(range(n) if index is None else index),
        image=torch.zeros(n, 3, *masks.shape[1:], dtype=torch.uint8),
        input_ids=torch.zeros(n, 4, dtype=torch.int64),
        attention_mask=torch.ones(n, 4, dtype=torch.int64),
        mask=masks,
        ids=[f"sample-{i}" for i in range(n)],
        expressions=["the gray ship on the lower left"] * n,
        categories=[None] * n if categories is None else list(categories),
        original_sizes=[tuple(mask.shape) for mask in originals] or [tuple(masks.shape[1:])] * n,
        no_target=[False] * n if no_target is None else list(no_target),
        original_masks=originals,
    )


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    return build


def build_counted(
    counts: Sequence[tuple[int, int, int]],
    images: Sequence[str] | None = None,
    categories: Sequence[str | None] | None = None,
    no_target: Sequence[bool] | None = None,
    areas: Sequence[int] | None = None,
    size: tuple[int, int] = (100, 100),
    protocols: Sequence[str] = ("original",),
    **about: Any,
) -> Evaluation:
    """An evaluation of (intersection, union, truth area) per sample, the same under every protocol."""
    n = len(counts)
    categories = [None] * n if categories is None else list(categories)
    no_target = [False] * n if no_target is None else list(no_target)
    areas = [area for _, _, area in counts] if areas is None else list(areas)
    images = [f"{i:05}.jpg" for i in range(n)] if images is None else list(images)
    samples = [
        SampleInfo(f"id-{i}", images[i], f"expression {i}", categories[i], no_target[i], size, areas[i])
        for i in range(n)
    ]
    names = sorted({name for name in categories if name is not None})
    rows = np.zeros((n, 6), np.int64)
    rows[:, 0] = range(n)
    rows[:, 1:4] = np.array(counts).reshape(n, 3)
    rows[:, 4] = [-1 if name is None else names.index(name) for name in categories]
    rows[:, 5] = no_target
    about = {"dataset": "rrsis_d", "split": "test", "name": "run", "seed": 1, **about}
    return Evaluation(about, samples, {protocol: rows.copy() for protocol in protocols})


@pytest.fixture(scope="session")
def evaluation_of() -> Callable[..., Evaluation]:
    return build_counted
