from pathlib import Path

import pytest
from lightning.pytorch.loggers import WandbLogger

from s4eca.data import RRSISDDataModule
from s4eca.decoders.fpn import FPNDecoder
from s4eca.errors import S4ecaError
from s4eca.lit.distributed import DDP
from s4eca.settings import UnknownSettingError, check_keys, check_values, taken_by
from s4eca.towers import BertTower
from s4eca.towers.transformers_text import TransformersTower
from s4eca.tuning import Frozen

FPN = {"_target_": "s4eca.decoders.fpn.FPNDecoder", "_partial_": True}
PWAM = {"_target_": "s4eca.fusion.pwam.PWAM", "_partial_": True}
S4ECA = {"_target_": "s4eca.tuning.S4ECA"}
VISUAL = {"_target_": "s4eca.tuning.s4eca.VisualSettings"}
FILM = {"_target_": "s4eca.fusion.film.FiLM"}


def test_a_class_takes_its_own_arguments_and_those_that_it_hands_on():
    assert list(taken_by(FPNDecoder).defaults) == ["channels", "out_channels", "width"]
    assert {"split_by", "root", "batch_size"} <= taken_by(RRSISDDataModule).defaults.keys()
    assert taken_by(RRSISDDataModule).defaults["max_tokens"] == 22, "its own, where the base has another"
    assert taken_by(RRSISDDataModule).kinds["root"] == str | Path
    assert taken_by(BertTower).defaults == taken_by(TransformersTower).defaults, "it has no constructor"
    assert taken_by(Frozen).defaults == {}, "nn.Module's takes anything, and refuses it"
    assert list(taken_by(DDP).defaults) == ["process_group_backend", "timeout_minutes"]
    assert taken_by(DDP).whole
    assert not taken_by(WandbLogger).whole, "wandb.init takes what is left"


@pytest.mark.parametrize(
    ("node", "key", "said"),
    [
        ({**FPN, "width": 8, "factor": 2}, "decoder", r"decoder\.factor=2 is not .*\(width\).*~decoder\.factor"),
        ({**FPN, "a": 1, "b": None}, "decoder", r"decoder\.a=1 and decoder\.b=null are.*~decoder\.a ~decoder\.b\."),
        ({**FILM, "heads": 2}, "fusion", r"fusion\.heads=2 is not among its settings \(it has none\)"),
        (
            {**S4ECA, "visual": {**VISUAL, "kernel": 3}}, "tuning",
            r"tuning\.visual\.kernel=3",
        ),
        ({"_target_": "lightning.pytorch.Trainer", "max_epoch": 3}, "trainer", r"max_epoch=3 .*\(max_epochs\)"),
        ({"a": [{"_target_": "s4eca.losses.BCEDice", "x": 1}]}, "loss", r"loss\.a\[0\]\.x=1"),
    ],
)  # fmt: skip
def test_a_key_that_nothing_takes_is_named(node, key, said):
    with pytest.raises(UnknownSettingError, match=said):
        check_keys(node, key)


@pytest.mark.parametrize(
    ("node", "key", "said"),
    [
        ({**FPN, "width": "abc"}, "decoder", r"decoder\.width=abc is no whole number"),
        ({**FPN, "width": True}, "decoder", r"decoder\.width=true is no whole number"),
        ({**FPN, "width": None}, "decoder", r"decoder\.width=null is no whole number"),
        ({**FPN, "width": 8.0}, "decoder", r"decoder\.width=8\.0 is no whole number"),
        ({**PWAM, "feedback": 1}, "fusion", r"fusion\.feedback=1 is neither true nor false"),
        ({**PWAM, "dropout": "0.1"}, "fusion", r"fusion\.dropout=0\.1 is no number"),
        ({"_target_": "s4eca.losses.CrossEntropy", "weight": 3}, "loss", r"loss\.weight=3 is no list"),
        ({"_target_": "s4eca.losses.CrossEntropy", "weight": ["a", 1]}, "loss", r"loss\.weight=\['a', 1\] is no list"),
        ({**S4ECA, "language": "signs"}, "tuning", r"tuning\.language=signs is none of proxies, words, mean_word"),
        ({**S4ECA, "visual": {"width": 3}}, "tuning", r"tuning\.visual=.* is no VisualSettings or null"),
        ({**FPN, "channels": [1]}, "decoder", r"decoder\.channels is no setting, the program gives it"),
        ({"_target_": "s4eca.data.RefSegRSDataModule"}, "data", r"data\.root is missing"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named(node, key, said):
    check_keys(node, key)
    with pytest.raises(S4ecaError, match=said):
        check_values(node, key)


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({**FPN, "width": 16}, "decoder"),
        ({**PWAM, "dropout": 0}, "fusion"),
        ({"_target_": "s4eca.losses.CrossEntropy", "weight": [1, 1.5]}, "loss"),
        ({**S4ECA, "routing": [1, 2], "visual": {**VISUAL, "density": [1, 0.5]}}, "tuning"),
        ({"_target_": "s4eca.tuning.LoRA", "text_layers": "all", "vision_layers": ["qkv"], "alpha": None}, "tuning"),
    ],
)
def test_what_fits_passes(node, key):
    check_keys(node, key)
    check_values(node, key)
