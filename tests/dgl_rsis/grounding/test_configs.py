from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dgl_rsis.grounding.phrases import make_phrase, make_view
from dgl_rsis.tiny_models import blip_options, clip_options
from s4eca.build import instantiate
from s4eca.dgl_rsis.base import Grounding

CONF = Path(__file__).resolve().parents[3] / "conf" / "grounding"
SHIP = make_phrase("a gray ship on the left", local="ship", context="gray left")


def load(name, **changes):
    node = OmegaConf.merge({"grounding": OmegaConf.load(CONF / f"{name}.yaml")}, changes)
    return OmegaConf.to_container(node, resolve=True)["grounding"]


def test_every_option_is_tested_and_says_what_it_is():
    assert {path.stem for path in CONF.glob("*.yaml")} == {"blip_itm", "clip", "tiny"}
    assert all(path.read_text(encoding="utf-8").startswith("# ") for path in CONF.glob("*.yaml"))


@pytest.mark.parametrize("name", ["blip_itm", "clip", "tiny"])
def test_options_build_with_tiny_weights(name):
    changes = {}
    if name == "blip_itm":  # as deep as the real one
        options = blip_options(text_config={"num_hidden_layers": 12, "vocab_size": 30524})
        changes = {"grounding": {"blip": {"weights": "random", "options": options}}}
    elif name == "clip":
        changes = {"clip": {"_target_": "s4eca.dgl_rsis.models.Clip", "weights": "random", "options": clip_options()}}
    grounding = instantiate(load(name, **changes), "grounding")
    assert isinstance(grounding, Grounding)
    (maps,) = grounding.maps(make_view(), [SHIP])
    assert maps.local.shape == {"blip_itm": (6, 6), "clip": (4, 4), "tiny": (12, 12)}[name]
    assert maps.whole.any()


def test_the_tiny_option_tells_places_and_words_apart():
    (maps,) = instantiate(load("tiny"), "grounding").maps(make_view(), [SHIP])
    for values in (maps.local, maps.context, maps.whole, maps.average):
        assert values.max() > 1.1 * values.min()
    assert abs(maps.local - maps.context).max() > 0.1 * maps.local.max()
