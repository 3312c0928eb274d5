"""Checkpoints from W&B and from the hub: one stand-in for each, at the place where their client is called."""

import json
import shutil
from contextlib import contextmanager
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from hub import COMMIT, reaching, serving
from runs import TINY, composed, evaluate_here
from s4eca.build import build_data, build_module
from s4eca.checkpoint import META, PREFIX, describe, read_checkpoint, share
from s4eca.checkpoint_source import is_remote, locate_checkpoint
from s4eca.errors import S4ecaError

DRAWN = ["data.train=2", "data.val=2", "data.test=2", "data.scene_size=64", "data.batch_size=2", "data.num_workers=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint as a run writes it."""
    folder = tmp_path_factory.mktemp("trained")
    config = composed(*TINY, *DRAWN, f"data.root={folder / 'data'}")
    build_data(config).prepare_data()
    torch.manual_seed(0)
    segmenter = build_module(config).segmenter
    state = {PREFIX + name: value for name, value in segmenter.learned_state().items()}
    meta = describe(segmenter, config, segmenter.text.load_tokenizer(), {"name": "synthetic"})
    torch.save({"state_dict": state, META: meta}, folder / "best.ckpt")
    return folder / "best.ckpt"


@pytest.fixture
def hub(tmp_path):
    with serving(tmp_path / "hub") as hub, reaching(hub, tmp_path / "cache"):
        yield hub


def same(path, trained):
    one, other = read_checkpoint(path).state, read_checkpoint(trained).state
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_path_is_a_path(tmp_path):
    assert locate_checkpoint(tmp_path / "x.ckpt") == locate_checkpoint(f"{tmp_path}/x.ckpt") == tmp_path / "x.ckpt"
    assert not is_remote(tmp_path)
    assert [is_remote(name) for name in ("wandb:a/b/c", "hf:a/b", "hf/a")] == [True, True, False]


def test_the_hub_gives_shared_folders_and_files(hub, trained):
    share(read_checkpoint(trained), hub.put("me/shared"))
    (hub.root / "me/shared/README.md").write_text("a model card")
    share(read_checkpoint(trained), hub.put("me/many") / "seed0")
    shutil.copy(trained, hub.put("me/file") / "model.ckpt")
    (hub.root / "me/file/._model.ckpt").write_text("left by macOS")
    for source in ("hf:me/shared", "hf:me/many/seed0", "hf:me/shared@main", f"hf:me/shared@{COMMIT}", "hf:me/file",
                   "hf:me/file/model.ckpt", f"hf:me/file@{COMMIT}/model.ckpt"):  # fmt: skip
        assert same(locate_checkpoint(source), trained), source
    assert not [name for name in hub.downloads() if name.endswith("README.md")]


def test_what_the_hub_gave_once_is_found_without_a_network(hub, trained, tmp_path):
    share(read_checkpoint(trained), hub.put("me/shared"))
    shutil.copy(trained, hub.put("me/file") / "model.ckpt")
    with reaching(hub, tmp_path / "cache"):
        first = [locate_checkpoint("hf:me/shared"), locate_checkpoint("hf:me/file/model.ckpt")]
    hub.is_down, asked = True, len(hub.asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert [locate_checkpoint("hf:me/shared"), locate_checkpoint("hf:me/file/model.ckpt")] == first
        with pytest.raises(S4ecaError, match=r"hf:me/other could not be fetched from the hub .*`hf download me/other`"):
            locate_checkpoint("hf:me/other")
    assert len(hub.asked) == asked


@contextmanager
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@contextmanager
def down(hub):
    hub.is_down = True
    yield
    hub.is_down = False


def test_without_a_network_no_checkpoint_is_chosen_because_it_is_the_one_in_the_cache(hub, trained):
    for name in ("a.ckpt", "best.ckpt", "seed1/last.ckpt"):
        (hub.put("me/three") / name).parent.mkdir(exist_ok=True)
        shutil.copy(trained, hub.root / "me/three" / name)
    named = locate_checkpoint("hf:me/three/best.ckpt")
    for away in (offline(), down(hub)):
        with away:
            for source, form in (
                ("hf:me/three", r"ckpt=hf:me/three/best\.ckpt"),
                ("hf:me/three@main", r"ckpt=hf:me/three@main/best\.ckpt"),
            ):
                with pytest.raises(S4ecaError, match=rf"hub cannot be asked which .* here is best\.ckpt, .*{form}"):
                    locate_checkpoint(source)
            assert locate_checkpoint("hf:me/three/best.ckpt") == named
    locate_checkpoint("hf:me/three/a.ckpt")
    with offline(), pytest.raises(S4ecaError, match=r"here are a\.ckpt, best\.ckpt, say which one"):
        locate_checkpoint("hf:me/three")
    # asked once while it was there, its files are known
    with pytest.raises(S4ecaError, match=r"holds 3 checkpoints, a\.ckpt, best\.ckpt, seed1/last\.ckpt"):
        locate_checkpoint("hf:me/three")
    with offline(), pytest.raises(S4ecaError, match=r"holds 3 checkpoints, a\.ckpt, best\.ckpt, seed1/last\.ckpt"):
        locate_checkpoint("hf:me/three")
    with offline(), pytest.raises(S4ecaError, match=r"hf:me/three/seed1 could not be fetched"):
        locate_checkpoint("hf:me/three/seed1")  # the only one there, and not in the cache


def test_without_a_network_the_only_checkpoint_is_found_again(hub, trained):
    shutil.copy(trained, hub.put("me/file") / "model.ckpt")
    path = locate_checkpoint("hf:me/file")
    for away in (offline(), down(hub)):
        with away:
            assert locate_checkpoint("hf:me/file") == locate_checkpoint("hf:me/file@main") == path


def test_what_the_hub_does_not_have(hub, trained):
    for name in ("last.ckpt", "best.ckpt"):
        shutil.copy(trained, hub.put("me/two") / name)
    hub.put("me/none").joinpath("config.json").write_text("{}")
    for source, message in (
        ("hf:me/two", r"holds 2 checkpoints, best\.ckpt, last\.ckpt; say which.*ckpt=hf:me/two/best\.ckpt"),
        ("hf:me/none", r"hf:me/none holds neither a shared checkpoint .* nor a \.ckpt file"),
        ("hf:me/two/other.ckpt", r"me/two has no such file \(hf:me/two/other\.ckpt\)"),
        ("hf:me/absent", r"the hub has no me/absent, or it is private or gated .*`hf auth login`"),
        ("hf:me/two@old/best.ckpt", r"the hub has no such revision of me/two"),
        ("hf:me", r"names no repository; write hf:OWNER/REPO"),
        ("hf:me/two/../../x.ckpt", r"names no repository"),
    ):
        with pytest.raises(S4ecaError, match=message):
            locate_checkpoint(source)


def test_an_evaluation_of_a_published_checkpoint(hub, trained, tmp_path, monkeypatch):
    share(read_checkpoint(trained), hub.put("me/shared") / "seed0")
    monkeypatch.chdir(tmp_path)
    quick = ["split=val", "pictures=0", "bootstrap=0"]
    evaluate_here("ckpt=hf:me/shared@main/seed0", *quick)
    (metrics,) = (tmp_path / "outputs").rglob("metrics.json")
    assert metrics.parent == tmp_path / "outputs/hf_me_shared_main_seed0/eval/seed0_synthetic_val"
    assert json.loads(metrics.read_text())["about"]["checkpoint"] == "hf:me/shared@main/seed0"
    assert {path.name for path in (tmp_path / "cache").rglob("*.json")} >= {"s4eca.json"}
    assert not list((tmp_path / "cache").rglob("metrics.json"))


class Api:
    """What W&B's client says: artifacts by name and version, in the layout that Lightning's WandbLogger gives them."""

    artifacts: ClassVar = {}
    downloads: ClassVar = []
    error: ClassVar = None

    def artifact(self, name):
        if Api.error:
            raise Api.error
        if name not in Api.artifacts:
            raise ValueError(f"artifact '{name}' not found in 'project'")
        version, files = Api.artifacts[name]

        def download(root):
            Api.downloads.append(name)
            for target, source in files.items():
                shutil.copy(source, f"{root}/{target}")
            return root

        return SimpleNamespace(version=version, download=download)


@pytest.fixture
def wandb(monkeypatch, tmp_path, trained):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("wandb.Api", Api)
    monkeypatch.setattr(Api, "error", None)
    monkeypatch.setattr(Api, "downloads", [])
    monkeypatch.setattr(Api, "artifacts", {"me/seg/model-abc12:best": ("v4", {"model.ckpt": trained}),
                                           "me/seg/model-abc12:v4": ("v4", {"model.ckpt": trained}),
                                           "me/seg/model-def34:latest": ("v0", {"model.ckpt": trained}),
                                           "me/seg/two:v1": ("v1", {"a.ckpt": trained, "b.ckpt": trained}),
                                           "me/seg/none:v1": ("v1", {})})  # fmt: skip


def test_wandb_gives_artifacts_and_the_best_of_a_run(wandb, trained, tmp_path):
    path = locate_checkpoint("wandb:me/seg/model-abc12:best")
    assert path == tmp_path / "cache/s4eca/wandb/me/seg/model-abc12-v4/model.ckpt"
    assert same(path, trained)
    assert locate_checkpoint("wandb:me/seg/abc12") == path  # the run: its best checkpoint
    assert same(locate_checkpoint("wandb:me/seg/def34"), trained)  # a run that selected none: its last one
    assert Api.downloads == ["me/seg/model-abc12:best", "me/seg/model-def34:latest"]
    with pytest.raises(S4ecaError, match="holds 2 checkpoints"):
        locate_checkpoint("wandb:me/seg/two:v1")
    Api.error = AssertionError("a version that is here needs no network")
    with pytest.raises(S4ecaError, match=r"holds 2 checkpoints, a\.ckpt, b\.ckpt; say which one"):
        locate_checkpoint("wandb:me/seg/two:v1")  # fetched as a whole: without a network it asks too
    assert locate_checkpoint("wandb:me/seg/model-abc12:v4") == path
    assert sorted(item.name for item in path.parents[1].iterdir()) == ["model-abc12-v4", "model-def34-v0", "two-v1"]


def test_the_names_are_those_of_lightnings_logger(tmp_path, monkeypatch):
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import WandbLogger

    logged = []
    run = SimpleNamespace(id="abc12", log_artifact=lambda artifact, aliases: logged.append((artifact, aliases)))
    logger = WandbLogger.__new__(WandbLogger)
    logger._experiment, logger._logged_model_time, logger._checkpoint_name = run, {}, None
    logger.add_file_policy = "mutable"
    monkeypatch.setattr(WandbLogger, "experiment", run)
    (tmp_path / "best.ckpt").write_bytes(b"tensors")
    callback = ModelCheckpoint(tmp_path)
    callback.best_model_path = str(tmp_path / "best.ckpt")
    callback.best_k_models, callback.best_model_score = {callback.best_model_path: torch.tensor(1.0)}, torch.tensor(1.0)
    logger._scan_and_log_checkpoints(callback)
    ((artifact, aliases),) = logged
    assert (artifact.name.partition(":")[0], aliases) == ("model-abc12", ["latest", "best"])
    assert list(artifact.manifest.entries) == ["model.ckpt"]


def test_what_wandb_does_not_have(wandb, monkeypatch, tmp_path):
    for source, message in (
        ("wandb:me/seg/zzz99", r"W&B has no wandb:me/seg/zzz99 .*logger\.wandb\.log_model=true"),
        ("wandb:me/seg/model-abc12:v9", r"W&B has no wandb:me/seg/model-abc12:v9"),
        ("wandb:me/seg/two:v1", r"holds 2 checkpoints, a\.ckpt, b\.ckpt; say which one, for example ckpt=.*/a\.ckpt"),
        ("wandb:me/seg/none:v1", r"holds neither a shared checkpoint .* nor a \.ckpt file"),
        ("wandb:seg/model", r"names no artifact; write wandb:ENTITY/PROJECT/ARTIFACT:VERSION"),
    ):
        with pytest.raises(S4ecaError, match=message):
            locate_checkpoint(source)
    for error, message in (
        (ValueError("No API key configured. Use `wandb login` to log in."), r"does not let you read .*`wandb login`"),
        (ConnectionError("Max retries exceeded"), r"could not be fetched from W&B \(Max retries.*wandb artifact get"),
    ):
        Api.error = error
        with pytest.raises(S4ecaError, match=message):
            locate_checkpoint("wandb:me/seg/abc12")
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(S4ecaError, match=r"pip install 's4eca\[wandb\]'"):
        locate_checkpoint("wandb:me/seg/abc12")


def test_a_broken_off_download_leaves_nothing(wandb, monkeypatch, tmp_path):
    def broken(self, name):
        def download(root):
            (tmp_path / "seen").write_text(root)
            raise OSError("connection lost")

        return SimpleNamespace(version="v2", download=download)

    monkeypatch.setattr(Api, "artifact", broken)
    with pytest.raises(S4ecaError, match=r"could not be fetched from W&B \(connection lost\)"):
        locate_checkpoint("wandb:me/seg/model-abc12:latest")
    assert list((tmp_path / "cache/s4eca/wandb/me/seg").iterdir()) == []
