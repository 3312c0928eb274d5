"""Random combinations of options and settings: each builds and makes a step, or is refused by a sentence."""

import copy
import re
import warnings
from collections import Counter
from functools import cache
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck
from hypothesis import strategies as st

from runs import ROOT, composed
from s4eca.build import build_data, build_module
from s4eca.cli.check_config import check_config
from s4eca.dry_build import dry_build
from s4eca.errors import S4ecaError
from s4eca.features import check_cacheable
from s4eca.frozen_dtype import check_precision
from s4eca.lit.optimizer import build_adamw
from s4eca.lit.sharded import check_sharded
from s4eca.sharing import Rows, Shared
from s4eca.switches import find
from tiny_text import BERT, DISTILBERT
from tiny_vision import CONVNEXT, NAMES, SWIN, VIT

BATCH, LENGTH = 3, 8
TINY = ("data=synthetic", "vision=swin_demo", "text=bert_demo")


@cache
def _base() -> dict[str, Any]:
    return composed(*TINY)


@cache
def _option(group: str, option: str) -> dict[str, Any]:
    config = composed(*TINY, f"{group}={option}")
    return config["data"]["augmentation"] if group == "augmentation" else config[group]


@cache
def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def tiny_tower(group: str, option: str) -> dict[str, Any]:
    """An option of `vision` or `text` with its own class and attention, and random weights of a few blocks."""
    node = copy.deepcopy(_option(group, option))
    kind, name = node["_target_"].rpartition(".")[2], node["name"]
    if group == "text":
        return {**node, "weights": "random", "options": dict(DISTILBERT if kind == "DistilBertTower" else BERT)}
    family, sizes = {
        "SwinTower": ("swinv2" if name.startswith("swinv2") else "swin", SWIN),
        "ConvNextTower": ("convnext", CONVNEXT),
        "ViTTower": ("dinov3" if "dinov3" in name else "vit", {**VIT, "patch_size": 16}),
    }[kind]
    return {**node, "name": NAMES[family], "weights": "random", "options": dict(sizes)}


# settings that a network may get on top of its options; those of another option too, as a replaced one leaves them
SETTINGS: dict[str, list[Any]] = {
    "decoder.width": [8, 16, 20, 0, -8, "abc"],
    "decoder.factor": [1, 4, 999, 0, -2, 1.5],
    "refine.width": [16, 24, 0, "wide"],
    "fusion.feedback": [True, "yes"],
    "fusion.heads": [2, 3, 0, -1],
    "fusion.dropout": [0.1, 2, "a"],
    "loss.reduction": ["batch", "sum"],
    "loss.weight": [[1, 2], [1, -1], [1], 3, ["a", "b"]],
    "loss.smooth": [1.0, "x"],
    "tuning.width": [16, 12, 0, "wide"],
    "tuning.rank": [2, -1, 2.5],
    "tuning.dropout": [0.2, 1, "a"],
    "tuning.text_layers": [2, 99, -1, "all", ["query"], ["nothing"]],
    "tuning.vision_layers": ["all", ["proj"], "some"],
    "tuning.vision": [True, False],
    "tuning.text": [False],
    "tuning.language": ["words", "mean_word", "signs"],
    "tuning.routing": [[0, 1, 2, 3], [1], "first"],
    "tuning.visual.density": [[0, 0, 0.5, 1], [0, 0, 0, 0], [1], 0.5],
    "tuning.visual.kernels": [[3], [], [2], "3"],
    "tuning.visual.scale": ["uniform", "text"],
    "tuning.text.proxies": [1, 0],
    "tuning.text.dropout": [0.3],
    "model.segmenter.head_logits": [2, 3],
    "model.segmenter.placement": ["side", "beside"],
    "model.segmenter.start_stage": [2, 3, 4, 5, "two"],
    "model.segmenter.grad_checkpointing": ["block", "stage", "all"],
    "model.segmenter.compile": ["block", "fast"],
    "model.segmenter.tower_dtype": ["bf16", "fp16"],
    "model.segmenter.channels_last": [False, 1],
    "model.segmenter.encode_once": [True, False],
    "model.segmenter.depth": [3],
    "model.feature_cache": ["features"],
    "model.lr": [1e-3, 0, "fast"],
    "model.warmup_steps": [0, -1, 1.5],
    "vision.attention": ["sdpa", "eager", "flash"],
    "text.attention": ["sdpa", "eager", "flash"],
    "vision.options.drop_path_rate": [0.2],
    "image_size": [32, 50, 96],
    "trainer.precision": ["bf16-mixed"],
    "data.max_tokens": [600, 2],
    "budget": [10, 0, "much"],
}

