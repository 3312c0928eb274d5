"""A loader's worker processes: what goes wrong in them is heard as from the main process, and signals pass them by."""

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from s4eca.errors import S4ecaError
from s4eca.stopping import CAUGHT

Collate = Callable[[list[Any]], Any]

_warned: dict[Any, Any] = {}  # so that what several workers warn of is printed once, as in one process


@dataclass(frozen=True)
class Parcel:
    """What a worker sends.

    An exception would come with its traceback in its message, since PyTorch has nothing else to send it by, and a
    warning would be printed by every worker anew.

    Attributes:
        content: a batch, or the `S4ecaError` that came in its place.
        warnings: message, category, file and line of what was warned of meanwhile.
    """

    content: Any
    warnings: list[tuple[str, type[Warning], str, int]]

    @classmethod
    def pack(cls, load: Callable[[], Any]) -> "Parcel":
        """Loads, and keeps what goes wrong; an error that is not for the user stays PyTorch's to send."""
        with warnings.catch_warnings(record=True) as caught:
            try:
                content = load()
            except S4ecaError as error:
                content = S4ecaError(str(error))
        return cls(content, [(str(item.message), item.category, item.filename, item.lineno) for item in caught])

    def unpack(self) -> Any:
        """Warns and raises as if the batch had been loaded here, and returns it."""
        for message, category, file, line in self.warnings:
            warnings.warn_explicit(message, category, file, line, registry=_warned)
        if isinstance(self.content, S4ecaError):
            raise self.content
        return self.content

    def pin_memory(self) -> "Parcel":
        """Returns it with its batch in page-locked memory; PyTorch's loaders call this."""
        pinned = getattr(self.content, "pin_memory", None)
        return self if pinned is None else replace(self, content=pinned())


class Packing(Dataset[Any]):
    """A dataset whose batches come as parcels where a worker loads them.

    Args:
        dataset: with a length.
        collate: makes a batch of a list of its samples.
    """

    def __init__(self, dataset: Dataset[Any], collate: Collate) -> None:
        self.dataset, self.collate = dataset, collate

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        """Returns a sample."""
        return self.dataset[key]

    def __getitems__(self, keys: Sequence[Any]) -> Any:
        """Returns samples, for the loader to collate them; in a worker the batch's parcel."""
        if get_worker_info() is None:
            return [self.dataset[key] for key in keys]
        return Parcel.pack(lambda: self.collate([self.dataset[key] for key in keys]))


class Unpacking(DataLoader):
    """Opens the parcels of its workers, which no signal ends that is sent to all processes of a run alike."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yields batches; opens the iterator at once, as a loader does."""
        with _held():
            batches = super().__iter__()
        return map(_unpacked, batches)


def loading(dataset: Dataset[Any], collate: Collate, num_workers: int, seed: int) -> dict[str, Any]:
    """Returns the arguments that make an `Unpacking` loader of a dataset."""
    return {
        "dataset": Packing(dataset, collate),
        "collate_fn": partial(_collated, collate),
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "worker_init_fn": _start_worker,
        # its own, so that opening an iterator leaves the global random state alone
        "generator": torch.Generator().manual_seed(seed),
    }


def _collated(collate: Collate, samples: Any) -> Any:
    return samples if isinstance(samples, Parcel) else collate(samples)


def _unpacked(batch: Any) -> Any:
    return batch.unpack() if isinstance(batch, Parcel) else batch


def _start_worker(worker_id: int) -> None:  # noqa: ARG001
    import cv2

    # the workers are the parallelism; more threads in each would only wait for one another
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)  # held since the fork; not where workers are spawned
    threading.Thread(target=_listen, daemon=True).start()


def _listen() -> None:
    """Ends a worker where its parent terminates it, as PyTorch does with one that is stuck at the end.

    `timeout`, `scancel`, a terminal and a container send a signal to all processes of a run. The main process alone
    decides then: it may need a last batch, and a worker that died would be an error to it. Where the parent is killed
    itself, PyTorch's workers notice within seconds.
    """
    while True:
        told = signal.sigwaitinfo(CAUGHT)
        if told.si_signo == signal.SIGTERM and told.si_pid == os.getppid():
            os._exit(0)


@contextmanager
def _held() -> Iterator[None]:
    """Holds signals back in what is forked meanwhile; here one is handled a moment later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
