import csv
import json

import pytest
import torch
from PIL import Image

from runs import SAMPLES, TINY, evaluate, evaluate_here, s4eca, train, train_here
from s4eca.checkpoint import SELECTED_BY, read_checkpoint
from s4eca.cli.score import score_predictions
from s4eca.data import synthesize
from s4eca.errors import S4ecaError
from s4eca.evaluation.compare import compare
from s4eca.evaluation.results import read_evaluation
from s4eca.weights import hash_weights

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
    command = ["ckpt=run/checkpoints/best.ckpt", "split=val", "pictures=1", "predictions=rle", "bootstrap=50"]
    printed = evaluate(*command, "logger=wandb", "logger.wandb.offline=true", cwd=folder)
    out = folder / "run" / "eval" / "best_synthetic_val"
    scores = json.loads((out / "metrics.json").read_text())["protocols"]
    compared = 0
    for protocol, values in scores.items():
        for name in ("mIoU", "oIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9"):
            assert values[name] == pytest.approx(float(best[f"val/{protocol}/{name}"]), abs=1e-6)
            compared += 1
    assert compared == 21
    for protocol in ("lavt", "original", "detris"):
        assert protocol in printed
    for name in ("report.html", "metrics.csv", "samples.parquet", "predictions.json"):
        assert (out / name).is_file()
        assert name in printed
    pictures = sorted((out / "pictures").glob("*.png"))
    assert [path.name.split("_")[0] for path in pictures] == ["best", "median", "worst"]
    for path in pictures:
        assert path.name in printed
        assert Image.open(path).width > 1000
    assert list((out / "wandb").glob("offline-run-*/run-*.wandb"))

    # the exported masks, scored as anyone's, are what was measured; and a run differs from itself by nothing
    score_predictions(
        out / "predictions.json",
        ["data=rrsis_d", f"data.root={folder}/data/synthetic", "data.split=val", "data.strict_counts=false"],
        folder=folder / "scored",
    )
    scored = json.loads((folder / "scored" / "metrics.json").read_text())["protocols"]
    assert scored["original"] == scores["original"]
    comparison = compare(read_evaluation(out), read_evaluation(folder / "scored"), ["original"]).protocols["original"]
    assert (comparison.wins, comparison.ties, comparison.losses) == (0, 6, 0)


def test_eval_elsewhere_moved_data_and_other_data(trained, tmp_path, monkeypatch, capsys):
    folder, _ = trained
    monkeypatch.chdir(tmp_path)
    ckpt = f"ckpt={folder}/run/checkpoints/best.ckpt"
    (tmp_path / "moved").symlink_to(folder / "data" / "synthetic")
    evaluate_here(ckpt, "data.root=moved", "shuffle_expressions=true", "out=here", "pictures=0", "bootstrap=0")
    assert "expressions shuffled" in capsys.readouterr().out
    assert json.loads((tmp_path / "here" / "metrics.json").read_text())["about"]["expressions"] != "real"
    assert not (tmp_path / "here" / "pictures").exists()
    synthesize(tmp_path / "rs", "refsegrs", 3, train=4, val=4, test=4, size=64)
    with pytest.warns(UserWarning, match="431 are expected"):
        evaluate_here(ckpt, "data=refsegrs", "data.root=rs", "data.num_workers=0", "out=there", "split=val")
    assert "refsegrs, val" in capsys.readouterr().out
    about = json.loads((tmp_path / "there" / "metrics.json").read_text())["about"]
    assert (about["dataset"], about["trained_on"]) == ("refsegrs", "synthetic")


