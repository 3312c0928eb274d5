import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4eca.errors import S4ecaError
from s4eca.tuning import DETRIS, ETRIS, S4ECA, Bottleneck, DeepPrompts, Frozen, Mona
from s4eca.tuning.base import Scope, evenly_spread
from s4eca.tuning.s4eca import TextSettings, VisualSettings
from tiny import tiny_text, tiny_vision
from tuning.methods import METHODS


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


def test_the_methods_with_a_side_form_are_those_that_the_refusal_names():
    methods = [case.method() for case in METHODS.values() if case.every]
    assert {method.name for method in methods if method.capabilities.side} == {"s4eca", "frozen"}


@pytest.mark.parametrize("start", [0, 5, 2.5, True])
def test_a_start_stage_that_is_none_is_refused(start):
    with pytest.raises(S4ecaError, match=r"start_stage=.*give a whole number from 1 to 4"):
        Frozen().attach(tiny_text(), tiny_vision(), Scope(start_stage=start))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ETRIS(dropout=1.5), r"tuning\.dropout=1\.5 must be a share"),
        (lambda: ETRIS(heads=0), r"tuning\.heads=0 must be a whole number"),
        (lambda: DETRIS(dropout=1.0), r"tuning\.dropout=1\.0 must be a share"),
        (lambda: Bottleneck(width=0), r"tuning\.width=0 must be a whole number"),
        (lambda: Mona(width=8.5), r"tuning\.width=8\.5 must be a whole number"),
        (lambda: DeepPrompts(tokens=2.5), r"tuning\.tokens=2\.5 must be a whole number"),
        (lambda: S4ECA(visual=VisualSettings(width=0)), r"tuning\.visual\.width=0 must be a whole number"),
        (lambda: S4ECA(TextSettings(proxies=0)), r"tuning\.text\.proxies=0 must be a whole number"),
        (lambda: S4ECA(TextSettings(dropout=1)), r"tuning\.text\.dropout=1 must be a share"),
    ],
)
def test_impossible_numbers_are_refused(build, message):
    with pytest.raises(S4ecaError, match=message):
        build()


def test_an_unsupported_family_is_refused_by_name():
    from s4eca.tuning.base import Capabilities

    method = Frozen()
    method.capabilities = Capabilities(language=False, families=frozenset({"bert", "convnext"}))
    with pytest.raises(S4ecaError, match=r"tuning=frozen does not fit swin towers, only bert, convnext"):
        method.attach(tiny_text(), tiny_vision())
