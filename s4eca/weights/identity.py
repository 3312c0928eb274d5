"""The identity of weights: what a checkpoint and a cache know frozen weights by."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BaseWeights:
    """Identity of a model's weights.

    Attributes:
        name: the architecture's name at its library.
        source: `hub`, `hf:OWNER/REPO/FILE`, `random:SEED`, or the last part of the local path.
        sha256: over names, shapes and values, taken in the precision they were loaded in.
    """

    name: str
    source: str
    sha256: str

    def to_dict(self) -> dict[str, str]:
        """Returns plain strings, as they are stored in a checkpoint."""
        return asdict(self)


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of named tensors, independent of their order and device; of the meta device's the shapes'."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel() and not tensor.is_meta:
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
