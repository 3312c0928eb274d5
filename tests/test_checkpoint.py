import shutil

import pytest
import torch

from s4eca.checkpoint import load_learned, read_checkpoint, share
from s4eca.errors import S4ecaError
from tiny import tiny_inputs
from toy import RandomState, every_step, fit, toy_data, toy_method, toy_module, toy_trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    data = toy_data(folder / "data")
    module = toy_module(config={"model": {"lr": 3e-3}})
    fit(module, data, toy_trainer(folder, every_step(folder, 12), RandomState()))
    return module, folder / "checkpoints" / "step=12.ckpt", data


@pytest.fixture
def content(trained):
    return torch.load(trained[1], weights_only=True)


def save(content, tmp_path):
    torch.save(content, tmp_path / "changed.ckpt")
    return tmp_path / "changed.ckpt"


def test_holds_what_can_change_and_says_what_it_is(trained, content):
    module, path, data = trained
    names = {name.removeprefix("segmenter.") for name in content["state_dict"]}
    assert names == set(module.segmenter.learned_state())
    assert not any(name.startswith(("text.", "vision.")) for name in names)
    meta = content["s4eca"]
    assert set(meta) == {"versions", "config", "tokenizer", "method", "base", "data"}
    assert meta["method"] == {"name": "s4eca", "placement": "inside"}
    assert meta["config"] == {"model": {"lr": 3e-3}}
    assert meta["base"]["vision"]["sha256"] == module.segmenter.vision.base.sha256
    assert meta["data"] == {"name": "synthetic", **data.fingerprint(("train", "val"))}
    towers = sum(p.numel() for p in module.segmenter.text.parameters()) + sum(
        p.numel() for p in module.segmenter.vision.parameters()
    )
    assert sum(value.numel() for value in content["state_dict"].values()) < towers
    again = read_checkpoint(path).tokenizer()
    sentence = ["The gray ship on the left"]
    assert again(sentence).input_ids == data.tokenizer(sentence).input_ids


def test_restores_the_network_exactly(trained):
    module, path, _ = trained
    other = toy_module(seed=5)
    load_learned(other.segmenter, read_checkpoint(path))
    assert torch.equal(other.segmenter.eval()(*tiny_inputs()), module.segmenter.eval()(*tiny_inputs()))


def full_disk(path, text):
    raise OSError(28, "No space left on device")


def test_the_shared_folder_is_the_same_checkpoint(trained, tmp_path):
    module, path, _ = trained
    folder = share(read_checkpoint(path), tmp_path / "shared")
    assert sorted(item.name for item in folder.iterdir()) == ["head.safetensors", "method.safetensors", "s4eca.json"]
    other = toy_module(seed=5)
    load_learned(other.segmenter, read_checkpoint(folder))
    assert torch.equal(other.segmenter.eval()(*tiny_inputs()), module.segmenter.eval()(*tiny_inputs()))
    share(read_checkpoint(path), folder)  # writing it again is fine
    before = {item.name: item.read_bytes() for item in folder.iterdir()}
    with pytest.MonkeyPatch.context() as patch:  # on a full disk the old one stays whole
        patch.setattr("s4eca.checkpoint.write_text", full_disk)
        with pytest.raises(S4ecaError, match=r"cannot be written .*make room"):
            share(read_checkpoint(path), folder)
    assert {item.name: item.read_bytes() for item in folder.iterdir()} == before
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(S4ecaError, match="exists and is no shared checkpoint"):
        share(read_checkpoint(path), tmp_path / "taken")
    assert [item.name for item in (tmp_path / "taken").iterdir()] == ["thesis.txt"]


