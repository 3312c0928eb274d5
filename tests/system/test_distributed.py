"""Several processes by the commands that users give, and what SLURM is asked for."""

import json
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from layouts import write_jsonl
from runs import ROOT, TINY, evaluate_here, run, train_here

pytestmark = pytest.mark.system

DATA = ["data.train=24", "data.val=6", "data.test=6", "data.scene_size=64", "data.num_workers=0"]
RUN = [
    *TINY,
    *DATA,
    "tuning.text.dropout=0",
    "tuning.visual.dropout=0",
    "model.lr=5e-4",
    "model.warmup_steps=2",
    "trainer.gradient_clip_val=0.1",
    "callbacks.pictures.limit=0",
    "data.eval_batch_size=2",
]
STEPS = ["trainer.max_steps=20", "trainer.val_check_interval=5", "callbacks.last.every_n_train_steps=20"]


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def protocols(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())["protocols"]


def check_evaluation(folder: Path) -> None:
    """Evaluates a run's best checkpoint in this process; two processes have done so when the run had ended."""
    evaluate_here(
        f"ckpt={folder}/run/checkpoints/best.ckpt", "split=val", f"out={folder}/alone", "pictures=0",
        f"data.root={folder}/data/synthetic",
    )  # fmt: skip
    assert not torch.distributed.is_initialized(), "one process needs no others, however the run was trained"
    together = protocols(folder / "run" / "eval" / "best_synthetic_val")
    assert protocols(folder / "alone") == together
    assert together["original"]["n"] == 6


def test_two_processes_by_torchrun_train_and_score_as_one(tmp_path):
    two = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=2", "evaluate=val"]
    printed = run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "s4eca", "train", *two, *RUN, *STEPS,
        "hydra.run.dir=run", cwd=tmp_path, timeout=240,
    )  # fmt: skip
    assert "effective batch" in printed
    train_here(*RUN, *STEPS, "data.batch_size=4", f"data.root={tmp_path}/data/synthetic", folder=tmp_path / "one")
    one, both = (state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("one", "run"))
    assert one.keys() == both.keys()
    assert max((one[name].double() - both[name].double()).abs().max().item() for name in one) < 1e-5
    start = state(tmp_path / "one" / "checkpoints" / "best.ckpt")
    assert max((start[name].double() - both[name].double()).abs().max().item() for name in one) > 1e-4
    check_evaluation(tmp_path)


@pytest.mark.slow
def test_fsdp_by_the_installed_command_trains_saves_and_evaluates(tmp_path):
    """Lightning starts the second process; `s4eca train` is no file that it could start."""
    two = ["trainer=fsdp", "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=2", "evaluate=val"]
    steps = ["trainer.max_steps=2", "trainer.val_check_interval=2"]
    printed = run(str(Path(sys.executable).with_name("s4eca")), "train", *two, *RUN, *steps, cwd=tmp_path, timeout=240)
    assert "Traceback" not in printed
    (folder,) = (tmp_path / "outputs" / "demo").iterdir()  # one folder for both, named by the time
    folder.rename(tmp_path / "run")
    check_evaluation(tmp_path)


@pytest.mark.slow
def test_of_two_processes_one_says_what_is_wrong(tmp_path):
    root = write_jsonl(tmp_path / "jsonl", train=16, val=4)
    damaged = sorted((root / "images").iterdir())[9]
    damaged.write_bytes(damaged.read_bytes()[:100])
    two = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=2", "data.num_workers=2"]
    data = ["data=jsonl", f"data.root={root}", "hydra.run.dir=run"]
    printed = run(str(ROOT / "train.py"), *TINY, *two, *data, cwd=tmp_path, expect=2, timeout=240)
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert damaged.name in line


@pytest.mark.parametrize(
    ("launcher", "overrides", "wanted"),
    [
        ("slurm", ["trainer=ddp", "trainer.devices=4"], (1, 4, 4)),
        ("slurm", ["trainer=ddp", "trainer.devices=8", "trainer.num_nodes=2"], (2, 8, 8)),
        ("slurm", [], (1, 1, 1)),
        ("slurm_cpu", ["trainer=ddp", "trainer.devices=2"], (1, 2, None)),
        ("submitit_slurm", ["hydra.launcher.tasks_per_node=4", "hydra.launcher.gpus_per_node=4"], (1, 4, 4)),
    ],
)
def test_slurm_starts_as_many_tasks_as_the_run_has_processes(launcher, overrides, wanted):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = [f"hydra/launcher={launcher}", "hydra.launcher.partition=gpu", *overrides]
        config = compose("train", overrides=overrides, return_hydra_config=True)
    job = config.hydra.launcher
    assert job._target_.endswith(".SlurmLauncher")
    assert (job.nodes, job.tasks_per_node, job.gpus_per_node) == wanted
    assert job.partition == "gpu"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(
    "trainer",
    [
        ["trainer=ddp", "decoder=lavt", "trainer.sync_batchnorm=true"],
        ["trainer=ddp", "trainer.precision=bf16-mixed"],
        ["trainer=fsdp", "trainer.precision=bf16-mixed"],
    ],
)
def test_two_gpus(tmp_path, trainer):
    given = [item for item in RUN if not item.startswith(("trainer.accelerator", "decoder.", "experiment"))]
    two = ["trainer.devices=2", "trainer.accelerator=gpu", "data.batch_size=2", "evaluate=val"]
    steps = ["trainer.max_steps=4", "trainer.val_check_interval=2", "hydra.run.dir=run"]
    run(str(ROOT / "train.py"), "experiment=demo", *given, *trainer, *two, *steps, cwd=tmp_path)
    assert protocols(tmp_path / "run" / "eval" / "best_synthetic_val")["original"]["n"] == 6
