"""Runs from a weights folder: trained and evaluated without a network, as portable as runs from the hub."""

import json
import shutil

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from hub import reaching, serving
from runs import ROOT, TINY, composed, evaluate_here, train_here
from s4eca.build import build_pipeline
from s4eca.checkpoint import read_checkpoint
from s4eca.cli.eval import merge
from s4eca.cli.training import train
from s4eca.cli.training_free import resolve
from s4eca.cli.weights_words import wanted
from s4eca.errors import S4ecaError
from s4eca.weights_folder import fetch_weights
from tiny_hub import publish

DRAWN = ["data.train=4", "data.val=2", "data.test=2", "data.scene_size=64", "data.batch_size=2", "data.num_workers=0"]
SHORT = ["trainer.max_steps=1", "trainer.val_check_interval=1", "evaluate=null", "callbacks.pictures=null"]
RUN = [item for item in TINY if not item.startswith("text.")] + [*DRAWN, *SHORT, "text=bert_base"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fetched") / "weights"
    with serving(tmp_path_factory.mktemp("hub")) as hub, reaching(hub, tmp_path_factory.mktemp("cache")):
        publish(hub)
        needs = wanted(["experiment=demo", "text=bert_base", "clip=openai_b16", "grounding=clip", "proposer=sam"])
        fetch_weights(needs, folder, lambda _: None)
    return folder


def test_a_run_is_trained_and_evaluated_from_the_folder(folder, tmp_path):
    place = tmp_path / "weights"
    shutil.copytree(folder, place)
    train_here(*RUN, f"data.root={tmp_path}/data", f"++weights_folder={place}", folder=tmp_path / "run")
    saved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert (saved.weights_folder, saved.text.weights, saved.text.tokenizer) == (str(place), "hub", None)
    ckpt = tmp_path / "run" / "checkpoints" / "last.ckpt"
    meta = read_checkpoint(ckpt).meta
    assert meta["base"]["text"]["source"] == "hub"
    assert meta["base"]["text"]["name"] == "google-bert/bert-base-uncased"
    assert str(tmp_path) not in json.dumps([meta["base"], meta["tokenizer"], meta["config"]["text"]])

    words = [f"ckpt={ckpt}", "split=val", "pictures=0", "bootstrap=0", f"out={tmp_path}/out"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        given = compose("eval", overrides=words)
    assert merge(read_checkpoint(ckpt).config, given)["weights_folder"] == str(place)  # that it was trained with
    place.rename(tmp_path / "moved")
    assert merge(read_checkpoint(ckpt).config, given)["weights_folder"] is None
    with pytest.raises(
        S4ecaError, match=r"could not be fetched from the hub.*weights_folder=FOLDER.*text\.weights=PATH"
    ):
        evaluate_here(*words)
    evaluate_here(*words, f"weights_folder={tmp_path}/moved")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["about"]["split"] == "val"


def test_a_damaged_folder_stops_a_training_before_it_begins(folder, tmp_path):
    place = tmp_path / "weights"
    shutil.copytree(folder, place)
    path = place / "google-bert--bert-base-uncased" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    config = composed(*RUN, f"data.root={tmp_path}/data", f"++weights_folder={place}")
    with pytest.raises(S4ecaError, match=r"model\.safetensors has the sha256"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_the_training_free_method_runs_from_the_folder(folder):
    words = ["model=dgl_rsis", "grounding=clip", "proposer=sam", "data=synthetic", f"weights_folder={folder}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = resolve(compose("eval", overrides=words))
    pipeline = build_pipeline(config, "synthetic")
    assert pipeline.grounding.clip is pipeline.regions.clip  # loaded once
    assert pipeline.regions.clip.base.source == pipeline.proposer.base.source == "hub"
    with pytest.raises(S4ecaError, match=r"could not be fetched from the hub"):
        build_pipeline({**config, "weights_folder": None}, "synthetic")
    with pytest.raises(
        S4ecaError, match=r"lacks weights of Salesforce/blip-itm-base-coco, which grounding\.blip\.name="
    ):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = resolve(compose("eval", overrides=[words[0], *words[2:]]))
        build_pipeline(config, "synthetic")
