import pytest

from s4eca.budget import solve_budget
from s4eca.build import instantiate
from s4eca.errors import S4ecaError
from s4eca.towers import BertTower, SwinTower
from s4eca.tuning.base import INSIDE, Scope
from tiny import tiny_text, tiny_vision

S4ECA = {
    "_target_": "s4eca.tuning.S4ECA",
    "text": {"_target_": "s4eca.tuning.s4eca.TextSettings", "width": 32, "heads": 4},
    "visual": {"_target_": "s4eca.tuning.s4eca.VisualSettings", "width": 16},
}
LORA = {"_target_": "s4eca.tuning.LoRA", "rank": 4, "alpha": 4, "text_layers": ["query"], "vision_layers": ["fc1"]}


def really_learned(node, scope=INSIDE):
    text, vision = tiny_text(), tiny_vision()
    method = instantiate(node, "tuning")
    method.attach(text, vision, scope)
    modules = (method, text, vision)
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize("node", [S4ECA, LORA], ids=["s4eca", "lora"])
@pytest.mark.parametrize("scope", [INSIDE, Scope(start_stage=3)], ids=["all", "late"])
@pytest.mark.parametrize("percent", [12, 30])
def test_a_solved_width_has_the_share_that_it_says(node, scope, percent):
    text, vision = tiny_text(), tiny_vision()
    towers = sum(p.numel() for tower in (text, vision) for p in tower.parameters())
    solved_node, solved = solve_budget(node, text, vision, percent, scope)
    assert solved.learned == really_learned(solved_node, scope)
    assert 100 * solved.learned / towers == pytest.approx(percent, rel=0.05)
    assert not any(p.requires_grad for tower in (text, vision) for p in tower.parameters()), "the towers are untouched"
    assert node in (S4ECA, LORA)


def test_no_neighbouring_width_is_nearer():
    text, vision = tiny_text(), tiny_vision()
    towers = text.size + vision.size
    node, solved = solve_budget(LORA, text, vision, 9.0, INSIDE)
    shares = {rank: 100 * really_learned({**LORA, "rank": rank}) / towers for rank in range(1, 40)}
    assert node["rank"] == min(shares, key=lambda rank: abs(shares[rank] - 9.0))
    assert str(solved) == (
        f"budget: tuning.rank={node['rank']} gives tuning=lora {solved.learned:,} parameters, "
        f"{shares[node['rank']]:.2f} % of the towers' {towers / 1e6:.2f} M"
    )


def test_widths_keep_their_ratio_and_their_multiple():
    node, solved = solve_budget(S4ECA, tiny_text(), tiny_vision(), 40, INSIDE)
    assert node["text"]["width"] == 4 * round(node["visual"]["width"] / 2), "a multiple of the heads"
    assert solved.widths == {"visual.width": node["visual"]["width"], "text.width": node["text"]["width"]}


def test_the_default_of_s4eca_is_what_2_4_percent_of_swin_b_and_bert_base_gives():
    text, vision = BertTower(weights="random"), SwinTower(weights="random")
    node, solved = solve_budget(S4ECA, text, vision, 2.4, INSIDE)
    assert (node["visual"]["width"], node["text"]["width"]) == (64, 128)
    assert solved.learned == 4_691_280


def test_other_heads_are_kept_dividing_the_width():
    node = {**S4ECA, "text": {**S4ECA["text"], "heads": 8}}
    solved, _ = solve_budget(node, tiny_text(), tiny_vision(), 40, INSIDE)
    assert solved["text"]["width"] % 8 == 0


@pytest.mark.parametrize(
    ("node", "percent", "message"),
    [
        ({"_target_": "s4eca.tuning.Frozen"}, 2.4, r"tuning=frozen has no width .* learns 0\.00 % .* set budget=null"),
        ({"_target_": "s4eca.tuning.FullFineTuning"}, 2.4, r"tuning=full has no width .* learns 100\.00 %"),
        (LORA, 0.001, r"budget=0\.001 cannot be met within 5 % by tuning=lora .*tuning\.rank=1 is \d"),
        (LORA, 0, "budget=0 must be above 0 and below 100 percent"),
        (LORA, float("nan"), "must be above 0 and below 100"),
        (LORA, "abc", "budget=abc must be above 0"),
        (LORA, True, "budget=True must be above 0"),
        (LORA, 100, "budget=100 must be above 0 and below 100"),
    ],
)
def test_what_cannot_be_met_is_refused(node, percent, message):
    with pytest.raises(S4ecaError, match=message):
        solve_budget(node, tiny_text(), tiny_vision(), percent, INSIDE)
