"""`s4eca merge`: the merged folder is a plain network of the same scores."""

import json
import shutil

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from runs import composed, evaluate_here
from s4eca.build import build_data, build_module
from s4eca.checkpoint import META, PREFIX, describe, load_learned, read_checkpoint, share
from s4eca.cli.main import app
from s4eca.errors import S4ecaError
from s4eca.merge import merge
from s4eca.tuning import Frozen
from tiny import shake, tiny_inputs

TINY = [
    "experiment=demo", "fusion=pwam", "image_size=64", "vision.options.embed_dim=16",
    "vision.options.num_heads=[1,2,4,8]", "text.options.hidden_size=32", "text.options.num_hidden_layers=2",
    "text.options.num_attention_heads=2", "decoder.width=8", "trainer.accelerator=cpu", "data.train=4", "data.val=4",
    "data.test=4", "data.scene_size=64", "data.batch_size=2", "data.num_workers=0",
]  # fmt: skip


def checkpoint(folder, *overrides):
    """A checkpoint as a run writes it, of a network whose learned weights have been moved; returns both."""
    config = composed(*TINY, f"data.root={folder / 'data'}", *overrides)
    torch.manual_seed(0)
    segmenter = build_module(config).segmenter
    shake(segmenter)
    state = {PREFIX + name: value for name, value in segmenter.learned_state().items()}
    tokenizer = segmenter.text.load_tokenizer()
    torch.save(
        {"state_dict": state, META: describe(segmenter, config, tokenizer, {"name": "synthetic"})}, folder / "last.ckpt"
    )
    return segmenter.eval(), folder / "last.ckpt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("trained"), "tuning=lora_all", "tuning.rank=4", "tuning.dropout=0.1")


