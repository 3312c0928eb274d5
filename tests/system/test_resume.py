"""A killed run, resumed from its last checkpoint, ends with the same bits as one that was never killed."""

import csv
import signal

import pytest
import torch

from runs import TINY, train, train_until

pytestmark = pytest.mark.system

STEPS = 14  # 6 batches an epoch, so that all three epochs are cut
RUN = [
    *TINY,
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=5",
    "trainer.log_every_n_steps=1",
    "callbacks.last.every_n_train_steps=1",
    "callbacks.pictures.limit=0",
    "tuning.text.dropout=0.2",
    "tuning.visual.dropout=0.2",
    "data.train=24",
    "data.val=4",
    "data.test=4",
    "data.scene_size=64",
    "data.batch_size=4",
    "data.num_workers=2",
    "data.augmentation.brightness=0.2",
    "data.augmentation.noise=0.05",
]


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    train(*RUN, "hydra.run.dir=run", cwd=folder)
    assert last(folder / "run")["global_step"] == STEPS
    return folder, last(folder / "run")["state_dict"]


def kill_and_resume(folder, data, sent, row):
    """Kills a run when its metrics.csv reaches a row and resumes it; returns the step it had reached, and its end."""
    log, checkpoint = folder / "run" / "metrics.csv", folder / "run" / "checkpoints" / "last.ckpt"

    def ready() -> bool:
        return checkpoint.exists() and len(log.read_text().splitlines()) > row

    status = train_until(ready, sent, *RUN, f"data.root={data}", "hydra.run.dir=run", cwd=folder)
    if sent == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 128 + sent
        printed = (folder / "killed.log").read_text()
        assert f"at step {last(folder / 'run')['global_step']}; go on with: python train.py resume=run" in printed
        assert "Traceback" not in printed
    reached, before = last(folder / "run")["global_step"], log.read_text()
    assert "Traceback" not in train("resume=run", cwd=folder)
    return reached, before, last(folder / "run")


def check(unbroken, folder, sent, row):
    source, wanted = unbroken
    reached, before, end = kill_and_resume(folder, source / "data" / "synthetic", sent, row)
    assert 0 < reached < STEPS
    assert end["global_step"] == STEPS
    assert [name for name in wanted if not torch.equal(wanted[name], end["state_dict"][name])] == []
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > len(before.splitlines()) - 1, "the log goes on, and nothing of it is lost"
    assert float(rows[-1]["step"]) >= STEPS - 1
    return reached


@pytest.mark.parametrize(
    ("sent", "row"), [(signal.SIGKILL, 4), (signal.SIGTERM, 9), (signal.SIGUSR1, 7), (signal.SIGINT, 6)]
)
def test_killed_and_resumed_with_two_workers(unbroken, tmp_path, sent, row):
    check(unbroken, tmp_path, sent, row)


@pytest.mark.slow
@pytest.mark.parametrize("point", range(20))
def test_killed_and_resumed_at_twenty_points(unbroken, tmp_path, point):
    check(unbroken, tmp_path, (signal.SIGKILL, signal.SIGTERM)[point % 2], 3 + point)
