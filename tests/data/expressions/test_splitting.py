from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4eca.data.expressions.splitting import natural, split_names
from s4eca.errors import S4ecaError


def test_numbers_in_names_count():
    names = ["a10.jpg", "a2.jpg", "b1.jpg", "a02.jpg", "10", "9"]
    assert sorted(names, key=natural) == ["9", "10", "a2.jpg", "a02.jpg", "a10.jpg", "b1.jpg"]


@given(st.integers(3, 200), st.integers(1, 9), st.integers(0, 5), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_blocks_of_neighbours_in_three_splits(count, block, seed, val, test):
    names = [f"{number}.jpg" for number in range(count)]
    blocks = -(-count // block)
    try:
        splits = split_names(names[::-1], seed, block, val, test)
    except S4ecaError:
        assert max(1, round(val * blocks)) + max(1, round(test * blocks)) >= blocks
        return
    assert set(splits) == set(names)
    sizes = Counter()
    for start in range(0, count, block):
        (split,) = {splits[name] for name in names[start : start + block]}
        sizes[split] += 1
    assert sizes["val"] == max(1, round(val * blocks))
    assert sizes["test"] == max(1, round(test * blocks))
    assert sizes["train"] >= 1
    assert splits == split_names(names, seed, block, val, test)


def test_the_seed_decides():
    names = [str(number) for number in range(100)]
    assert split_names(names, 0, 5, 0.2, 0.2) != split_names(names, 1, 5, 0.2, 0.2)


def test_too_few_images():
    with pytest.raises(S4ecaError, match="2 images in blocks of 1 make 2 blocks, too few for three splits"):
        split_names(["a", "b"], 0, 1, 0.1, 0.1)
