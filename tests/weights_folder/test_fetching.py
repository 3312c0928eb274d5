"""Fetching into a weights folder, verifying it, and what happens to a folder that is not as it was fetched."""

import hashlib
import json
import shutil
from collections import namedtuple

import pytest
from huggingface_hub.hf_api import RepoSibling
from typer.testing import CliRunner

from hub import COMMIT, reaching, serving
from s4eca.build import build_model, open_weights
from s4eca.cli.weights import weights
from s4eca.errors import S4ecaError
from s4eca.towers import BertTower
from s4eca.weights_folder import Need, fetch_weights, place, read_folder, usable_folder, verify_folder
from s4eca.weights_folder.fetching import choose_files
from tiny_hub import tokenizer
from tiny_text import BERT

NAME = "google-bert/bert-base-uncased"
NODE = {"_target_": "s4eca.towers.BertTower", "name": NAME, "weights": "hub"}
WEIGHTS, TOKENIZER = Need(f"text.name={NAME}", NAME, "weights"), Need(f"text.name={NAME}", NAME, "tokenizer")
IMAGE = Need("vision.name=swin", "timm/swin", "weights", ("model.safetensors", "pytorch_model.bin"))


@pytest.fixture
def hub(tmp_path):
    with serving(tmp_path / "hub") as hub:
        BertTower(weights="random", options=BERT).model.save_pretrained(hub.put(NAME))
        tokenizer().save_pretrained(hub.root / NAME)
        (hub.root / NAME / "tf_model.h5").write_bytes(b"nobody here reads this")
        (hub.put("timm/swin") / "pytorch_model.bin").write_bytes(b"a tower")
        with reaching(hub, tmp_path / "cache"):
            yield hub


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "weights"


def fetch(folder, *needs):
    said = []
    fetch_weights(needs or (WEIGHTS, TOKENIZER, IMAGE), folder, said.append)
    return said


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_the_manifest_says_what_each_file_is(hub, folder):
    fetch(folder)
    content = manifest(folder)["repositories"]
    assert files_of(folder) == {"manifest.json", "timm--swin/pytorch_model.bin"} | {
        f"google-bert--bert-base-uncased/{path.name}" for path in (hub.root / NAME).iterdir() if path.suffix != ".h5"
    }
    for repository, record in content.items():
        assert (record["revision"], record["licence"]) == (COMMIT, "apache-2.0")
        assert record["versions"].keys() == {"s4eca", "huggingface_hub", "timm", "transformers"}
        for name, said in record["files"].items():
            published = (hub.root / repository / name).read_bytes()
            assert said == {"sha256": hashlib.sha256(published).hexdigest(), "size": len(published)}
            assert (folder / repository.replace("/", "--") / name).read_bytes() == published
    assert content[NAME]["serves"] == [f"text.name={NAME}"]
    assert content["timm/swin"]["parts"] == {"weights": ["pytorch_model.bin"]}


def test_what_is_there_and_intact_is_not_fetched_again(hub, folder):
    fetch(folder)
    hub.asked.clear()
    assert fetch(folder) == [f"{NAME}: there already, intact", "timm/swin: there already, intact"]
    assert hub.asked == []
    home = folder / "google-bert--bert-base-uncased"
    (home / "tokenizer.json").unlink()
    (home / "model.safetensors").write_bytes(bytes((home / "model.safetensors").stat().st_size))
    fetch(folder)
    assert sorted(hub.downloads()) == [f"{NAME}/model.safetensors", f"{NAME}/tokenizer.json"]
    assert verify_folder(read_folder(folder), lambda *_: None) == []


def test_a_fetch_that_was_broken_off_between_files_goes_on(hub, folder):
    def stop(line):
        if "(2 of" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_weights([WEIGHTS], folder, stop)
    first = hub.downloads()
    assert len(first) == 2
    with pytest.raises(S4ecaError, match=r"lacks weights of google-bert/bert-base-uncased, which text\.name="):
        place(read_folder(folder), NODE, "text")  # two files are not yet a model
    fetch(folder, WEIGHTS)
    assert len(hub.downloads()) == len(set(hub.downloads())) == len(manifest(folder)["repositories"][NAME]["files"])


