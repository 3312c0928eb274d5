import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from made_evaluation import make_evaluation
from s4eca.evaluation.page.panels import Panel, choose_panels
from s4eca.evaluation.summary import summarise_evaluation
from s4eca.lit.wandb_report import send_evaluation


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """An offline run that got an evaluation of nine samples, three of them as panels."""
    folder = tmp_path_factory.mktemp("wandb")
    monkeypatch = pytest.MonkeyPatch()
    for name in ("DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(folder / name))
    monkeypatch.setenv("WANDB_SILENT", "true")
    evaluation = make_evaluation(9, ("ship", "dam"), no_target=1, checkpoint="best.ckpt")
    samples = [replace(sample, kind=("place", "size")[i % 2]) for i, sample in enumerate(evaluation.samples)]
    evaluation = replace(evaluation, samples=samples)
    summary = summarise_evaluation(evaluation, replicates=5)
    truth = np.zeros((16, 20), bool)
    truth[:8] = True
    image = np.zeros((16, 20, 3), np.uint8)
    image[..., 0] = 90
    panels = [Panel(choice, image, truth, ~truth) for choice in choose_panels(evaluation, "lavt", 1)]
    (folder / "report.html").write_text("a page")
    (folder / "predictions").mkdir()
    (folder / "predictions" / "1.png").write_bytes(b"a mask")

    logger = WandbLogger(project="tests", save_dir=folder, offline=True)
    artifacts = []
    run_type = type(logger.experiment)
    log_artifact = run_type.log_artifact

    def keep(run, artifact):
        artifacts.append(artifact)
        return log_artifact(run, artifact)

    monkeypatch.setattr(run_type, "log_artifact", keep)
    send_evaluation(logger, evaluation, summary, panels, [folder / "report.html", folder / "predictions"])
    kept = dict(logger.experiment.summary)
    wandb.finish()
    monkeypatch.undo()
    (run,) = (folder / "wandb").glob("offline-run-*")
    (artifact,) = (item for item in artifacts if item.type == "evaluation")
    return evaluation, summary, panels, kept, run / "files" / "media", artifact


def table(media: Path, name: str) -> list[dict]:
    (path,) = (media / "table" / "RRSIS-D" / "test").glob(f"{name}_*.table.json")
    content = json.loads(path.read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_tables_hold_the_summary(sent):
    _, summary, _, _, media, _ = sent
    lines = table(media, "protocols")
    assert [line["protocol"] for line in lines] == ["lavt", "original", "detris"]
    for line in lines:
        values = summary["protocols"][line["protocol"]]
        bounds = summary["intervals"]["protocols"][line["protocol"]]
        for name, value in values.items():
            assert line[name] == pytest.approx(value)
        for name, (low, high) in bounds.items():
            assert [line[f"{name} low"], line[f"{name} high"]] == pytest.approx([low, high])
        assert line["n"] == 9
        assert line["n_no_target"] == 1
    for name, groups in (
        ("categories", {"category": summary["categories"]}),
        ("kinds", {"kind": summary["kinds"]}),
        ("sizes", summary["sizes"]),
    ):
        expected = {
            (protocol, kind, group): values
            for kind, protocols in groups.items()
            for protocol, by_group in protocols.items()
            for group, values in by_group.items()
        }
        lines = table(media, name)
        assert {(line["protocol"], line["by"], line["group"]) for line in lines} == set(expected)
        assert len(lines) == len(expected)
        for line in lines:
            for score, value in expected[line["protocol"], line["by"], line["group"]].items():
                assert line[score] == (None if math.isnan(value) else pytest.approx(value))


def test_the_table_of_samples_has_a_line_each(sent):
    evaluation, *_, media, _ = sent
    lines = table(media, "samples")
    assert [line["kind"] for line in lines] == ["place", "size"] * 5
    assert [line["id"] for line in lines] == [sample.id for sample in evaluation.samples]
    for line, sample, row, loose in zip(
        lines, evaluation.samples, evaluation.rows["lavt"], evaluation.rows["detris"], strict=True
    ):
        assert (line["expression"], line["category"], line["area"]) == (sample.expression, sample.category, sample.area)
        assert line["lavt/IoU"] == (row[1] / row[2] if row[2] else 0)
        assert line["detris/IoU"] == loose[1] / (loose[2] + 1e-6)
    assert [line["no_target"] for line in lines] == [False] * 9 + [True]


def test_panels_are_images_with_overlays_and_captions(sent):
    *_, panels, kept, media, _ = sent
    assert [panel.choice.group for panel in panels] == ["best", "median", "worst"]
    for panel in panels:
        logged = dict(kept[f"RRSIS-D/test/{panel.choice.group}"])
        sample = panel.choice.sample
        score = f"IoU {100 * panel.choice.iou:.2f} % (lavt)"
        assert logged["captions"] == [f"{sample.expression} | {score}, {sample.id}, {sample.category}"]
        (path,) = (media / "images" / "RRSIS-D" / "test").glob(f"{panel.choice.group}_*.png")
        assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), panel.image)
        overlays = logged["all_masks"][0]
        assert set(overlays) == {"truth", "prediction"}
        for name, overlay in overlays.items():
            stored = np.asarray(Image.open(media.parent / overlay["path"]))
            assert np.array_equal(stored.reshape(16, 20, -1)[..., 0] == 1, getattr(panel, name))


