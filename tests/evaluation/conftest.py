from collections.abc import Callable, Sequence

import pytest
import torch

from s4eca.data.references import Batch


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