def test_a_lost_connection_goes_on_within_the_file(hub, folder, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.break_after = (hub.root / NAME / "model.safetensors").stat().st_size // 2
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    half = hub.break_after
    fetch(folder, WEIGHTS)
    assert 0 < max(hub.starts) <= half
    assert verify_folder(read_folder(folder), lambda *_: None) == []


def test_a_hub_that_goes_away_within_a_file(hub, folder, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.break_after, hub.goes_away = 1000, True  # within tokenizer.json or model.safetensors
    with pytest.raises(S4ecaError, match=r"1 of 1 repositories were not fetched: .* of google-bert/.* was refused"):
        fetch(folder, WEIGHTS)
    kept = files_of(folder) - {"manifest.json"}
    assert kept
    assert not [name for name in kept if "model.safetensors" in name or name.endswith(".incomplete")]
    hub.is_down = False
    hub.asked.clear()
    fetch(folder, WEIGHTS)
    assert not {f"{NAME}/{name.rpartition('/')[2]}" for name in kept if ".fetching" not in name} & {*hub.downloads()}
    assert verify_folder(read_folder(folder), lambda *_: None) == []
    assert not (folder / ".fetching").exists()


def test_a_file_that_arrives_damaged_is_not_kept(hub, folder):
    hub.lies["pytorch_model.bin"] = "0" * 64
    with pytest.raises(S4ecaError, match=r"pytorch_model\.bin of timm/swin arrived damaged, with the sha256"):
        fetch(folder)
    assert read_folder(folder).records[NAME].parts.keys() == {"weights", "tokenizer"}  # the others are there
    assert "timm/swin" not in read_folder(folder).records
    hub.lies.clear()
    fetch(folder)


def test_a_tokenizer_alone_and_its_weights_later(hub, folder):
    fetch(folder, TOKENIZER)
    assert not any(name.endswith(".safetensors") for name in files_of(folder))
    with pytest.raises(S4ecaError, match=r"lacks weights of google-bert.*add it with `s4eca weights fetch out="):
        place(read_folder(folder), NODE, "text")
    fetch(folder, WEIGHTS)
    assert any(line.endswith(f"/{NAME}/revision/{COMMIT}") for line in hub.asked)  # of the same commit
    assert place(read_folder(folder), NODE, "text")["tokenizer"] == str(folder / "google-bert--bert-base-uncased")


def test_the_hub_refuses(hub, folder):
    hub.gated.add("timm/swin")
    absent = Need("text.name=nobody/nothing", "nobody/nothing", "weights")
    with pytest.raises(S4ecaError, match=r"2 of 3 .* nobody/nothing is not at the hub.*timm/swin is gated; accept its"):
        fetch(folder, absent, IMAGE, TOKENIZER)
    assert NAME in manifest(folder)["repositories"]
    with pytest.raises(S4ecaError, match=r"timm/swin has no other\.bin, which vision\.weights=hf:"):
        fetch(folder, Need("vision.weights=hf:timm/swin/other.bin", "timm/swin", "other.bin", ("other.bin",)))


def test_without_a_network(folder):
    with pytest.raises(S4ecaError, match=r"bert-base-uncased could not be reached.*where there is a network"):
        fetch(folder, WEIGHTS)


def test_a_full_disk_and_foreign_folders(hub, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    with pytest.raises(S4ecaError, match=r"needs .* KiB more and its disk has 1000 bytes free"):
        fetch(folder)
    assert hub.downloads() == []
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(S4ecaError, match=r"holds something else; give a new folder"):
        fetch(tmp_path / "thesis")
    with pytest.raises(S4ecaError, match=r"chapter\.txt is a file; give a folder"):
        fetch(tmp_path / "thesis" / "chapter.txt")


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin", "flax_model.msgpack"], ["model.safetensors"]),
        (["pytorch_model.bin", "rust_model.ot"], ["pytorch_model.bin"]),
        (
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"], None),
    ],
)
def test_the_files_that_transformers_would_read(there, expected):
    siblings = {name: RepoSibling(rfilename=name) for name in ["config.json", "README.md", "onnx/config.json", *there]}
    assert sorted(choose_files(WEIGHTS, siblings)) == sorted(["config.json", *(expected or there)])
    assert choose_files(TOKENIZER, siblings) == ["config.json"]


def run(*words):
    return CliRunner().invoke(weights, [*words])


def test_verify_names_what_is_damaged_missing_and_unknown(hub, folder):
    fetch(folder)
    result = run("verify", str(folder))
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "5 files of 2 repositories are intact")
    home = folder / "google-bert--bert-base-uncased"
    content = bytearray((home / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (home / "model.safetensors").write_bytes(content)
    (home / "config.json").unlink()
    (home / "extra.json").write_text("{}")
    (folder / "notes.txt").write_text("")
    for litter in (folder / ".DS_Store", folder / "Thumbs.db", home / "._model.safetensors"):
        litter.write_text("")
    result = run("verify", str(folder))
    assert isinstance(result.exception, S4ecaError)
    assert "4 files of" in str(result.exception)
    lines = [line.partition(" (")[0] for line in result.output.splitlines()]
    found = [line for line in lines if line.partition(" ")[0] in ("damaged:", "missing:", "unknown:")]
    home = "google-bert--bert-base-uncased"
    assert found == [
        f"missing: {home}/config.json", f"damaged: {home}/model.safetensors", "unknown: notes.txt",
        f"unknown: {home}/extra.json",
    ]  # fmt: skip


def test_a_config_does_not_run_from_a_folder_that_is_not_as_it_was_fetched(hub, folder):
    fetch(folder)
    home, config = folder / "google-bert--bert-base-uncased", {"weights_folder": str(folder)}
    assert build_model(NODE, "text", open_weights(config)).base.source == "hub"
    (home / "adapter_config.json").write_text("{}")
    with pytest.raises(S4ecaError, match=r"adapter_config\.json is not in the manifest .*; take it out"):
        build_model(NODE, "text", open_weights(config))
    (home / "adapter_config.json").unlink()
    content = bytearray((home / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (home / "model.safetensors").write_bytes(content)
    with pytest.raises(
        S4ecaError, match=r"model\.safetensors has the sha256 .*fetch it again with `s4eca weights fetch"
    ):
        build_model(NODE, "text", open_weights(config))
    (home / "model.safetensors").write_bytes(content[:-1])
    with pytest.raises(S4ecaError, match=r"model\.safetensors has \d+ bytes, and the manifest says"):
        build_model(NODE, "text", open_weights(config))
    (home / "model.safetensors").unlink()
    with pytest.raises(S4ecaError, match=r"model\.safetensors is in the manifest and not there"):
        build_model(NODE, "text", open_weights(config))
    with pytest.raises(S4ecaError, match=r"only parts of s4eca may be built"):
        build_model({"_target_": "os.system", "command": "true"}, "text", open_weights(config))


def test_a_folder_without_a_manifest_and_a_damaged_one(hub, folder, tmp_path):
    fetch(folder)
    with pytest.raises(S4ecaError, match=r"weights_folder=.*nowhere does not exist; give a folder that `s4eca weights"):
        open_weights({"weights_folder": str(tmp_path / "nowhere")})
    good = (folder / "manifest.json").read_text()
    changes = [
        good[: len(good) // 2],
        "[]",
        good.replace('"form": 1', '"form": 2'),
        good.replace('"size"', '"bytes"', 1),
        good.replace('"config.json": {', '"../config.json": {'),
        good.replace("google-bert/bert-base-uncased", "../bert"),
        good.replace('"revision"', '"surprise"', 1),
    ]
    for text in changes:
        assert text != good
        (folder / "manifest.json").write_text(text)
        with pytest.raises(S4ecaError, match=r"manifest\.json is damaged \(.*fetch into a new folder"):
            open_weights({"weights_folder": str(folder)})
    (folder / "manifest.json").unlink()
    with pytest.raises(S4ecaError, match=r"has no manifest\.json"):
        open_weights({"weights_folder": str(folder)})
    assert open_weights({}) is open_weights({"weights_folder": None}) is None


def test_the_command_says_what_is_missing(hub, folder):
    for words, message in (
        (["vision=swin_base"], r"give one with out=FOLDER"),
        ([f"out={folder}", "experiment=demo"], r"experiment=demo takes nothing from the hub"),
        ([f"out={folder}", "vision=nothing"], r"vision=nothing cannot be composed \(.*vision/nothing"),
        ([f"out={folder}", "vision=[1"], r"vision=\[1 has characters"),
    ):
        result = run("fetch", *words)
        assert isinstance(result.exception, S4ecaError)
        with pytest.raises(S4ecaError, match=message):
            raise result.exception
    assert not folder.exists()
    result = run("fetch", f"out={folder}", "clip=tiny", "grounding.blip.weights=hub",
                 f"grounding.blip.name={NAME}", "grounding=tiny")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"run from it with: weights_folder={folder}" in result.output
    assert "(1 of" in result.output


def test_a_folder_of_another_kind_is_not_the_checkpoints(tmp_path):
    config = {"weights_folder": str(tmp_path)}
    assert usable_folder(config) is None
    (tmp_path / "manifest.json").write_text("{}")
    assert usable_folder(config) == str(tmp_path)
    assert usable_folder({}) is None