def test_share_and_init_from(trained, tmp_path, monkeypatch):
    folder, _ = trained
    monkeypatch.chdir(tmp_path)
    printed = s4eca("share", str(folder / "run/checkpoints/best.ckpt"), "shared", cwd=tmp_path)
    assert "method.safetensors" in printed
    plain = ["pictures=0", "split=val", "bootstrap=0", f"data.root={folder}/data/synthetic"]
    evaluate_here("ckpt=shared", *plain)
    evaluate_here(f"ckpt={folder}/run/checkpoints/best.ckpt", "out=direct", *plain)
    shared, direct = (
        json.loads((tmp_path / place / "metrics.json").read_text())["protocols"]
        for place in ("eval/shared_synthetic_val", "direct")
    )
    assert shared == direct
    data = f"data.root={folder}/data/synthetic"
    train_here(*SHORT, *DRAWN, "init_from=shared", "model.lr=1e-30", data, folder=tmp_path / "again")
    again = read_checkpoint(tmp_path / "again/checkpoints/best.ckpt")
    assert again.meta["init_from"]["sha256"] == hash_weights(read_checkpoint("shared").state)
    assert (again.meta[SELECTED_BY], read_checkpoint("shared").meta[SELECTED_BY]) == ("val/mIoU", "val/mIoU")
    assert read_checkpoint(tmp_path / "again/checkpoints/last.ckpt").meta[SELECTED_BY] is None
    start = torch.load(tmp_path / "again/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    source = torch.load(folder / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    names = [name for name in source if not name.endswith("num_batches_tracked")]
    assert all(torch.allclose(start[name], source[name], rtol=0, atol=1e-20) for name in names)


def test_a_multirun_over_seeds(tmp_path):
    train("-m", "seed=1,2", *SHORT, *DRAWN, "trainer.max_steps=3", "hydra.sweep.dir=sweep", cwd=tmp_path)
    weights = []
    for job, seed in enumerate((1, 2)):
        folder = tmp_path / "sweep" / str(job)
        assert f"seed: {seed}" in (folder / "config.yaml").read_text()
        weights.append(torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"])
    name = "segmenter.norms.0.weight"
    assert len({tuple(state[name].tolist()) for state in weights}) == 2


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
def test_real_samples(tmp_path, monkeypatch, capsys, data, folder):
    monkeypatch.chdir(tmp_path)
    root = f"data.root={SAMPLES / folder}"
    train_here(
        *SHORT, f"data={data}", root, "data.strict_counts=false", "data.batch_size=4", "data.num_workers=0",
        "trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=1", "trainer.max_steps=3",
        "trainer.limit_train_batches=3", folder=tmp_path / "run",
    )  # fmt: skip
    capsys.readouterr()
    evaluate_here("ckpt=run/checkpoints/best.ckpt", root)
    printed = capsys.readouterr().out
    assert f"{data}, test" in printed
    scores = json.loads((tmp_path / "run" / "eval" / f"best_{data}_test" / "metrics.json").read_text())["protocols"]
    assert {name: values["n"] for name, values in scores.items()} == dict.fromkeys(
        ("lavt", "original", "detris"), 9 if data == "rrsis_d" else 3
    )
    if data == "rrsis_d":
        assert scores["original"]["n_empty"] == 1
        assert scores["original"]["nonempty/n"] == 8
        assert printed.count("non-empty") == 3


def test_at_the_side_with_kept_features_a_budget_and_an_evaluation_at_the_end(tmp_path, capsys):
    beside = [
        "model.segmenter.placement=side",
        f"model.feature_cache={tmp_path}/features",
        "budget=20",
        "evaluate=test",
    ]
    epoch = ["trainer.max_steps=8", "trainer.val_check_interval=4"]  # every sample once
    settings = [*SHORT, *DRAWN, *beside, *epoch, f"data.root={tmp_path}/data"]
    train_here(*settings, folder=tmp_path / "run")
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("budget: ")]
    assert "tuning.visual.width=" in line
    assert "images" in next(line for line in printed.splitlines() if line.startswith("feature cache "))
    about = json.loads((tmp_path / "run" / "eval" / "best_synthetic_test" / "metrics.json").read_text())["about"]
    assert about["placement"] == about["cost"]["placement"] == "side"
    assert about["cost"] == json.loads((tmp_path / "run" / "cost.json").read_text())
    assert 100 * about["method_share"] == pytest.approx(20, rel=0.05)
    with pytest.raises(S4ecaError, match="holds a run already; go on with it by resume="):
        train_here(*settings, folder=tmp_path / "run")
    train_here(*settings, "evaluate=null", folder=tmp_path / "again")
    again = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("feature cache "))
    assert "others will take" not in again, "everything is there already"
    first, second = (
        torch.load(tmp_path / run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for run in ("run", "again")
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items()), "the same features, the same run"
