from collections import namedtuple
from errno import ENOSPC
from pathlib import Path

import pytest
import torch

from s4eca.checkpoint import META, SELECTED_BY, read_checkpoint
from s4eca.checkpoint_io import MARGIN, AtomicCheckpointIO, stored_bytes
from s4eca.errors import S4ecaError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    return path


def test_bytes_are_those_of_the_storages():
    whole = torch.zeros(100, 10)  # 4000 bytes
    content = {"a": whole, "b": [whole[:2], whole.T], "c": ({"d": torch.zeros(3, dtype=torch.int64)}, 7, "text")}
    assert stored_bytes(content) == 4000 + 24


@pytest.mark.parametrize(("room", "fits"), [(0, True), (-1, False)])
def test_space_is_looked_for_before_anything_is_written(saved, monkeypatch, room, fits):
    content = {"step": 2, "weights": torch.zeros(2**20)}
    free = 4 * 2**20 + MARGIN + room
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(free, 0, free))
    if fits:
        AtomicCheckpointIO().save_checkpoint(content, saved)
    else:
        with pytest.raises(S4ecaError, match=r"last\.ckpt needs .* are free, the earlier one is kept; make room"):
            AtomicCheckpointIO().save_checkpoint(content, saved)
    assert torch.load(saved, weights_only=True)["step"] == (2 if fits else 1)
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("error", [OSError(ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_failed_write_leaves_the_old_checkpoint(saved, monkeypatch, error):
    def half(checkpoint, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr("torch.save", half)
    with pytest.raises(S4ecaError, match=r"could not be written \((No space|unexpected pos).*the earlier one is kept"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, saved)
    assert torch.load(saved, weights_only=True) == {"step": 1}
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_the_new_one_is_on_the_disk_before_the_old_one_goes(saved, monkeypatch):
    order = []
    monkeypatch.setattr("os.fsync", lambda descriptor: order.append(torch.load(saved, weights_only=True)["step"]))
    AtomicCheckpointIO().save_checkpoint({"step": 2}, saved)
    assert order == [1, 2]  # the file while the old one is in place, the folder when the new one is


def test_what_a_killed_run_has_left_is_replaced(saved):
    (saved.parent / ".last.ckpt.partial").write_bytes(b"half")
    AtomicCheckpointIO().save_checkpoint({"step": 2}, saved)
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_a_file_says_which_score_chose_it(tmp_path):
    best = str(tmp_path / "a name of its own.ckpt")
    states = {
        "best": {"monitor": "val/mIoU", "best_model_path": best},
        "last": {"monitor": None, "best_model_path": str(tmp_path / "last.ckpt")},
        "ema": {"decay": 0.9},
    }
    content = {META: {}, "state_dict": {}, "callbacks": states}
    for name, score in ((best, "val/mIoU"), (tmp_path / "last.ckpt", None), (tmp_path / "other.ckpt", None)):
        AtomicCheckpointIO().save_checkpoint(content, name)
        moved = Path(name).rename(tmp_path / "moved.ckpt")
        assert read_checkpoint(moved).meta == {SELECTED_BY: score}
    assert content[META] == {}
