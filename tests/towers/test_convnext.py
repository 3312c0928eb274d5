import pytest
import timm
import torch
from timm.models import save_for_hf

from s4eca.errors import S4ecaError
from s4eca.towers import ConvNextTower
from s4eca.towers.base import no_tap
from tiny_vision import CONVNEXT, NAMES, SIZE, tiny_vision

PLAIN = {key: tuple(value) for key, value in CONVNEXT.items()}


def walk(tower, state, tap=no_tap):
    ends = []
    for step in tower.steps:
        state = tower.step(step.index, state, tap)
        if step.ends_stage:
            ends.append(state)
    return tower.end(ends)


@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny",
        "convnext_tiny_hnf",  # a norm before the head, and 1x1 convolutions in the MLP
        "convnext_atto_ols",  # a stem of two convolutions
        "convnextv2_tiny",  # global response norm, no layer scale
        "convnext_base.dinov3_lvd1689m",
    ],
)
@pytest.mark.parametrize("size", [64, 96])
def test_walk_equals_timm_bit_for_bit(name, size):
    tower = ConvNextTower(name, weights="random", seed=3, image_size=size, options=CONVNEXT)
    torch.manual_seed(3)
    reference = timm.create_model(name, num_classes=0, **PLAIN).eval()
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = reference.forward_intermediates(pixels, intermediates_only=True)
        got = walk(tower, tower.embed(pixels))
    assert [grid.shape[-1] for grid in got] == [16, 24, 32, 48] == tower.widths
    assert [tuple(grid.shape[1:3]) for grid in got] == [(size // s, size // s) for s in (4, 8, 16, 32)]
    assert [step.grid for step in tower.steps if step.ends_stage] == [tuple(grid.shape[1:3]) for grid in got]
    for stage, (grid, wanted) in enumerate(zip(got, expected, strict=True)):
        assert torch.equal(grid.permute(0, 3, 1, 2), wanted), stage
        assert grid.permute(0, 3, 1, 2).stride() == wanted.stride(), stage


def test_every_site_is_visited_and_obeyed():
    tower = tiny_vision("convnext")
    assert [(step.stage, step.ends_stage) for step in tower.steps] == [
        (0, False), (0, True), (1, True), (2, False), (2, True), (3, True),
    ]  # fmt: skip
    assert tower.stage_depths() == [2, 1, 2, 1]
    state = tower.begin(torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8))
    visits = []

    def spy(site, x, branch_in=None):
        visits.append((site, branch_in is not None, tuple(x.shape)))
        return x

    tower.step(0, state, spy)
    after = tower.step(1, state, spy)
    tower.step(2, after, spy)
    sites = [("in", False), ("mlp", True), ("out", False)]
    first, second = (1, 16, 16, 16), (1, 8, 8, 24)
    end = ("stage_out", False)
    assert visits == [(*site, first) for site in [*sites, *sites, end]] + [(*site, second) for site in [*sites, end]]
    assert {site for site, *_ in visits} == set(tower.steps[0].sites)
    for wanted in tower.steps[1].sites:
        changed = tower.step(1, state, lambda site, x, branch_in=None, w=wanted: x + 1 if site == w else x).hidden
        assert not torch.equal(changed, after.hidden), wanted


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_tiny_hnf"])
def test_the_branch_is_seen_after_layer_scale(name):
    tower = ConvNextTower(name, weights="random", image_size=SIZE, options={**CONVNEXT, "ls_init_value": 0.25})
    state = tower.begin(torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8))
    seen = {}

    def spy(site, x, branch_in=None):
        seen[site] = x
        seen.setdefault("branch_in", branch_in)
        if branch_in is not None:
            seen["branch_in"] = branch_in
        return x

    tower.step(0, state, spy)
    block = tower.model.stages[0].blocks[0]
    entering = []
    block.mlp.register_forward_pre_hook(lambda module, args: entering.append(args[0]))
    whole = block(state.hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(seen["mlp"], whole - state.hidden, rtol=1e-4, atol=1e-5)
    entered = entering[0].permute(0, 2, 3, 1) if name == "convnext_tiny_hnf" else entering[0]
    assert torch.equal(seen["branch_in"], entered)


def test_normalises_with_the_models_own_statistics():
    name = "convnext_base.clip_laion2b"  # OpenAI's statistics
    tower = ConvNextTower(name, weights="random", image_size=SIZE, options=CONVNEXT)
    image = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    pixels = (image / 255 - mean) / std
    torch.testing.assert_close(tower.begin(image).hidden, tower.embed(pixels).hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "layers"), [("convnext_tiny", {"mlp.fc1", "mlp.fc2"}), ("convnext_tiny_hnf", set())])
def test_names_the_linear_layers_that_the_walk_calls(name, layers):
    tower = ConvNextTower(name, weights="random", image_size=SIZE, options=CONVNEXT)
    called = set()
    for path, module in tower.block(0).named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_, path=path: called.add(path))
    tower.step(0, tower.embed(torch.randn(1, 3, SIZE, SIZE)), no_tap)
    assert set(tower.attention_layers) | set(tower.mlp_layers) == called == layers


def test_holds_nothing_that_it_does_not_walk():
    tower = tiny_vision("convnext")
    reference = timm.create_model(NAMES["convnext"], num_classes=0, **PLAIN)
    norm = sum(parameter.numel() for parameter in reference.head.parameters())
    assert norm == 2 * 48
    assert tower.size == sum(parameter.numel() for parameter in reference.parameters()) - norm
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not any(module.training for module in tower.modules())


def test_reads_what_timm_saves_and_refuses_what_lacks_weights(tmp_path):
    torch.manual_seed(1)
    model = timm.create_model(NAMES["convnext"], num_classes=7, **PLAIN).eval()
    save_for_hf(model, tmp_path, safe_serialization=True)
    tower = ConvNextTower(NAMES["convnext"], weights=str(tmp_path), image_size=SIZE, options=CONVNEXT)
    pixels = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = model.forward_intermediates(pixels, intermediates_only=True)[-1]
        assert torch.equal(walk(tower, tower.embed(pixels))[-1].permute(0, 3, 1, 2), expected)
    state = model.state_dict()
    del state["stages.2.blocks.1.gamma"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(S4ecaError, match=r"1 missing, 0 unexpected, for example stages\.2\.blocks\.1\.gamma"):
        ConvNextTower(NAMES["convnext"], weights=str(tmp_path / "part.pth"), image_size=SIZE, options=CONVNEXT)
    torch.save({"layers.0.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(S4ecaError, match=r"do not fit vision\.name=convnext_tiny"):
        ConvNextTower(NAMES["convnext"], weights=str(tmp_path / "other.pth"), image_size=SIZE, options=CONVNEXT)


def test_refuses_other_families_sizes_and_options():
    with pytest.raises(S4ecaError, match=r"vision\.name=resnet18 is no ConvNeXt"):
        ConvNextTower("resnet18", weights="random")
    with pytest.raises(S4ecaError, match=r"image_size=100 is no multiple of 32.*image_size=96 or image_size=128"):
        ConvNextTower("convnext_tiny", weights="random", image_size=100)
    with pytest.raises(S4ecaError, match=r"timm cannot build vision\.name=convnext_tiny.*embed_dims"):
        ConvNextTower("convnext_tiny", weights="random", options={"embed_dims": 3})
    with pytest.raises(S4ecaError, match=r"timm cannot build vision\.name=convnext_none"):
        ConvNextTower("convnext_none", weights="random")
    with pytest.raises(S4ecaError, match="same image_size"):
        tiny_vision("convnext").begin(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
