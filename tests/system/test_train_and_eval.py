import csv
import json

import pytest
import torch
from PIL import Image

from runs import SAMPLES, TINY, evaluate, run, train

pytestmark = pytest.mark.system
SHORT = [*TINY, "trainer.max_steps=6", "trainer.val_check_interval=3", "trainer.log_every_n_steps=1"]
DRAWN = ["data.train=32", "data.val=6", "data.test=6", "data.scene_size=64", "data.batch_size=4", "data.num_workers=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    printed = train(*SHORT, *DRAWN, "hydra.run.dir=run", cwd=folder)
    return folder, printed


def test_a_run_leaves_one_folder(trained):
    folder, printed = trained
    names = {path.relative_to(folder / "run").as_posix() for path in (folder / "run").rglob("*") if path.is_file()}
    assert {"config.yaml", "environment.json", "metrics.csv", "checkpoints/best.ckpt"} <= names
    assert any(name.startswith("pictures/step_000006/") for name in names)
    assert {path.name for path in folder.iterdir()} == {"run", "data"}
    for line in (
        "method / towers",
        "effective batch",
        "step 6",
        "val/mIoU",
        "python eval.py ckpt=run/checkpoints/best.ckpt",
    ):
        assert line in printed, line
    assert "Traceback" not in printed
    assert (
        json.loads((folder / "run" / "environment.json").read_text())["packages"]["torch"]
        == torch.__version__.split("+")[0]
    )


def test_eval_reproduces_what_the_run_logged_and_needs_only_the_checkpoint(trained):
    folder, _ = trained
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row["val/mIoU"]]
    best = max(logged, key=lambda row: float(row["val/mIoU"]))
    printed = evaluate("ckpt=run/checkpoints/best.ckpt", "split=val", "pictures=2", cwd=folder)
    out = folder / "run" / "eval" / "best_val"
    scores = json.loads((out / "metrics.json").read_text())["protocols"]
    compared = 0
    for protocol, values in scores.items():
        for name in ("mIoU", "oIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9"):
            assert values[name] == pytest.approx(float(best[f"val/{protocol}/{name}"]), abs=1e-6)
            compared += 1
    assert compared == 21
    for protocol in ("lavt", "original", "detris"):
        assert protocol in printed
    pictures = sorted((out / "pictures").glob("*.png"))
    assert len(pictures) == 2
    for path in pictures:
        assert path.name in printed
        assert Image.open(path).width > 1000


def test_eval_elsewhere_moved_data_and_other_data(trained, tmp_path):
    folder, _ = trained
    ckpt = f"ckpt={folder}/run/checkpoints/best.ckpt"
    (tmp_path / "moved").symlink_to(folder / "data" / "synthetic")
    shuffled = evaluate(ckpt, "data.root=moved", "shuffle_expressions=true", "out=here", "pictures=0", cwd=tmp_path)
    assert "expressions shuffled" in shuffled
    assert (tmp_path / "here" / "metrics.json").is_file()
    assert not (tmp_path / "here" / "pictures").exists()
    run("-m", "s4eca", "data", "synthesize", "rs", "--layout", "refsegrs", "--seed", "3", "--train", "4", "--val", "4",
        "--test", "4", "--size", "64", cwd=tmp_path)  # fmt: skip
    other = evaluate(
        ckpt, "data=refsegrs", "data.root=rs", "data.num_workers=0", "out=there", "split=val", cwd=tmp_path
    )
    assert "refsegrs, val" in other
    assert "warning: " in other, "the split sizes are not RefSegRS's own"


def test_share_and_init_from(trained, tmp_path):
    folder, _ = trained
    printed = run("-m", "s4eca", "share", str(folder / "run/checkpoints/best.ckpt"), "shared", cwd=tmp_path)
    assert "method.safetensors" in printed
    evaluate("ckpt=shared", f"data.root={folder}/data/synthetic", "pictures=0", "split=val", cwd=tmp_path)
    ours = json.loads((tmp_path / "eval" / "shared_val" / "metrics.json").read_text())
    evaluate(
        f"ckpt={folder}/run/checkpoints/best.ckpt",
        "out=direct",
        "pictures=0",
        "split=val",
        f"data.root={folder}/data/synthetic",
        cwd=tmp_path,
    )
    assert ours == json.loads((tmp_path / "direct" / "metrics.json").read_text())
    train(
        *SHORT,
        *DRAWN,
        "init_from=shared",
        "model.lr=0",
        "hydra.run.dir=again",
        f"data.root={folder}/data/synthetic",
        cwd=tmp_path,
    )
    start = torch.load(tmp_path / "again/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    source = torch.load(folder / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(start[name], source[name]) for name in source if not name.endswith("num_batches_tracked"))


def test_a_multirun_over_seeds(tmp_path):
    train("-m", "seed=1,2,3", *SHORT, *DRAWN, "trainer.max_steps=3", "hydra.sweep.dir=sweep", cwd=tmp_path)
    weights = []
    for job, seed in enumerate((1, 2, 3)):
        folder = tmp_path / "sweep" / str(job)
        assert f"seed: {seed}" in (folder / "config.yaml").read_text()
        weights.append(torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"])
    name = "segmenter.norms.0.weight"
    assert len({tuple(state[name].tolist()) for state in weights}) == 3


def test_wandb_offline_gets_scores_and_pictures(tmp_path):
    printed = train(*SHORT, *DRAWN, "logger=wandb", "logger.wandb.offline=true", "hydra.run.dir=run", cwd=tmp_path)
    assert "Traceback" not in printed
    assert (tmp_path / "run" / "metrics.csv").is_file(), "the CSV is always there"
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    media = list((tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images/val/*.png"))
    masks = list((tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images/mask/*"))
    assert media
    assert masks


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real samples are not beside this checkout")
@pytest.mark.parametrize(("data", "folder"), [("rrsis_d", "rrsisd_mini"), ("refsegrs", "refsegrs_mini")])
def test_real_samples(tmp_path, data, folder):
    root = f"data.root={SAMPLES / folder}"
    train(
        *SHORT, f"data={data}", root, "data.strict_counts=false", "data.batch_size=4", "data.num_workers=0",
        "trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=1", "trainer.max_steps=3",
        "trainer.limit_train_batches=3", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    printed = evaluate("ckpt=run/checkpoints/best.ckpt", root, cwd=tmp_path)
    assert f"{data}, test" in printed
    scores = json.loads((tmp_path / "run" / "eval" / "best_test" / "metrics.json").read_text())["protocols"]
    assert {name: values["n"] for name, values in scores.items()} == dict.fromkeys(
        ("lavt", "original", "detris"), 9 if data == "rrsis_d" else 3
    )
    if data == "rrsis_d":
        assert scores["original"]["n_empty"] == 1
        assert scores["original"]["nonempty/n"] == 8
        assert printed.count("non-empty") == 3
