import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4eca.errors import S4ecaError
from s4eca.tuning.base import evenly_spread
from s4eca.tuning.frozen import Frozen
from tiny import tiny_text, tiny_vision


@pytest.mark.parametrize(
    ("share", "depth", "blocks"),
    [
        (1.0, 2, [0, 1]),
        (0.5, 12, [1, 3, 5, 7, 9, 11]),
        (0.5, 18, [1, 3, 5, 7, 9, 11, 13, 15, 17]),
        (5 / 9, 18, [1, 3, 5, 7, 8, 10, 12, 14, 16, 17]),
        (0.5556, 18, [1, 3, 5, 7, 8, 10, 12, 14, 16, 17]),
        (0.01, 6, [5]),
        (0.0, 6, []),
        (0.5, 1, [0]),
    ],
)
def test_evenly_spread_by_hand(share, depth, blocks):
    assert evenly_spread(share, depth) == blocks


@given(st.floats(0.001, 1), st.integers(1, 48))
def test_evenly_spread_ends_with_the_last_and_has_even_gaps(share, depth):
    blocks = evenly_spread(share, depth)
    assert len(blocks) == max(1, round(share * depth))
    assert blocks[-1] == depth - 1
    gaps = [b - a for a, b in zip([-1, *blocks], blocks, strict=False)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_density_is_a_share(share):
    with pytest.raises(S4ecaError, match="between 0 and 1"):
        evenly_spread(share, 4)


def test_an_unsupported_family_is_refused_by_name():
    from s4eca.tuning.base import Capabilities

    method = Frozen()
    method.capabilities = Capabilities(language=False, families=frozenset({"bert", "convnext"}))
    with pytest.raises(S4ecaError, match=r"tuning=frozen does not fit swin towers, only bert, convnext"):
        method.attach(tiny_text(), tiny_vision())
