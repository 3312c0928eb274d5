"""How exactly fp32 matrices are multiplied."""

import torch

from s4eca.errors import S4ecaError

PRECISIONS = ("highest", "high", "medium")


def use_matmul_precision(name: str) -> None:
    """Sets the precision of fp32 matrix products in this process.

    Args:
        name: `highest` for all 24 bits of fp32; `high` lets GPUs that have it use TF32 (11 bits), `medium` bf16 (8
            bits). Products under autocast are not concerned.

    Raises:
        S4ecaError: another name.
    """
    if name not in PRECISIONS:
        raise S4ecaError(f"matmul_precision={name} is none of {', '.join(PRECISIONS)}.")
    torch.set_float32_matmul_precision(name)
