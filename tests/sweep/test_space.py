"""Search spaces: what they hold, what they refuse, and how values become overrides."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from s4eca.errors import S4ecaError
from s4eca.overrides import override
from s4eca.sweep.sampling import build_pruner, build_sampler
from s4eca.sweep.space import load_space
from sweep.made_sweep import SPACE, made_space


def test_a_file_becomes_distributions(tmp_path):
    space = made_space(tmp_path)
    lr, width, kernels, fusion = space.axes
    assert lr.distribution == FloatDistribution(1e-4, 1e-2, log=True)
    assert width.distribution == IntDistribution(8, 16, step=8)
    assert kernels.distribution == CategoricalDistribution(["[1,3]", "[1,3,5]"])
    assert kernels.values == [[1, 3], [1, 3, 5]]
    assert fusion.values == ["none", "film"]
    assert (space.metric, space.direction) == ("val/mIoU", "maximize")


@pytest.mark.parametrize(
    "value",
    [1e-05, 0.00012345678901234567, 3, True, None, "film", "null", "1.5", "a b,c", "it's", "ä", [1, "x y"], [[1], []]],
)
def test_hydra_reads_a_written_value_back(value):
    parsed = OverridesParser.create().parse_override(override("some.key", value))
    assert parsed.key_or_group == "some.key"
    assert parsed.value() == value
    assert type(parsed.value()) is type(value)


def line(text: str) -> str:
    return SPACE.replace("{type: int, low: 8, high: 16, step: 8}", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPACE.replace("sampler:", "samplr:"), "has samplr, and knows direction, metric, pruner"),
        (SPACE.replace("maximize", "up"), "direction: maximize or minimize, and has up"),
        (SPACE.replace("val/mIoU", "test/mIoU"), r"score of the validation split, and has test/mIoU"),
        (SPACE.partition("space:")[0], "needs space: with a line per key"),
        (SPACE.replace("{name: median", "{n: median"), r"needs pruner: \{name: …\}"),
        (line("16"), r"tuning\.visual\.width needs \{choices"),
        (line("{type: normal, low: 1, high: 2}"), "type: normal, and knows float and int"),
        (line("{type: int, min: 1, high: 2}"), r"tuning\.visual\.width has min; an int knows low"),
        (line("{type: int, low: 1.5, high: 2}"), r"has low: 1\.5, where an int is needed"),
        (line("{type: float, low: 1, high: many}"), "has high: many, where a float is needed"),
        (line("{type: int, high: 2}"), "has low: None, where an int is needed"),
        (line("{type: int, low: 9, high: 2}"), "has low: 9 and high: 2; low must be less"),
        (line("{type: int, low: 1, high: 4, step: 2}"), "cannot reach high: 4 from low: 1 in steps of 2"),
        (line("{type: float, low: 0, high: 1, log: true}"), "holds no values"),
        (line("{type: float, low: 0, high: 1, log: 10}"), "has log: 10, where true or false"),
        (line("{choices: [8]}"), "two values or more"),
        (line("{choices: [8, 8]}"), "the same choice twice"),
        (line("{choices: [8, {a: 1}]}"), "single values, lists or options"),
        (line("{choices: [8, 9], step: 1}"), "has step beside its choices"),
        ("- a\n- b\n", "is no search space"),
        ("space: {a: [\n", "cannot be read as a search space"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_the_place(tmp_path, text, message):
    with pytest.raises(S4ecaError, match=message) as refused:
        made_space(tmp_path, text)
    assert "space.yaml" in str(refused.value)


def test_a_byte_order_mark_and_another_encoding(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.lstrip(), encoding="utf-8-sig")
    assert load_space(str(path)) == made_space(tmp_path)
    path.write_text(f"{SPACE}# 学习率\n", encoding="gbk")
    with pytest.raises(S4ecaError, match=r"space\.yaml .*probably GBK .*iconv"):
        load_space(str(path))


def test_a_space_that_is_not_there_says_which_are():
    with pytest.raises(S4ecaError, match=r"sweep=nowhere is no search space; there are demo, s4eca"):
        load_space("nowhere")
    with pytest.raises(S4ecaError, match=r"sweep=nowhere\.yaml: there is no such file"):
        load_space("nowhere.yaml")


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        ("name: tpe, seed: 3", "name: cma, seed: 3", "sampler: cma, and knows tpe, random"),
        ("name: tpe, seed: 3", "name: tpe, seed: x", r"sampler\.seed: x, where a number"),
        ("seed: 3, n_startup_trials: 2", "seed: 3, startup: 4", "sampler tpe cannot be had with .*startup"),
        ("name: median", "name: mean", "pruner: mean, and knows none, median, hyperband"),
        ("n_warmup_steps: 1", "warmup: 1", "pruner median cannot be had with .*warmup"),
        ("n_warmup_steps: 1", "n_warmup_steps: -1", "pruner median cannot be had with"),
    ],
)
def test_a_bad_sampler_or_pruner_is_named(tmp_path, given, wanted, message):
    space = made_space(tmp_path, SPACE.replace(given, wanted))
    with pytest.raises(S4ecaError, match=message):
        build_sampler(space), build_pruner(space)