combinations = st.fixed_dictionaries(
    {
        "options": st.fixed_dictionaries(
            {
                group: st.sampled_from(_options(group))
                for group in ("vision", "text", "tuning", "decoder", "refine", "loss")
            }
            | {"fusion": st.sampled_from(["none", "film", "pwam", "pwam"])}
            | {"augmentation": st.sampled_from(["none", "none", "geometric"])}
            | {"trainer": st.sampled_from(["default", "default", "default", "fsdp"])}
        ),
        "settings": st.lists(st.sampled_from(sorted(SETTINGS)), max_size=4, unique=True).flatmap(
            lambda keys: st.fixed_dictionaries({key: st.sampled_from(SETTINGS[key]) for key in keys})
        ),
    }
)


def build_config(options: dict[str, str], values: dict[str, Any]) -> dict[str, Any]:
    """Puts options and settings together as composing does, only sooner."""
    config = copy.deepcopy(_base())
    for group, option in options.items():
        if group in ("vision", "text"):
            config[group] = tiny_tower(group, option)
        else:
            (config["data"] if group == "augmentation" else config)[group] = copy.deepcopy(_option(group, option))
    config["trainer"]["precision"] = "32-true"
    config["vision"]["image_size"] = config["data"]["image_size"] = values.get("image_size", 64)
    for key, value in values.items():
        place = find(config, key.rpartition(".")[0]) if "." in key else config
        if isinstance(place, dict):  # some methods' `text` is no group of keys
            place[key.rpartition(".")[2]] = value
    return config


def step(config: dict[str, Any]) -> None:
    """Builds what a config says, and makes a step with it as its precision asks."""
    build_data(config)
    torch.manual_seed(0)
    module = build_module(config)
    segmenter, precision = module.segmenter, config["trainer"]["precision"]
    check_precision(segmenter, precision)
    segmenter.text.check_length(config["data"]["max_tokens"])
    check_cacheable(module.features, build_data(config), precision)
    if "FSDP" in str(config["trainer"].get("strategy")):
        check_sharded(module, precision)
    if segmenter.runner.compiled or config["budget"] is not None:
        return  # compiling takes minutes; the width is solved elsewhere
    side = config["vision"]["image_size"]
    image = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8)
    image[1] = image[0]
    words, mask = torch.randint(5, 256, (BATCH, LENGTH)), torch.ones(BATCH, LENGTH, dtype=torch.long)
    words[2], mask[1, -3:] = words[0], 0
    shared = Shared(
        Rows(torch.tensor([0, 1]), torch.tensor([0, 1, 0])), Rows(torch.tensor([0, 2]), torch.tensor([0, 0, 1]))
    )
    truth = torch.zeros(BATCH, side, side, dtype=torch.bool)
    truth[:, : side // 2] = True
    optimizer = build_adamw(segmenter, 1e-3, 1e-2, fused=True)
    segmenter.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = module.loss(segmenter(image, words, mask, shared=shared), truth)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    grads = [p.grad for p in segmenter.parameters() if p.requires_grad]
    assert grads
    assert all(grad is None or grad.isfinite().all() for grad in grads)


def said(action: Any, *arguments: Any) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            action(*arguments)
        except S4ecaError as error:
            return str(error)
    return None


def outcome(drawn: dict[str, Any]) -> str:
    """Returns `built` or `refused`, and fails on anything else."""
    config = build_config(drawn["options"], drawn["settings"])
    late = said(check_config, config)
    if late is None:
        late = said(dry_build, config, True)
        stepped = said(step, config)
        if config["budget"] is None:  # a dry build and the real one agree, but for what only a batch tells
            assert (late is None) == (stepped is None) or "grid of one" in str(stepped), (late, stepped)
        late = late or stepped
    if late is None:
        return "built"
    assert re.fullmatch(r"(?!.*Traceback).*\b[a-z_]+(\.[a-z_]+)*\b.*\.", late), late
    return "refused"


def count(examples: int, seed: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @hypothesis.given(combinations)
    def draw(drawn: dict[str, Any]) -> None:
        outcomes[outcome(drawn)] += 1

    draw()
    return outcomes


def test_a_combination_builds_and_steps_or_is_refused_by_a_sentence():
    assert min(count(30, seed=14).values()) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_combinations_build_and_step_or_are_refused_by_a_sentence(seed):
    outcomes = count(100, seed)
    print(outcomes)
    assert min(outcomes.values()) >= 20
