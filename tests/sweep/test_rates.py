"""Learning rates of a comparison: chosen among runs on val, kept in a file, taken from there."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from s4eca.cli.main import app
from s4eca.cli.train_config import compose_train
from s4eca.errors import S4ecaError
from s4eca.sweep.choosing import choose_rates, find_tried
from s4eca.sweep.rates import at_edge, rate_of, read_rates, written


def make_run(folder, row="lora", lr=1e-3, score=0.5, seed=0, monitor="val/mIoU", **changed):
    config = {
        "name": row,
        "seed": seed,
        "budget": None,
        "evaluate": None,
        "tuning": {"_target_": "s4eca.tuning.Frozen"},
        "model": {"lr": lr, "warmup_steps": 25},
        "data": {"root": f"/machine_{seed}", "seed": seed},
        "trainer": {"max_steps": 150, "max_epochs": -1},
        "callbacks": {"best": {"monitor": monitor, "mode": "max"}},
        **changed,
    }
    run = folder / f"{row}_{lr}_{seed}"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    if score is not None:
        (run / "ended.json").write_text(json.dumps({"step": 150, "best": score, "checkpoint": "checkpoints/best.ckpt"}))
    # a score of the test split would be here, and counts for nothing
    (run / "eval").mkdir()
    (run / "eval" / "metrics.json").write_text(json.dumps({"protocols": {"lavt": {"mIoU": 1 - (score or 0)}}}))
    return run


@pytest.fixture
def search(tmp_path):
    for row, scores in {"lora": (0.3, 0.5, 0.4), "full": (0.6, 0.2, None), "mona": (0.1, 0.2, 0.3)}.items():
        for lr, score in zip((1e-5, 1e-4, 1e-3), scores, strict=True):
            make_run(tmp_path / "search", row, lr, score)
    make_run(tmp_path / "search", "full", 3e-5, 0.6)
    return tmp_path / "search"


def test_the_best_on_val_is_chosen_and_everything_tried_is_written(search, tmp_path):
    (search / "multirun.yaml").write_text("# Hydra's own")
    out = tmp_path / "rates.yaml"
    out.write_text("# mine\ndefault: {lr: 0.5}\nlora: {lr: 9}\n")
    done = CliRunner().invoke(app, ["rates", str(search), "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = yaml.safe_load(out.read_text())
    by = "val/mIoU, 150 steps, seed 0"
    assert rows["default"] == {"lr": 0.5}
    assert rows["lora"] == {"lr": 1e-4, "val": {"1e-05": 0.3, "0.0001": 0.5, "0.001": 0.4}, "by": by}
    assert read_rates(out)["full"] == {"lr": 1e-5, "val": {"1e-05": 0.6, "3e-05": 0.6, "0.0001": 0.2}, "by": by}
    assert rows["mona"]["lr"] == 1e-3
    assert "full_0.001_0 has not ended with a score and is left out" in done.output
    assert "lora: 0.0001 of 1e-05: 0.3000, 0.0001: 0.5000, 0.001: 0.4000 (val/mIoU, 150 steps, seed 0)\n" in done.output
    assert "full: 1e-05 of" in done.output
    assert done.output.count("; the smallest that was tried: try smaller ones too)") == 1
    assert done.output.count("; the largest that was tried: try larger ones too)") == 1
    assert out.read_text().startswith("#")


def test_what_was_written_is_taken_by_the_comparison(search, tmp_path):
    chosen = choose_rates(find_tried([search])[0])
    file = tmp_path / "rates.yaml"
    file.write_text(written(chosen))
    config, _ = compose_train(["experiment=pet_comparison", "comparison=full", f"lr_from={file}"])
    assert config["model"]["lr"] == 1e-5
    assert config["lr_choice"] == chosen["full"]
    with pytest.raises((S4ecaError, SystemExit)):
        compose_train(["experiment=pet_comparison", "comparison=s4eca", f"lr_from={file}"])


def test_seeds_are_averaged(tmp_path):
    for lr, scores in {1.0: (0.5, 0.1), 2.0: (0.3, 0.4), 3.0: (0.1, 0.2)}.items():
        for seed, score in enumerate(scores):
            make_run(tmp_path, lr=lr, seed=seed, score=score)
    tried, unended = find_tried([tmp_path])
    assert unended == []
    assert choose_rates(tried)["lora"] == {
        "lr": 2.0,
        "val": {"1": 0.3, "2": 0.35, "3": 0.15},
        "by": "val/mIoU, 150 steps, seed 0, 1",
    }
    make_run(tmp_path, lr=2.0, seed=5, score=0.9)
    with pytest.raises(S4ecaError, match=r"rates of lora were tried with other seeds each \(1: 0, 1; 2: 0, 1, 5; 3"):
        choose_rates(find_tried([tmp_path])[0])


def test_two_rates_are_no_choice(tmp_path):
    for lr in (1e-3, 1e-4):
        make_run(tmp_path, lr=lr)
    make_run(tmp_path, lr=1e-2, score=None)
    make_run(tmp_path, lr=1e-1, score=float("nan"))
    with pytest.raises(S4ecaError, match=r"lora has ended runs of 0\.0001, 0\.001 only.*at least 3"):
        choose_rates(find_tried([tmp_path])[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"monitor": "val/oIoU"}, r"by val/oIoU.*largest val/mIoU"),
        (
            {"trainer": {"max_steps": 300, "max_epochs": -1}},
            r"more than rate and seed: trainer\.max_steps: 150, now 300",
        ),
        ({"tuning": {"_target_": "s4eca.tuning.BitFit"}}, r"more than rate and seed: tuning\._target_"),
        ({"model": {"lr": 1.0, "warmup_steps": 1}}, r"more than rate and seed: model\.warmup_steps"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path, changed, message):
    make_run(tmp_path, lr=0.1)
    make_run(tmp_path, **{"lr": 1.0, **changed})
    with pytest.raises(S4ecaError, match=message):
        find_tried([tmp_path])


@pytest.mark.parametrize(
    ("text", "message"), [("name: [", "cannot be read"), ("name: x", "not the config of a training"), ("", "not the")]
)
def test_damaged_configs_are_named(tmp_path, text, message):
    run = make_run(tmp_path)
    (run / "config.yaml").write_text(text)
    with pytest.raises(S4ecaError, match=rf"{run}/config\.yaml.*{message}"):
        find_tried([run])


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(S4ecaError, match="there is no run in"):
        find_tried([tmp_path])
    done = CliRunner().invoke(app, ["rates", str(tmp_path), "--out", str(tmp_path / "rates.txt")])
    assert isinstance(done.exception, S4ecaError)
    assert "ends in .yaml" in str(done.exception)


@pytest.mark.parametrize(
    ("lr", "edge"), [(1e-4, "smallest"), (3e-4, None), (1.23456789e-3, "largest")]
)  # written with six digits
def test_the_ends_of_what_was_tried(lr, edge):
    assert at_edge({"lr": lr, "val": {"0.0003": 0.1, "0.0001": 0.2, "0.00123457": 0.3}}) == edge


def test_a_row_without_a_line_gets_the_default(tmp_path):
    (tmp_path / "mine.yaml").write_text("default: {lr: 1e-4}\nlora: {lr: 0.002, val: {'0.002': 0.5}, by: hand}\n")
    assert rate_of("mine", "mona", tmp_path) == {"lr": 1e-4, "val": None, "by": None}
    assert rate_of(str(tmp_path / "mine.yaml"), "lora", tmp_path / "none") == {
        "lr": 0.002,
        "val": {"0.002": 0.5},
        "by": "hand",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora: {lr: 1e-4}", r"no learning rate of mona and no default"),
        ("default: 1e-4", r"holds no learning rates \(default\)"),
        ("default: {lr: 0}", r"holds no learning rates \(default\)"),
        ("default: {lr: true}", r"holds no learning rates \(default\)"),
        ("default: {lr: .nan}", r"holds no learning rates \(default\)"),
        ("default: {val: {}}", r"holds no learning rates \(default\)"),
        ("", r"holds no learning rates \(it is empty\)"),
        ("a: [", "cannot be read as YAML"),
        (None, r"there is no .*s4eca rates FOLDER --out"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(S4ecaError, match=message):
        rate_of("f", "mona", tmp_path)