@pytest.fixture(scope="module")
def merged(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged") / "out"
    result = CliRunner().invoke(app, ["merge", str(trained[1]), str(out)])
    assert result.exit_code == 0, result.output
    return out, result.output


def rebuilt(folder, **weights):
    read = read_checkpoint(folder)
    config = read.config
    for tower, place in weights.items():
        config[tower]["weights"] = str(place)
    segmenter = build_module(config).segmenter
    load_learned(segmenter, read)
    return segmenter.eval()


def test_the_folder_is_a_frozen_network_of_the_same_logits(trained, merged):
    folder, printed = merged
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    top = {"vision.safetensors", "head.safetensors", "method.safetensors", "s4eca.json"}
    assert top | {"text/config.json", "text/model.safetensors", "text/tokenizer_config.json"} <= names
    assert all(f"{folder / name}" in printed for name in names)
    assert f"python eval.py ckpt={folder}" in printed
    assert safetensors.torch.load_file(folder / "method.safetensors") == {}
    network = rebuilt(folder)
    assert isinstance(network.method, Frozen)
    assert not any("lora" in name for name in network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network(*tiny_inputs()), trained[0](*tiny_inputs()), rtol=1e-5, atol=1e-5)
    before = json.loads((folder / "s4eca.json").read_text())["base"]
    assert before["vision"]["sha256"] != trained[0].vision.base.sha256
    assert (before["vision"]["source"], before["text"]["source"]) == ("vision.safetensors", "text")
    sentence = ["The gray ship on the left"]
    tokenizer = trained[0].text.load_tokenizer()
    assert network.text.load_tokenizer()(sentence).input_ids == tokenizer(sentence).input_ids


def test_the_merged_weights_are_w_plus_scale_b_a(trained, merged):
    weights = safetensors.torch.load_file(merged[0] / "vision.safetensors")
    layer = trained[0].vision.block(3).mlp.fc2
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(weights["layers.1.blocks.1.mlp.fc2.weight"], layer.base_layer.weight + update)
    assert weights.keys() == {name for name in weights if "lora" not in name and "base_layer" not in name}


def test_an_evaluation_gives_the_same_scores(trained, merged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_data(read_checkpoint(trained[1]).config).prepare_data()
    metrics = []
    for name, ckpt in (("direct", trained[1]), ("plain", merged[0])):
        evaluate_here(f"ckpt={ckpt}", f"out={name}", "pictures=0", "bootstrap=0")
        metrics.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    direct, plain = metrics
    assert plain["protocols"] == direct["protocols"]
    assert direct["protocols"]["lavt"]["mIoU"] > 0
    assert [about["about"]["tuning"] for about in metrics] == ["lora", "frozen"]
    assert plain["about"]["merged_from"] == "lora"
    assert plain["about"]["backbones"] == direct["about"]["backbones"], "those that were trained on"
    assert direct["about"]["method_share"] > plain["about"]["method_share"] == 0


def test_a_folder_can_be_moved(merged, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(merged[0], moved)
    meta = json.loads((moved / "s4eca.json").read_text())
    assert [meta["config"][tower]["weights"] for tower in ("vision", "text")] == ["vision.safetensors", "text"]
    network = rebuilt(moved)
    assert network.vision.base.sha256 == meta["base"]["vision"]["sha256"]
    with torch.no_grad():
        assert torch.equal(network(*tiny_inputs()), rebuilt(merged[0])(*tiny_inputs()))


def test_a_shared_folder_and_other_places_of_the_base_weights(trained, merged, tmp_path):
    network, path = trained
    shared = share(read_checkpoint(path), tmp_path / "shared")
    plain = build_module(composed(*TINY, "tuning=frozen")).segmenter
    safetensors.torch.save_file(plain.vision.model.state_dict(), tmp_path / "base.safetensors")
    read = read_checkpoint(shared)
    read.meta["config"]["vision"]["weights"] = "/nowhere/base.safetensors"
    with pytest.raises(S4ecaError, match=r"vision\.weights=/nowhere/base\.safetensors does not exist"):
        merge(read, tmp_path / "fails")
    (tmp_path / "fails").rmdir()
    folder = merge(read, tmp_path / "again", vision_weights=str(tmp_path / "base.safetensors"))
    for name in ("vision.safetensors", "head.safetensors"):
        first, again = (safetensors.torch.load_file(place / name) for place in (merged[0], folder))
        assert first.keys() == again.keys()
        assert all(torch.equal(value, again[key]) for key, value in first.items())
    plain.vision.block(0).mlp.fc1.weight.data += 1
    safetensors.torch.save_file(plain.vision.model.state_dict(), tmp_path / "base.safetensors")
    with pytest.raises(S4ecaError, match="was trained on vision weights"):
        merge(read, tmp_path / "other", vision_weights=str(tmp_path / "base.safetensors"))
    assert network.method.name == "lora"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert isinstance(result.exception, S4ecaError)
    return str(result.exception)


def test_a_merged_and_a_shared_folder_do_not_mix(trained, merged, tmp_path):
    folder = tmp_path / "merged"
    shutil.copytree(merged[0], folder)
    (folder / "README.md").write_text("a model card")
    before = contents(folder)
    said = refused("share", trained[1], folder)
    assert all(word in said for word in (str(folder), "vision.safetensors", "text", "new folder"))
    shared = share(read_checkpoint(trained[1]), tmp_path / "shared")
    assert "new or empty folder" in refused("merge", trained[1], shared)
    assert "brings its own weights" in refused("share", folder, tmp_path / "again")
    assert "brings its own weights" in refused("share", folder, shared)
    assert "is a file" in refused("share", trained[1], folder / "README.md")
    assert contents(folder) == before
    assert not (tmp_path / "again").exists()
    load_learned(rebuilt(folder), read_checkpoint(folder))
    (shared / "README.md").write_text("a model card")
    share(read_checkpoint(trained[1]), shared)
    assert set(contents(shared)) == {"README.md", "head.safetensors", "method.safetensors", "s4eca.json"}


def test_weights_that_an_earlier_version_has_left_in_a_shared_folder_are_not_taken(trained, merged, tmp_path):
    folder = share(read_checkpoint(trained[1]), tmp_path / "shared")
    shutil.copy(merged[0] / "vision.safetensors", folder)
    shutil.copytree(merged[0] / "text", folder / "text")
    read = read_checkpoint(folder)
    assert [read.config[tower]["weights"] for tower in ("vision", "text")] == ["random", "random"]
    load_learned(build_module(read.config).segmenter, read)


def test_other_methods_cannot_be_merged(tmp_path):
    path = checkpoint(tmp_path, "tuning.text.width=16", "tuning.text.heads=2", "tuning.visual.width=8")[1]
    with pytest.raises(S4ecaError, match="trained with tuning=s4eca, which cannot be merged: only tuning=lora can"):
        merge(read_checkpoint(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(trained, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(S4ecaError, match="exists already; give a new or empty folder"):
            merge(read_checkpoint(trained[1]), place)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_merged_network_cannot_be_merged_again(merged, tmp_path):
    with pytest.raises(S4ecaError, match="trained with tuning=frozen, which cannot be merged"):
        merge(read_checkpoint(merged[0]), tmp_path / "out")