def test_damaged_shared_folders(trained, tmp_path):
    folder = share(read_checkpoint(trained[1]), tmp_path / "shared")
    (folder / "head.safetensors").rename(folder / "tail.safetensors")
    with pytest.raises(S4ecaError, match=r"it lacks head\.safetensors"):
        read_checkpoint(folder)
    (folder / "head.safetensors").write_bytes(b"1234")
    with pytest.raises(S4ecaError, match="cannot be read as a shared checkpoint"):
        read_checkpoint(folder)
    shutil.copy(folder / "tail.safetensors", folder / "head.safetensors")
    (folder / "s4eca.json").write_text("{")
    with pytest.raises(S4ecaError, match="cannot be read as a shared checkpoint"):
        read_checkpoint(folder)


@pytest.mark.parametrize("way", ["load", "resume"])
@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "base", "method", "placement"])
def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(trained, content, tmp_path, damage, way):
    state, (first, *_) = content["state_dict"], sorted(content["state_dict"])
    if damage == "missing":
        del state[first]
        message = "lacks 1 tensors such as decoder"
    elif damage == "extra":
        state["segmenter.method.surprise"] = torch.zeros(2)
        message = "has 1 tensors too many such as method.surprise"
    elif damage == "shape":
        state[first] = torch.zeros(*state[first].shape, 2)
        message = "holds decoder.* of shape .*, 2\\), and this network needs"
    elif damage == "method":
        content["s4eca"]["method"]["name"] = "lora"
        message = r"was trained with tuning=lora, placement=inside, and this network has tuning=s4eca.*set tuning=lora"
    elif damage == "placement":
        content["s4eca"]["method"]["placement"] = "side"
        message = r"with tuning=s4eca, placement=side, .* set tuning=s4eca model\.segmenter\.placement=side"
    else:
        message = r"was trained on vision weights .* from random:0 .*give the same weights with vision\.weights=PATH"
    module = toy_module(seed=3, vision_seed=1 if damage == "base" else 0)
    before = {name: value.clone() for name, value in module.segmenter.state_dict().items()}
    path = save(content, tmp_path)
    with pytest.raises(S4ecaError, match=message):
        if way == "load":
            load_learned(module.segmenter, read_checkpoint(path))
        else:
            fit(module, trained[2], toy_trainer(tmp_path), resume=path)
    after = module.segmenter.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_other_settings_are_refused(trained):
    with pytest.raises(S4ecaError, match=r"lacks .* same tuning, fusion, decoder and refine"):
        load_learned(toy_module(method=type(toy_method())()).segmenter, read_checkpoint(trained[1]))


def test_unreadable_files(tmp_path):
    with pytest.raises(S4ecaError, match="there is no checkpoint at"):
        read_checkpoint(tmp_path / "nowhere.ckpt")
    (tmp_path / "half.ckpt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(S4ecaError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "half.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(S4ecaError, match="is not a checkpoint of s4eca"):
        read_checkpoint(tmp_path / "foreign.ckpt")


def test_nothing_is_unpickled(tmp_path, content):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    content["s4eca"]["config"] = Trap()
    with pytest.raises(S4ecaError, match="never unpickled"):
        read_checkpoint(save(content, tmp_path))
    assert not (tmp_path / "sprung").exists()


def test_another_tokenizer_cannot_be_resumed_with(trained, tmp_path):
    data = toy_data(trained[1].parents[1] / "data")
    data.tokenizer.add_tokens(["runway"])
    with pytest.raises(S4ecaError, match=r"another tokenizer than text\.tokenizer"):
        fit(toy_module(seed=3), data, toy_trainer(tmp_path), resume=trained[1])


def test_other_data_cannot_be_resumed_on(trained, tmp_path):
    data = toy_data(tmp_path / "data", scene_seed=4)
    with pytest.raises(S4ecaError, match=r"the train split has changed.*init_from=CKPT"):
        fit(toy_module(), data, toy_trainer(tmp_path), resume=trained[1])


def test_a_run_without_config_says_so(trained, content, tmp_path):
    content["s4eca"]["config"] = {}
    with pytest.raises(S4ecaError, match="written by a Python script without a config"):
        _ = read_checkpoint(save(content, tmp_path)).config
