"""How processes agree; two of them are in test_distributed.py."""

import torch
import torch.distributed as dist
from lightning import Trainer

from forked import in_two
from s4eca.lit.agreement import AnyWishes, EpochLoop

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
