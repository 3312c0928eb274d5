"""The order of samples, a function of (seed, epoch), and the loader that resumes in it after any batch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from s4eca.data.references import Batch
from s4eca.data.workers import Unpacking
from s4eca.errors import S4ecaError

Key = tuple[int, int]


class EpochSampler(DistributedSampler[Key]):
    """Yields keys (epoch, index), so that a worker knows the epoch without holding state.

    It is a `DistributedSampler` because Lightning then leaves it in place instead of wrapping it in one that pads.

    Args:
        length: number of samples in the dataset.
        seed: of the order, together with the epoch.
        shuffle: whether the order changes; without it, it is 0, 1, 2, ….
        num_replicas: number of processes that share the dataset.
        rank: this process; it takes every `num_replicas`-th sample of the common order.
        even: give every process the same number of samples by leaving out up to `num_replicas - 1` at the end of the
            epoch's order, as training needs it. Without it nothing is left out or repeated, as evaluation needs it.
        block: samples that are dealt to a process together. With the batch size, every batch of several processes is
            one that a single process would see too, so that results cannot differ by how samples are batched.
    """

    def __init__(
        self,
        length: int,
        seed: int = 0,
        shuffle: bool = False,
        num_replicas: int = 1,
        rank: int = 0,
        even: bool = False,
        block: int = 1,
    ) -> None:
        super().__init__(range(length), num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.length = length
        self.even = even
        self.block = block
        self.start = 0  # where iterators opened from now on begin

    def order(self, epoch: int) -> list[int]:
        """Returns the indices this process sees in `epoch`."""
        if self.shuffle:
            common = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        else:
            common = np.arange(self.length)
        if self.even:
            common = common[: self.length // self.num_replicas * self.num_replicas]
        starts = range(self.rank * self.block, len(common), self.num_replicas * self.block)
        return [int(index) for start in starts for index in common[start : start + self.block]]

    def __len__(self) -> int:
        if self.even:
            return self.length // self.num_replicas
        starts = range(self.rank * self.block, self.length, self.num_replicas * self.block)
        return sum(min(self.block, self.length - start) for start in starts)

    def __iter__(self) -> "EpochIterator":
        return EpochIterator(self)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of iterators opened from now on; Lightning calls this before each epoch."""
        self.epoch = epoch

    def state(self, epoch: int, position: int) -> dict[str, Any]:
        """Returns a place in the order, together with what the order depends on."""
        return {
            "epoch": epoch,
            "position": position,
            "length": self.length,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "num_replicas": self.num_replicas,
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """Raises `S4ecaError` where a state belongs to another order than this one."""
        for name, value in self.state(state["epoch"], state["position"]).items():
            if state[name] != value:
                raise S4ecaError(
                    f"The checkpoint was written in the middle of an epoch with {name}={state[name]}, this run has"
                    f" {name}={value}: resume with the same data, seed and number of processes."
                )


class EpochIterator(Iterator[Key]):
    """One pass over an `EpochSampler`; torchdata asks for its state with every batch that it prefetches."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler
        self.epoch = sampler.epoch
        self.position = sampler.start
        self._order = sampler.order(self.epoch)

    def __next__(self) -> Key:
        if self.position >= len(self._order):
            raise StopIteration
        index = self._order[self.position]
        self.position += 1
        return self.epoch, index

    def state_dict(self) -> dict[str, Any]:
        """Returns the epoch, the number of samples handed out, and what the order depends on."""
        return self.sampler.state(self.epoch, self.position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues after the last sample handed out; raises `S4ecaError` for the state of another order."""
        self.sampler.check_state(state)
        self.sampler.set_epoch(state["epoch"])
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self.sampler.order(self.epoch)


class ResumableLoader(Unpacking, StatefulDataLoader):
    """torchdata's loader over an `EpochSampler`, with a state that is nothing but the place in the order.

    torchdata counts what has been handed out, not what workers have prefetched; its own state, though, is tied to the
    number of workers, and restored at the end of an epoch it yields an empty epoch: Lightning opens the iterator of a
    resumed run before it sets the epoch. So the state here is the sampler's alone, and nothing is opened before the
    first batch is asked for. If the epoch was set to another one by then, the state has served its turn and that epoch
    starts at its beginning.
    """

    _iterator: Any
    _resume: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yields the rest of the epoch that was loaded, or the epoch that the sampler is set to."""
        sampler = self.sampler
        if isinstance(sampler, EpochSampler):
            if self._resume is not None and self._resume["epoch"] == sampler.epoch:
                sampler.start = self._resume["position"]
            self._resume = None
            iterator = super().__iter__()
            sampler.start = 0
        else:  # Lightning puts in a plain sampler for overfit_batches
            iterator = super().__iter__()
        yield from iterator

    def state_dict(self) -> dict[str, Any]:
        """Returns the place after the last batch handed out."""
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):
            return {}
        if self._resume is not None:
            return self._resume
        if self._iterator is None:
            return sampler.state(sampler.epoch, 0)
        state = super().state_dict()
        main = state["_snapshot"]["_main_snapshot"] if self.num_workers else state
        return main["_sampler_iter_state"]["sampler_iter_state"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues at the place in `state_dict`, with any number of workers and any batch size.

        Raises:
            S4ecaError: the state belongs to another order (dataset size, seed or number of processes).
        """
        sampler = self.sampler
        if state_dict and isinstance(sampler, EpochSampler):
            sampler.check_state(state_dict)
            sampler.set_epoch(state_dict["epoch"])
            self._iterator = None
            self._resume = dict(state_dict)
