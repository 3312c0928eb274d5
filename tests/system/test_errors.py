"""What goes wrong at the command line: one sentence, status 2, nothing lost."""

import pytest

from runs import TINY, evaluate, run, train

pytestmark = pytest.mark.system


def sentence(printed: str) -> str:
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=rrsis_d", "data.root=nowhere"], "nowhere"),
        (["tuning=frozen"], "brings no language into the image"),
        (["tuning.visual.kernels=[3]"], "tuning.visual.scale=uniform"),
        (["init_from=nowhere.ckpt"], "there is no checkpoint at nowhere.ckpt"),
        (["resume=nowhere"], "resume=nowhere is not a folder"),
        (["callbacks.best.monitor=test/mIoU"], "selects on the test split"),
        (["vision=swin_base"], "could not be fetched from the hub"),
        (["loss.bce_weight=heavy"], "loss"),
    ],
)
def test_training_says_what_is_wrong(tmp_path, overrides, message):
    drawn = ["data.train=4", "data.val=2", "data.test=2", "data.scene_size=64", "data.batch_size=2"]
    drawn = [] if overrides[0].startswith("data=") else drawn
    tiny = [item for item in TINY if not (overrides[0] == "vision=swin_base" and item.startswith("vision."))]
    printed = train(*tiny, *drawn, *overrides, "hydra.run.dir=run", cwd=tmp_path, expect=2)
    assert message in sentence(printed)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_unknown_key_is_named_and_nothing_starts(tmp_path):
    printed = train("experiment=demo", "modle.lr=1", cwd=tmp_path, expect=1)
    assert "modle" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "data").exists()


def test_a_sweep_over_many_gpus_is_refused(tmp_path):
    printed = train("-m", "seed=1,2", *TINY, "trainer.accelerator=gpu", "trainer.devices=2", cwd=tmp_path, expect=2)
    assert "trainer.devices=1, or start one run per job" in sentence(printed)


def test_evaluation_says_what_is_wrong(tmp_path):
    assert "there is no checkpoint at nowhere.ckpt" in sentence(evaluate("ckpt=nowhere.ckpt", cwd=tmp_path, expect=2))
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    assert "cannot be read as a checkpoint" in sentence(evaluate("ckpt=broken.ckpt", cwd=tmp_path, expect=2))


def test_data_commands_say_what_is_wrong(tmp_path):
    printed = run("-m", "s4eca", "data", "synthesize", "out", "--layout", "cityscapes", cwd=tmp_path, expect=2)
    assert "cityscapes" in sentence(printed)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    sentence(run("-m", "s4eca", "data", "synthesize", "out", cwd=tmp_path, expect=2))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
