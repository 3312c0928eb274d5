"""Loader workers: their errors and warnings are those of one process, and signals to all pass them by."""

import os
import signal
import subprocess
import time
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from s4eca.data.workers import Parcel, Unpacking, loading
from s4eca.errors import S4ecaError

SENTENCE = "The image of reference 3 in a b/3.jpg cannot be decoded: replace it."


class Numbers(Dataset):
    """Samples 0, 1, …; one of them misbehaves."""

    def __init__(self, length=8, at=None, how=None):
        self.length, self.at, self.how = length, at, how

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        if key == self.at:
            self.how()
        return key


def refuse():
    raise S4ecaError(SENTENCE)


def blunder():
    raise ValueError("a bug")


def loader(how=None, at=None, workers=2, collate=list, dataset=None):
    dataset = dataset or Numbers(at=at, how=how)
    return Unpacking(**loading(dataset, collate, workers, seed=0), batch_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_its_sentence_whatever_process_raised_it(workers):
    batches, got = iter(loader(refuse, 3, workers)), []
    with pytest.raises(S4ecaError) as error:
        got.extend(batches)
    assert str(error.value) == SENTENCE
    assert got == [[0, 1]]


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match=r"(?s)Traceback.*in blunder.*a bug"):
        list(loader(blunder, 3))


def test_an_error_of_the_collating_is_a_sentence_too():
    def collate(samples):
        return refuse()

    with pytest.raises(S4ecaError) as error:
        list(loader(collate=collate))
    assert str(error.value) == SENTENCE


class Warning8(Numbers):
    def __getitem__(self, key):
        warnings.warn("the cache is full.", stacklevel=1)
        return key


def test_a_warning_is_heard_once_and_here():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert [key for batch in loader(dataset=Warning8()) for key in batch] == list(range(8))
    assert [str(item.message) for item in caught] == ["the cache is full."]
    assert caught[0].category is UserWarning
    assert caught[0].filename == __file__


def test_a_parcel_is_pinned_by_what_it_holds():
    class Batch:
        def pin_memory(self):
            return "pinned"

    assert Parcel(Batch(), []).pin_memory().content == "pinned"
    assert Parcel([1], []).pin_memory().content == [1]


class Slow(Numbers):
    def __getitem__(self, key):
        time.sleep(0.1)
        return key


def test_signals_to_the_group_pass_workers_by_and_their_parent_ends_them():
    running = loader(dataset=Slow(length=12))
    batches = iter(running)
    first = next(batches)
    workers = list(running._iterator._workers)
    pids = [str(worker.pid) for worker in workers]
    for name in ("TERM", "INT", "USR1"):
        subprocess.run(["kill", f"-{name}", *pids], check=True)
    assert sum(batches, first) == list(range(12))
    assert all(worker.is_alive() for worker in workers)
    for worker in workers:
        worker.terminate()  # what PyTorch does with one that is stuck
        worker.join(timeout=20)
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_this_process_hears_signals_as_before():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        batches = iter(loader())
        os.kill(os.getpid(), signal.SIGUSR1)
        list(batches)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_tensors_travel_as_ever():
    (batch,) = Unpacking(**loading(Numbers(2), torch.tensor, 1, seed=0), batch_size=2)
    assert np.array_equal(batch.numpy(), [0, 1])
