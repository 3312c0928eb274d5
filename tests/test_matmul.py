import pytest
import torch

from s4eca.errors import S4ecaError
from s4eca.matmul import use_matmul_precision


def test_sets_what_torch_uses():
    before = torch.get_float32_matmul_precision()
    try:
        for name in ("high", "highest"):
            use_matmul_precision(name)
            assert torch.get_float32_matmul_precision() == name
        with pytest.raises(S4ecaError, match="matmul_precision=tf32 is none of highest, high, medium"):
            use_matmul_precision("tf32")
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
