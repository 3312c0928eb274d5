from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4eca.data.masks import FileMask
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError
from s4eca.evaluation.shuffle import shuffle_expressions


def references(count: int) -> list[Reference]:
    return [
        Reference(str(n), Path(f"{n}.png"), f"expression {n}", "val", None, FileMask(Path("m")), kind=str(n))
        for n in range(count)
    ]


@given(st.integers(2, 60), st.integers(0, 1000))
def test_everybody_gets_somebody_elses_expression(count, seed):
    before = references(count)
    after = shuffle_expressions(before, seed)
    assert [item.image for item in after] == [item.image for item in before]
    assert sorted(item.expression for item in after) == sorted(item.expression for item in before)
    assert all(item.expression == f"expression {item.kind}" for item in after)
    assert all(a.expression != b.expression for a, b in zip(after, before, strict=True))


def test_depends_on_the_seed_alone():
    assert shuffle_expressions(references(20), 3) == shuffle_expressions(references(20), 3)
    assert shuffle_expressions(references(20), 3) != shuffle_expressions(references(20), 4)


def test_needs_two():
    with pytest.raises(S4ecaError, match="two samples or more"):
        shuffle_expressions(references(1))