def test_scores_are_in_the_runs_summary(sent):
    _, summary, _, kept, *_ = sent
    for protocol, values in summary["protocols"].items():
        for name, value in values.items():
            assert kept[f"RRSIS-D/test/{protocol}/{name}"] == pytest.approx(value)


def test_the_files_are_one_artifact(sent):
    evaluation, *_, artifact = sent
    assert artifact.name.startswith("evaluation-")
    assert artifact.name.split(":")[0].endswith("-RRSIS-D-test")
    assert artifact.metadata == dict(evaluation.about)
    entries = artifact.manifest.entries
    assert set(entries) == {"report.html", "predictions/1.png"}
    assert {name: entry.size for name, entry in entries.items()} == {"report.html": 6, "predictions/1.png": 6}


class Recorder:
    """Stands for a run where only what is sent matters."""

    def __init__(self) -> None:
        self.id, self.summary, self.logged, self.artifacts = "a/b c", {}, {}, []
        self.experiment = self

    def log(self, content):
        self.logged |= content

    def log_artifact(self, artifact):
        self.artifacts.append(artifact)


def test_too_many_samples_for_a_runs_table_go_into_the_artifact(monkeypatch):
    monkeypatch.setattr(wandb.Table, "MAX_ROWS", 3)
    run = Recorder()
    evaluation = make_evaluation(4, (), protocols=["lavt"])
    send_evaluation(run, evaluation, summarise_evaluation(evaluation, 0), [], [])
    assert set(run.logged) == {f"RRSIS-D/test/{name}" for name in ("protocols", "categories", "sizes")}
    (artifact,) = run.artifacts
    assert set(artifact.manifest.entries) == {"samples.table.json"}
    assert artifact.name.split(":")[0] == "evaluation-a-b-c-RRSIS-D-test"


def test_shuffled_expressions_have_a_place_of_their_own_and_nothing_stands_for_no_value():
    run = Recorder()
    evaluation = make_evaluation(0, (), protocols=["lavt"], expressions="shuffled with seed 0")
    summary = summarise_evaluation(evaluation, 0)
    send_evaluation(run, evaluation, summary, [], [])
    assert "RRSIS-D/test_shuffled/samples" in run.logged
    assert run.summary == {
        f"RRSIS-D/test_shuffled/lavt/{name}": 0 for name in ("n", "n_empty", "n_no_target", "nonempty/n")
    }
    line = dict(
        zip(
            *(
                run.logged["RRSIS-D/test_shuffled/protocols"].columns,
                run.logged["RRSIS-D/test_shuffled/protocols"].data[0],
            ),
            strict=True,
        )
    )
    assert line["mIoU"] is None
    assert line["n"] == 0
