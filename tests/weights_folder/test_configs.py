"""Every shipped config runs from a weights folder, and what it builds is what the hub would have given.

The hub is one on this machine, with tiny random models; its real client fetches from it.
"""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch import nn
from typer.testing import CliRunner

from hub import reaching, serving
from runs import ROOT
from s4eca.build import build_model, open_weights
from s4eca.cli.weights import weights
from s4eca.errors import S4ecaError
from s4eca.weights import BaseWeights
from tiny_hub import publish, publish_vision, vision_options

GROUPS = ("vision", "text", "clip", "grounding", "proposer")
CONFIGS = [(group, path.stem) for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
CONFIGS.remove(("proposer", "precomputed"))  # its folder has no default, and it has no weights


def node_of(group, name):
    """A shipped config, with what only random weights could be asked for in the size of the tiny hub's models."""
    root = OmegaConf.create(
        {"image_size": 64, "window_attention": "eager", group: OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")}
    )
    if name == "clip" and group == "grounding":
        root["clip"] = OmegaConf.load(ROOT / "conf/clip/openai_b16.yaml")
    node = OmegaConf.to_container(root, resolve=True)[group]
    if group == "vision" and node["weights"] != "random":
        node["options"] = vision_options(node)
    if name == "blip_itm":
        node |= {"layer": 1, "enc_token_id": None}
    return node


def values(node, key):
    """What stands under a key, at any depth."""
    if isinstance(node, list):
        return [value for item in node for value in values(item, key)]
    if not isinstance(node, dict):
        return []
    own = [node[key]] if key in node else []
    return own + [value for inner in node.values() for value in values(inner, key)]


FROM_HUB = [(group, name) for group, name in CONFIGS if set(values(node_of(group, name), "weights")) - {"random"}]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("hub")) as hub:
        publish(hub)
        for name in sorted({node_of("vision", name)["name"] for group, name in FROM_HUB if group == "vision"}):
            node = next(node_of("vision", item) for group, item in FROM_HUB if group == "vision"
                        and node_of("vision", item)["name"] == name)  # fmt: skip
            if node["weights"] == "hub":
                publish_vision(hub, f"timm/{name}", name)
        yield hub


@pytest.fixture(scope="module")
def folder(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fetched") / "weights"
    with reaching(hub, tmp_path_factory.mktemp("no_cache")):
        result = CliRunner().invoke(weights, ["fetch", f"out={folder}", "all"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def models_in(built):
    """Every model with weights in what a config builds."""
    if isinstance(built, nn.Module) and isinstance(getattr(built, "base", None), BaseWeights):
        return [built]
    inner = [*vars(built).values(), *(built.children() if isinstance(built, nn.Module) else [])]
    items = [item for value in inner for item in (value if isinstance(value, list) else [value])]
    found = {id(model): model for item in items if isinstance(item, nn.Module) for model in models_in(item)}
    return list(found.values())


def vocabulary(model):
    load = getattr(model, "load_tokenizer", None)
    tokenizer = load() if load else getattr(model, "tokenizer", None)
    return tokenizer and (tokenizer.get_vocab(), tokenizer("a gray ship").input_ids, tokenizer.pad_token_id)


def identity(model):
    """What the cache of the training-free method knows a model by."""
    return model.identity() if hasattr(model, "identity") else None


@pytest.mark.parametrize(("group", "name"), FROM_HUB)
def test_a_config_runs_from_the_folder_as_it_would_from_the_hub(hub, folder, cache, group, name):
    node = node_of(group, name)
    with reaching(hub, cache):
        expected = models_in(build_model(node, group, None))
        words = [vocabulary(model) for model in expected]
    asked = len(hub.asked)
    before = OmegaConf.to_yaml(OmegaConf.create(node))
    found = models_in(build_model(node, group, open_weights({"weights_folder": str(folder)})))  # without a network
    assert found
    assert [model.base for model in found] == [model.base for model in expected]
    assert {model.base.source for model in found} <= set(values(node, "weights"))
    assert [vocabulary(model) for model in found] == words
    assert [identity(model) for model in found] == [identity(model) for model in expected]
    assert len(hub.asked) == asked
    assert OmegaConf.to_yaml(OmegaConf.create(node)) == before


def test_configs_without_hub_weights_are_the_known_ones():
    assert sorted(set(CONFIGS) - set(FROM_HUB)) == [
        ("clip", "tiny"), ("grounding", "tiny"), ("proposer", "felzenszwalb"), ("proposer", "oracle"),
        ("proposer", "slic"), ("proposer", "superpixels"), ("text", "bert_demo"), ("vision", "swin_demo"),
    ]  # fmt: skip


def test_parts_within_parts_are_resolved_too(folder):
    sam = node_of("proposer", "sam")
    union = {"_target_": "s4eca.dgl_rsis.proposals.union.Union",
             "proposers": [sam, {"_target_": "s4eca.dgl_rsis.proposals.superpixels.Slic"}]}  # fmt: skip
    kept = open_weights({"weights_folder": str(folder)})
    built = build_model(union, "proposer", kept)
    assert built.proposers[0].base.source == "hub"
    assert built.proposers[0].base == build_model(sam, "proposer", kept).base
    oracle = {"_target_": "s4eca.dgl_rsis.proposals.oracle.Oracle", "distractors": sam}
    assert build_model(oracle, "proposer", kept).distractors.base == built.proposers[0].base


def test_the_commands_configs_have_the_key():
    for name in ("train", "eval", "dgl_fill", "dgl_recall", "dgl_sweep"):
        config = OmegaConf.load(ROOT / "conf" / f"{name}.yaml")
        assert "weights_folder" in config
        assert config.weights_folder is None


def test_paths_and_random_weights_are_left_alone(folder, tmp_path):
    kept = open_weights({"weights_folder": str(folder)})
    demo = node_of("vision", "swin_demo")
    assert build_model(demo, "vision", kept).base == build_model(demo, "vision", None).base
    local = Path(folder) / "google-bert--bert-base-uncased"
    tower = build_model({**node_of("text", "bert_base"), "weights": str(local)}, "text", kept)
    assert (tower.base.source, tower.tokenizer_source) == (local.name, str(local))
    with pytest.raises(S4ecaError, match=r"text\.weights=.*nowhere does not exist"):
        build_model({**node_of("text", "bert_base"), "weights": str(tmp_path / "nowhere"), "tokenizer": str(local)},
                    "text", kept)  # fmt: skip
