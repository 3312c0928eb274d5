"""What goes wrong at the command line: one sentence, status 2, nothing lost."""

import shlex

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from layouts import write_jsonl
from runs import TINY, composed, evaluate, evaluate_here, train
from s4eca.cli.main import app
from s4eca.cli.training import train as run_training
from s4eca.errors import S4ecaError

pytestmark = pytest.mark.system


def sentence(printed: str) -> str:
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    return line


DRAWN = ["data.train=4", "data.val=2", "data.test=2", "data.scene_size=64", "data.batch_size=2", "data.num_workers=0"]


def test_a_training_that_cannot_start_is_one_sentence(tmp_path):
    printed = train("data.root=nowhere", "hydra.run.dir=run", cwd=tmp_path, expect=2)
    assert "nowhere" in sentence(printed)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"train.log"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tuning=frozen", "vision=swin_demo"], "brings no language into the image"),
        (["tuning.visual.kernels=[3]"], r"tuning\.visual\.scale=uniform"),
        (["init_from=nowhere.ckpt"], r"there is no checkpoint at nowhere\.ckpt"),
        (["callbacks.best.monitor=test/mIoU"], "selects on the test split"),
        (["vision=swin_base"], "could not be fetched from the hub"),
        (["text=bert_base"], "could not be fetched from the hub"),
        (["data.batch_size=64"], r"lower data\.batch_size"),
        (["data.layout=cityscapes"], "cityscapes"),
        (["trainer.max_steps=-1"], r"trainer\.max_epochs or trainer\.max_steps"),
        (["evaluate=train"], "evaluate=train is no split"),
        (["budget=0.001"], r"budget=0\.001 cannot be met within 5 % by tuning=s4eca"),
        (["tuning=bitfit", "fusion=film", "budget=2"], "tuning=bitfit has no width"),
        (["tuning=lora", "fusion=film", "tuning.vision_layers=[fc9]"], r"'fc9'.*mlp\.fc1"),
        (["tuning=lora", "fusion=film", "model.segmenter.placement=side"], "tuning=lora has no side form, only s4eca"),
        (["tuning=prompt", "fusion=film", "tuning.vision=true"], r"swin has attention inside windows.*tuning\.vision"),
        (["model.feature_cache=features"], r"set model\.segmenter\.placement=side"),
        (["model.segmenter.start_stage=9"], "start_stage=9, and the vision tower has 4 stages"),
    ],
)
def test_training_says_what_is_wrong_before_it_starts(tmp_path, overrides, message):
    changed = {item.partition("=")[0] for item in overrides}
    tiny = [item for item in TINY if item.partition(".")[0] not in changed]
    config = composed(*tiny, *DRAWN, f"data.root={tmp_path}/data", *overrides)
    with pytest.raises(S4ecaError, match=message):
        run_training(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_unknown_key_is_named_and_nothing_starts(tmp_path):
    printed = train("experiment=demo", "modle.lr=1", cwd=tmp_path, expect=2)
    assert "modle" in sentence(printed)
    assert not (tmp_path / "data").exists()


def test_a_sweep_over_many_gpus_is_refused(tmp_path):
    printed = train("-m", "seed=1,2", *TINY, "trainer.accelerator=gpu", "trainer.devices=2", cwd=tmp_path, expect=2)
    assert printed.count("trainer.devices=1, or start one run per job") == 2
    assert "Traceback" not in printed


def test_a_refused_job_does_not_end_a_sweep(tmp_path):
    short = ["trainer.max_steps=1", "trainer.val_check_interval=1", "evaluate=null"]
    sweep = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}", f"data.root={tmp_path}/data"]
    printed = train("-m", "budget=0.001,null", *TINY, *DRAWN, *short, *sweep, cwd=tmp_path, expect=2)
    assert "budget=0.001 cannot be met" in printed
    assert "error: 1 job did not run through: job 0 (" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "sweep" / "0" / "checkpoints").exists()
    assert (tmp_path / "sweep" / "1" / "checkpoints" / "best.ckpt").is_file()


def test_evaluation_says_what_is_wrong(tmp_path):
    assert "there is no checkpoint at nowhere.ckpt" in sentence(evaluate("ckpt=nowhere.ckpt", cwd=tmp_path, expect=2))
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(S4ecaError, match="cannot be read as a checkpoint"):
        evaluate_here(f"ckpt={tmp_path}/broken.ckpt")


def test_data_commands_say_what_is_wrong(tmp_path):
    arguments = ["data", "synthesize", str(tmp_path / "out"), "--layout", "cityscapes"]
    with pytest.raises(S4ecaError, match="cityscapes"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_a_worker_meets_a_damaged_image_and_what_is_printed_runs_in_a_folder_of_any_name(tmp_path):
    root, name = write_jsonl(tmp_path / "jsonl", train=12), "lr=0.1,seed=1 (1)"
    # of the third batch of two, and none of those that are opened before a training: the 1st, 4th, 8th and 12th
    third = 201 + int(np.random.default_rng([0, 0]).permutation(12)[4])
    image = root / "images" / f"{third:05d}.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    data = ["data=jsonl", f"data.root={root}", "data.batch_size=2", "data.num_workers=2"]
    steps = ["trainer.max_steps=4", "trainer.val_check_interval=4", "callbacks.pictures.limit=0", "evaluate=null"]
    printed = train(*TINY, *data, *steps, f'hydra.run.dir="{name}"', cwd=tmp_path, expect=2)
    said = sentence(printed)
    assert str(image) in said
    assert f"reference {third} " in said
    last = tmp_path / name / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 2
    refused = train(*TINY, *data, *steps, f'hydra.run.dir="{name}"', cwd=tmp_path, expect=2)
    image.write_bytes(whole)
    onward = sentence(refused).partition("go on with it by ")[2].partition(", or choose")[0]
    ended = train(*shlex.split(onward), cwd=tmp_path)
    (line,) = [line for line in ended.splitlines() if line.startswith("evaluate with: ")]
    python, script, ckpt = shlex.split(line.removeprefix("evaluate with: "))
    assert (python, script) == ("python", "eval.py")
    evaluate(ckpt, "split=val", "pictures=0", "bootstrap=0", cwd=tmp_path)
    assert len(list((tmp_path / name / "eval").glob("*/metrics.json"))) == 1
