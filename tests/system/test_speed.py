"""`speed=`: what it switches, and who chooses it."""

import pytest

from runs import composed

pytestmark = pytest.mark.system

FAST = {
    "trainer.precision": "bf16-mixed",
    "matmul_precision": "high",
    "vision.attention": "sdpa",
    "model.segmenter.tower_dtype": "bf16",
    "model.segmenter.compile": "block",
    "data.pin_memory": True,
    "data.eval_batch_size": 32,
}
EXACT = {
    "trainer.precision": "32-true",
    "matmul_precision": "highest",
    "vision.attention": "eager",
    "model.segmenter.tower_dtype": "fp32",
    "model.segmenter.compile": "none",
    "data.pin_memory": False,
    "data.eval_batch_size": None,
}


def chosen(*overrides):
    config, found = composed(*overrides), {}
    for key in FAST:
        node = config
        for name in key.split("."):
            node = node[name]
        found[key] = node
    return found


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("", EXACT),
        ("trainer=gpu", FAST),
        ("trainer=gpu speed=exact", EXACT),
        ("trainer=ddp speed=fast", FAST),
        ("trainer=gpu experiment=lavt_recipe", EXACT),
        ("trainer=gpu experiment=rmsin_recipe", EXACT),
        ("trainer=gpu trainer.precision=32-true", {**FAST, "trainer.precision": "32-true"}),
        ("trainer=gpu vision=convnext_base", {**FAST, "vision.attention": "eager"}),
        ("trainer=gpu vision=dinov2_base speed=exact", {**EXACT, "vision.attention": "sdpa"}),
        ("trainer=gpu experiment=pet_comparison comparison=full", {**FAST, "model.segmenter.tower_dtype": "fp32"}),
    ],
)
def test_who_chooses(overrides, expected):
    assert chosen(*overrides.split()) == expected
