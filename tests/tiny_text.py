"""Tiny random text towers, one per family; a new family is one entry of TEXT."""

from typing import Any

from s4eca.towers import BertTower, ClipTextTower, DistilBertTower, RobertaTower
from s4eca.towers.base import TextTower

BERT = {
    "vocab_size": 256,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
DISTILBERT = {"vocab_size": 256, "dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 64}


def _bert(seed: int, options: dict[str, Any]) -> BertTower:
    return BertTower(weights="random", seed=seed, options={**BERT, **options})


def _roberta(seed: int, options: dict[str, Any]) -> RobertaTower:
    return RobertaTower(weights="random", seed=seed, options={**BERT, **options})


def _distilbert(seed: int, options: dict[str, Any]) -> DistilBertTower:
    return DistilBertTower(weights="random", seed=seed, options={**DISTILBERT, **options})


def _clip(seed: int, options: dict[str, Any]) -> ClipTextTower:
    return ClipTextTower(weights="random", seed=seed, options={**BERT, **options})


TEXT = {
    "bert": _bert,
    "roberta": _roberta,
    "distilbert": _distilbert,
    "clip": _clip,
}


def tiny_text(family: str = "bert", seed: int = 0, **options: Any) -> TextTower:
    return TEXT[family](seed, options)
