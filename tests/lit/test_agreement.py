"""How processes agree; two of them are in test_distributed.py."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning import Trainer

from forked import in_two
from s4eca.errors import S4ecaError
from s4eca.lit.agreement import FAILED, AnyWishes, EpochLoop, failing_as_one

CPU = torch.device("cpu")


def test_the_loop_takes_the_limits_of_the_one_it_replaces():
    trainer = Trainer(min_steps=2, max_steps=5, logger=False, accelerator="cpu", enable_checkpointing=False)
    EpochLoop.install(trainer)
    assert isinstance(trainer.fit_loop.epoch_loop, EpochLoop)
    assert (trainer.min_steps, trainer.max_steps) == (2, 5)


def ask(rank: int, port: int) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    any_wishes = AnyWishes()
    assert not any_wishes.wait(), "nothing was asked yet"
    said = [any_wishes.ask(wish, CPU) for wish in (False, rank == 0, rank == 1, False, False)]
    assert said == [False, False, True, True, False], "the answer to the call before"
    any_wishes.ask(rank == 1, CPU)
    assert any_wishes.wait()
    dist.destroy_process_group()


def test_what_one_process_wishes_all_know_at_the_next_call():
    in_two(ask, timeout=60)


@pytest.mark.parametrize("several", [True, False])
def test_one_process_says_what_is_wrong_and_the_others_end_alike(tmp_path, several):
    first, second = (SimpleNamespace(world_size=1 + several, is_global_zero=zero) for zero in (True, False))
    with pytest.raises(S4ecaError, match="damaged"), failing_as_one(second, tmp_path):
        raise S4ecaError("the image is damaged.")

    @contextmanager
    def running():
        """The first process, which has begun before the other failed."""
        note = tmp_path / FAILED
        there = note.exists()
        with failing_as_one(first, tmp_path):
            assert not note.exists(), "nothing is left of an earlier start"
            if there:
                note.touch()
            yield

    with pytest.raises(SystemExit if several else RuntimeError) as ended, running():
        raise RuntimeError("Connection closed by peer")
    if several:
        assert ended.value.code == 2


def test_a_bug_of_one_process_stays_one(tmp_path):
    with (
        pytest.raises(RuntimeError, match="shapes"),
        failing_as_one(SimpleNamespace(world_size=2, is_global_zero=True), tmp_path),
    ):
        raise RuntimeError("shapes do not fit")
    assert list(tmp_path.iterdir()) == []
