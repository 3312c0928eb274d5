"""The demo's promise, in full; half an hour on two cores."""

import json

import pytest

from runs import evaluate, train

pytestmark = [pytest.mark.system, pytest.mark.slow]


def miou(folder) -> float:
    return json.loads((folder / "metrics.json").read_text())["protocols"]["lavt"]["mIoU"]


def test_over_three_seeds_the_words_are_used(tmp_path):
    train("-m", "seed=1,2,3", "experiment=demo", "hydra.sweep.dir=sweep", cwd=tmp_path, timeout=7200)
    for job in range(3):
        ckpt = f"ckpt=sweep/{job}/checkpoints/best.ckpt"
        evaluate(ckpt, "split=val", f"out=real_{job}", "pictures=0", cwd=tmp_path)
        evaluate(ckpt, "split=val", f"out=shuffled_{job}", "pictures=0", "shuffle_expressions=true", cwd=tmp_path)
        assert miou(tmp_path / f"real_{job}") >= 0.50
        assert miou(tmp_path / f"shuffled_{job}") <= 0.5 * miou(tmp_path / f"real_{job}")
