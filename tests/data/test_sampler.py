import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from s4eca.data.sampler import EpochSampler, ResumableLoader
from s4eca.errors import S4ecaError


class Keys(Dataset):
    """Returns the key it was asked for."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        return torch.tensor(key)


def loader(sampler, workers, batch_size=3, kind=ResumableLoader):
    return kind(
        Keys(sampler.length),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),
    )


def batches(source):
    return [batch.tolist() for batch in source]


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = EpochSampler(50, seed, shuffle=True)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 3) == order(1, 3)
    assert {epoch for epoch, _ in order(1, 3)} == {3}
    assert sorted(index for _, index in order(1, 3)) == list(range(50))
    indices = {tuple(index for _, index in order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 3)}
    assert len(indices) == 6


def test_order_ignores_and_keeps_the_global_random_state():
    torch.manual_seed(0)
    first = list(EpochSampler(20, 5, shuffle=True))
    state = torch.get_rng_state()
    assert list(EpochSampler(20, 5, shuffle=True)) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_without_shuffling_the_order_is_the_datasets():
    sampler = EpochSampler(4)
    sampler.set_epoch(2)
    assert list(sampler) == [(2, 0), (2, 1), (2, 2), (2, 3)]


def test_lightning_sees_a_distributed_sampler():
    """Otherwise it wraps the sampler in one that repeats samples."""
    assert isinstance(EpochSampler(4), DistributedSampler)


@given(st.integers(1, 60), st.integers(1, 7), st.booleans(), st.booleans())
def test_shards(length, replicas, shuffle, even):
    samplers = [EpochSampler(length, 3, shuffle, replicas, rank, even) for rank in range(replicas)]
    shards = [[index for _, index in sampler] for sampler in samplers]
    seen = list(itertools.chain.from_iterable(shards))
    assert len(seen) == len(set(seen))
    assert [len(shard) for shard in shards] == [len(sampler) for sampler in samplers]
    if even:
        assert {len(shard) for shard in shards} == {length // replicas}
    else:
        assert sorted(seen) == list(range(length))
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("kind", [ResumableLoader, StatefulDataLoader])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("consumed", [1, 4, 6])
def test_resumes_inside_an_epoch(kind, workers, consumed):
    """Also with the order of calls that Lightning uses: load, open the iterator, and only then set the epoch."""
    first = loader(EpochSampler(20, 7, shuffle=True), workers, kind=kind)
    first.sampler.set_epoch(2)
    iterator = iter(first)
    seen = [next(iterator).tolist() for _ in range(consumed)]
    state = first.state_dict()
    rest = batches(iterator)
    first.sampler.set_epoch(3)
    following = batches(first)
    assert len(seen) + len(rest) == 6
    assert {epoch for batch in rest for epoch, _ in batch} <= {2}
    assert {epoch for batch in following for epoch, _ in batch} == {3}

    second = loader(EpochSampler(20, 7, shuffle=True), workers, kind=kind)
    second.load_state_dict(state)
    resumed = iter(second)
    second.sampler.set_epoch(2)
    assert batches(resumed) == rest
    second.sampler.set_epoch(3)
    assert batches(second) == following
    second.sampler.set_epoch(2)
    assert batches(second) == seen + rest


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_twice(workers):
    whole = loader(EpochSampler(20, 7, shuffle=True), workers)
    expected = batches(whole)
    state = None
    seen = []
    for count in (1, 2, 3):
        part = loader(EpochSampler(20, 7, shuffle=True), workers)
        if state is not None:
            part.load_state_dict(state)
        iterator = iter(part)
        seen += [next(iterator).tolist() for _ in range(count)]
        state = part.state_dict()
    assert seen == expected


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 1)])
def test_the_number_of_workers_and_the_batch_size_may_change(before, after):
    first = loader(EpochSampler(20, 7, shuffle=True), before)
    whole = [key for batch in batches(loader(EpochSampler(20, 7, shuffle=True), 0, batch_size=1)) for key in batch]
    iterator = iter(first)
    seen = [key for _ in range(2) for key in next(iterator).tolist()]
    second = loader(EpochSampler(20, 7, shuffle=True), after, batch_size=2)
    second.load_state_dict(first.state_dict())
    assert seen + [key for batch in batches(second) for key in batch] == whole


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("consumed", [2, 6])
def test_another_epoch_starts_at_its_beginning(workers, consumed):
    """Lightning resumes a checkpoint of an epoch's last batch in the next epoch, with the iterator opened before."""
    first = loader(EpochSampler(20, 7, shuffle=True), workers)
    iterator = iter(first)
    for _ in range(consumed):
        next(iterator)
    second = loader(EpochSampler(20, 7, shuffle=True), workers)
    second.load_state_dict(first.state_dict())
    resumed = iter(second)
    second.sampler.set_epoch(1)
    first.sampler.set_epoch(1)
    assert batches(resumed) == batches(first)


@pytest.mark.parametrize("workers", [0, 2])
def test_state_before_the_first_batch(workers):
    first = loader(EpochSampler(20, 7, shuffle=True), workers)
    first.sampler.set_epoch(3)
    assert first.state_dict()["epoch"] == 3
    assert first.state_dict()["position"] == 0
    first.load_state_dict({**first.state_dict(), "position": 6})
    assert first.state_dict()["position"] == 6
    second = loader(EpochSampler(20, 7, shuffle=True), workers)
    second.load_state_dict(first.state_dict())
    assert len(batches(second)) == 4
    first.load_state_dict(second.state_dict())
    assert batches(first) == []  # all of this epoch has been seen


def test_the_epoch_comes_from_the_state():
    first = EpochSampler(10, 1, shuffle=True)
    first.set_epoch(4)
    iterator = iter(first)
    next(iterator)
    second = EpochSampler(10, 1, shuffle=True)
    resumed = iter(second)
    resumed.load_state_dict(iterator.state_dict())
    assert list(resumed) == list(first)[1:]
    assert second.epoch == 4


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (EpochSampler(21, 7, shuffle=True), "length=20.*length=21"),
        (EpochSampler(20, 8, shuffle=True), "seed=7.*seed=8"),
        (EpochSampler(20, 7, shuffle=True, num_replicas=2), "num_replicas=1.*num_replicas=2"),
        (EpochSampler(20, 7), "shuffle=True.*shuffle=False"),
    ],
)
def test_a_state_of_another_order_is_refused(other, named):
    state = iter(EpochSampler(20, 7, shuffle=True)).state_dict()
    with pytest.raises(S4ecaError, match=named):
        iter(other).load_state_dict(state)
    with pytest.raises(S4ecaError, match=named):
        loader(other, 0).load_state_dict(state)


@pytest.mark.parametrize(("length", "replicas", "block"), [(20, 2, 16), (7, 2, 2), (9, 3, 2), (5, 4, 3), (4, 2, 4)])
def test_blocks_make_the_batches_of_one_process(length, replicas, block):
    """What all processes load in batches of `block` is what one process loads, batch for batch."""
    alone = [list(range(start, min(start + block, length))) for start in range(0, length, block)]
    together = []
    for rank in range(replicas):
        sampler = EpochSampler(length, num_replicas=replicas, rank=rank, block=block)
        order = sampler.order(0)
        assert len(order) == len(sampler)
        together += [order[start : start + block] for start in range(0, len(order), block)]
    assert sorted(together) == alone
