import random

import numpy as np
import torch

from s4eca.lit import RandomState


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_continues_every_generator(tmp_path):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    np.random.randn()  # leaves a cached Gaussian behind
    torch.save(RandomState().state_dict(), tmp_path / "state")
    wanted = [*draw(), np.random.randn()]
    unchanged = random.getstate()
    callback = RandomState()
    callback.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert random.getstate() == unchanged, "only the first batch restores"
    callback.on_train_batch_start(None, None, None, 0)
    assert [*draw(), np.random.randn()] == wanted
    following = draw()
    callback.on_train_batch_start(None, None, None, 1)
    assert draw() != following, "later batches leave the generators alone"


def test_what_is_not_yet_restored_is_saved_as_it_is():
    callback = RandomState()
    random.seed(4)
    state = callback.state_dict()
    random.seed(5)
    callback.load_state_dict(state)
    assert callback.state_dict() is state, "a run that is stopped again before its first batch"
    callback.on_train_batch_start(None, None, None, 0)
    random.random()
    assert callback.state_dict()["python"] != state["python"]
