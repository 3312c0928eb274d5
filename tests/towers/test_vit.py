import copy
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from timm.models import save_for_hf

import s4eca.towers
from s4eca.errors import S4ecaError
from s4eca.towers import ViTTower
from s4eca.towers.base import State, no_tap
from tiny_vision import NAMES, SIZE, VIT, tiny_vision

FAMILIES = ["vit", "dinov3"]
SMALL = {**VIT, "patch_size": 16}
CONF = Path(__file__).parents[2] / "conf" / "vision"


def walk(tower, state, tap=no_tap):
    ends = []
    for step in tower.steps:
        state = tower.step(step.index, state, tap)
        if step.ends_stage:
            ends.append(state)
    return ends


def pixels(size=SIZE, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_small_patch14_reg4_dinov2", {}),
        ("vit_small_patch14_dinov2", {"init_values": None}),
        ("vit_giant_patch14_dinov2", {}),  # SwiGLU
        ("vit_base_patch32_clip_quickgelu_224.openai", {}),
        ("vit_medium_patch16_gap_256", {}),  # no leading token at all
        ("vit_base_patch16_siglip_224", {}),
        ("vit_small_patch16_dinov3", {}),
        ("vit_small_patch16_dinov3_qkvb", {}),
        ("vit_small_plus_patch16_dinov3", {}),  # SwiGLU
    ],
)
@pytest.mark.parametrize("size", [64, 48])
def test_walk_equals_timm_bit_for_bit(name, options, size):
    options = {**SMALL, **options}
    tower = ViTTower(name, weights="random", seed=3, image_size=size, options=options)
    torch.manual_seed(3)
    reference = timm.create_model(name, num_classes=0, img_size=size, **options).eval()
    with torch.no_grad():
        expected = reference.forward_intermediates(
            pixels(size), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )
        got = walk(tower, tower.embed(pixels(size)))
    assert len(got) == len(expected) == 4
    for stage, (state, wanted) in enumerate(zip(got, expected, strict=True)):
        spatial, prefix = wanted if isinstance(wanted, tuple) else (wanted, wanted[:, :0])
        assert tower.steps[stage].prefix == prefix.shape[1]
        assert torch.equal(state.hidden, torch.cat([prefix, spatial], dim=1)), stage


@pytest.mark.parametrize("name", [NAMES[family] for family in FAMILIES])
@pytest.mark.parametrize(
    ("depth", "ends", "depths"),
    [(12, [2, 5, 8, 11], [3, 3, 3, 3]), (6, [1, 2, 4, 5], [2, 1, 2, 1]), (7, [1, 3, 5, 6], [2, 2, 2, 1])],
)
def test_stages_are_quarters_of_the_depth(name, depth, ends, depths):
    options = {**SMALL, "depth": depth}
    tower = ViTTower(name, weights="random", seed=4, image_size=32, options=options)
    assert [step.index for step in tower.steps if step.ends_stage] == ends
    assert tower.stage_depths() == depths
    assert tower.widths == [32] * 4
    torch.manual_seed(4)
    reference = timm.create_model(name, num_classes=0, img_size=32, **options).eval()
    with torch.no_grad():
        expected = reference.forward_intermediates(pixels(32), indices=ends, output_fmt="NLC", intermediates_only=True)
        got = walk(tower, tower.embed(pixels(32)))
    assert [torch.equal(state.hidden[:, 5:], wanted) for state, wanted in zip(got, expected, strict=True)] == [True] * 4


def test_the_pyramid_resizes_each_depth_without_weights():
    tower = ViTTower(NAMES["vit"], weights="random", image_size=48, options=SMALL)  # 3 x 3 tokens
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3, 3)).astype(np.float32)
    states = []
    for grid in values:  # channel c holds (c + 1) times the values; leading tokens must not matter
        tokens = torch.from_numpy(grid).reshape(1, 9, 1) * torch.arange(1.0, 33.0)
        states.append(State(torch.cat([torch.full((1, 5, 32), math.nan), tokens], dim=1)))
    pyramid = tower.end(states)
    assert [tuple(grid.shape) for grid in pyramid] == [(1, s, s, 32) for s in (12, 6, 3, 2)]

    def enlarged(grid, times):
        at = np.clip((np.arange(3 * times) + 0.5) / times - 0.5, 0, 2)
        rows = np.stack([np.interp(at, range(3), column) for column in grid.T], axis=1)
        return np.stack([np.interp(at, range(3), row) for row in rows])

    last = values[3]
    halved = np.array([[last[:2, :2].mean(), last[:2, 2].mean()], [last[2, :2].mean(), last[2, 2]]])
    for grid, wanted in zip(pyramid, [enlarged(values[0], 4), enlarged(values[1], 2), values[2], halved], strict=True):
        np.testing.assert_allclose(grid[0, :, :, 0], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(grid[0, :, :, 31], 32 * wanted, rtol=1e-5, atol=1e-5)


def test_the_pyramids_scales():
    def build(scales):
        return ViTTower(NAMES["vit"], weights="random", image_size=48, options=SMALL, scales=scales)

    states = [State(torch.randn(1, 5 + 9, 32)) for _ in range(4)]
    whole, small = build([4, 2, 1, 0.5]).end(states), build([2, 1, 1, 1]).end(states)
    assert [grid.shape[1] for grid in small] == [6, 3, 3, 3]
    for stage in (1, 3):
        assert torch.equal(small[stage][0].flatten(0, 1), states[stage].hidden[0, 5:])
    assert torch.equal(small[2], whole[2])
    same_twice = build([2, 2, 1, 1]).end([states[1]] * 4)
    assert torch.equal(same_twice[0], whole[1])
    for wrong in ([4, 2, 1], [1, 2, 1, 1], [3, 2, 1, 1]):
        with pytest.raises(S4ecaError, match=r"vision\.scales=.* must be 4 numbers out of 4, 2, 1, 0.5, none larger"):
            build(wrong)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_is_visited_and_obeyed(family):
    tower = tiny_vision(family, depth=8)
    state = tower.begin(torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8))
    visits = []

    def spy(site, x, branch_in=None):
        visits.append((site, branch_in is not None))
        assert x.shape == (1, 5 + 16, 32)
        return x

    tower.step(1, tower.step(0, state, spy), spy)
    sites = [("in", False), ("attn", True), ("mid", False), ("mlp", True), ("out", False)]
    assert visits == [*sites, *sites, ("stage_out", False)]
    plain = tower.step(1, state, no_tap).hidden
    shift = torch.linspace(0, 1, 32)  # a norm would take a constant one away
    for wanted in tower.steps[1].sites:
        changed = tower.step(1, state, lambda site, x, branch_in=None, w=wanted: x + shift * (site == w)).hidden
        assert not torch.allclose(changed, plain, atol=1e-3), wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_the_branches_are_seen_after_layer_scale(family):
    tower = tiny_vision(family, init_values=0.25)
    state = tower.embed(pixels())
    seen = {}

    def spy(site, x, branch_in=None):
        seen[site] = (x, branch_in)
        return x

    tower.step(0, state, spy)
    block = tower.block(0)
    torch.testing.assert_close(seen["mid"][0], state.hidden + seen["attn"][0])
    torch.testing.assert_close(seen["out"][0], seen["mid"][0] + seen["mlp"][0])
    assert torch.equal(seen["attn"][1], block.norm1(state.hidden))
    assert torch.equal(seen["mlp"][1], block.norm2(seen["mid"][0]))
    torch.testing.assert_close(seen["mlp"][0], 0.25 * block.mlp(seen["mlp"][1]))


def with_tokens(tower, prompts, seen):
    """A tap that puts in tokens at `in`, behind the leading ones, and takes them away at `out`."""
    prefix = tower.steps[0].prefix

    def tap(site, x, branch_in=None):
        if site == "in":
            return torch.cat([x[:, :prefix], prompts.expand(len(x), -1, -1), x[:, prefix:]], dim=1)
        if site == "out":
            seen.append(x)
            return torch.cat([x[:, :prefix], x[:, prefix + prompts.shape[1] :]], dim=1)
        return x

    return tap


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tap_may_put_in_tokens(family):
    tower = tiny_vision(family)
    assert tower.takes_tokens
    state, prompts, seen = tower.embed(pixels()), torch.randn(1, 3, 32), []
    with torch.no_grad():
        got = tower.step(1, state, with_tokens(tower, prompts, seen)).hidden
        # timm's own block, told that there are three more leading tokens, which it does not rotate either
        block = copy.deepcopy(tower.block(1))
        block.attn.num_prefix_tokens = 5 + 3
        longer = torch.cat([state.hidden[:, :5], prompts.expand(2, -1, -1), state.hidden[:, 5:]], dim=1)
        rope = {"rope": tower.model.rope.get_embed()} if family == "dinov3" else {}
        wanted = block(longer, **rope)
        alone = tower.step(1, state, no_tap).hidden
    assert got.shape == state.hidden.shape
    torch.testing.assert_close(seen[0], wanted, rtol=1e-5, atol=1e-6)
    assert (got - alone).abs().max() > 1e-3, "what was put in is attended to"


@pytest.mark.parametrize(
    ("name", "attention", "mlp"),
    [
        ("vit_small_patch14_reg4_dinov2", ("attn.qkv", "attn.proj"), ("mlp.fc1", "mlp.fc2")),
        ("vit_small_patch16_dinov3", ("attn.qkv", "attn.proj"), ("mlp.fc1", "mlp.fc2")),
        # with a bias timm's Eva takes the weight of qkv past the layer
        ("vit_small_patch16_dinov3_qkvb", ("attn.proj",), ("mlp.fc1", "mlp.fc2")),
        ("vit_small_plus_patch16_dinov3", ("attn.qkv", "attn.proj"), ("mlp.fc1_g", "mlp.fc1_x", "mlp.fc2")),
    ],
)
def test_names_the_linear_layers_that_the_walk_calls(name, attention, mlp):
    tower = ViTTower(name, weights="random", image_size=SIZE, options=SMALL)
    assert (tower.attention_layers, tower.mlp_layers) == (attention, mlp)
    called = set()
    for path, module in tower.block(0).named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_, path=path: called.add(path))
    tower.step(0, tower.embed(pixels()), no_tap)
    assert called == {*attention, *mlp}


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("vit_base_patch14_dinov2.lvd142m", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("vit_large_patch16_dinov3.sat493m", (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),
        (
            "vit_base_patch32_clip_quickgelu_224.openai",
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
        ),
    ],
)
def test_normalises_with_the_models_own_statistics(name, mean, std):
    tower = ViTTower(name, weights="random", image_size=SIZE, options=SMALL)
    image = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    normal = (image / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(tower.begin(image).hidden, tower.embed(normal).hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_holds_nothing_that_it_does_not_walk(family):
    tower = tiny_vision(family)
    reference = timm.create_model(NAMES[family], num_classes=0, img_size=SIZE, **SMALL)
    norm = sum(parameter.numel() for parameter in reference.norm.parameters())
    assert norm == 2 * 32
    assert tower.size == sum(parameter.numel() for parameter in reference.parameters()) - norm
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not any(module.training for module in tower.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_another_size_are_resized_by_timm(family, tmp_path):
    torch.manual_seed(1)
    model = timm.create_model(NAMES[family], num_classes=7, img_size=96, **SMALL)
    save_for_hf(model, tmp_path, safe_serialization=True)
    tower = ViTTower(NAMES[family], weights=str(tmp_path), image_size=SIZE, options=SMALL)
    assert (tower.base.source, tower.base.name) == (tmp_path.name, NAMES[family])
    reference = timm.create_model(
        NAMES[family],
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "model.safetensors"), "num_classes": 7},
        num_classes=0,
        img_size=SIZE,
        **SMALL,
    ).eval()
    assert family == "dinov3" or reference.pos_embed.shape == (1, 16, 32)
    with torch.no_grad():
        expected = reference.forward_intermediates(pixels(), output_fmt="NLC", intermediates_only=True)
        got = walk(tower, tower.embed(pixels()))
    assert [torch.equal(state.hidden[:, 5:], wanted) for state, wanted in zip(got, expected, strict=True)] == [True] * 4


def test_refuses_other_families_sizes_and_options():
    for name in ("resnet18", "vit_relpos_small_patch16_224", "vit_base_patch16_radio_v3", "vit_nano_patch16_224"):
        with pytest.raises(S4ecaError, match=rf"vision\.name={name} is no plain vision transformer"):
            ViTTower(name, weights="random")
    with pytest.raises(S4ecaError, match=r"4 blocks of ResPostBlock, .* at least 4 pre-norm blocks"):
        ViTTower("vit_base_patch16_rpn_224", weights="random", image_size=32, options={**VIT, "init_values": None})
    with pytest.raises(S4ecaError, match=r"3 blocks of Block"):
        ViTTower(NAMES["vit"], weights="random", image_size=32, options={**SMALL, "depth": 3})
    with pytest.raises(S4ecaError, match=r"image_size=480 is no multiple of 14, .*image_size=476 or image_size=490"):
        ViTTower("vit_base_patch14_reg4_dinov2", weights="random", image_size=480)
    with pytest.raises(S4ecaError, match=r"image_size=8 is no multiple of 14, .*set image_size=14 or image_size=28"):
        ViTTower("vit_base_patch14_reg4_dinov2", weights="random", image_size=8)
    with pytest.raises(S4ecaError, match=r"timm cannot build vision\.name=vit_small.*embed_dims"):
        ViTTower("vit_small_patch16_224", weights="random", image_size=32, options={"embed_dims": 3})
    for option in ("img_size", "dynamic_img_size", "rope_rescale_coords"):
        with pytest.raises(S4ecaError, match=rf"vision\.options\.{option} would"):
            ViTTower(NAMES["dinov3"], weights="random", image_size=32, options={option: 2})
    with pytest.raises(S4ecaError, match="same image_size"):
        tiny_vision("vit").begin(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


NEW = sorted(path.stem for path in CONF.glob("*.yaml") if not path.stem.startswith("swin"))


@pytest.mark.parametrize("option", NEW)
def test_every_config_names_a_pretrained_model_that_its_tower_builds(option):
    config = yaml.safe_load((CONF / f"{option}.yaml").read_text())
    tower = getattr(s4eca.towers, config.pop("_target_").removeprefix("s4eca.towers."))
    assert timm.models.is_model_pretrained(config["name"])
    assert config["weights"] == "hub" or config["weights"].startswith("hf:")
    assert config["image_size"] == "${image_size}"
    small = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
    if tower is ViTTower:
        small = {"embed_dim": 32, "depth": 4, "num_heads": 2}
    patch = 14 if "patch14" in config["name"] else 32
    built = tower(**{**config, "weights": "random", "image_size": 2 * patch, "options": small})
    assert len(built.stage_depths()) == 4


def test_clip_configs_have_the_activation_of_openais_weights():
    for option in ("remoteclip_b32", "remoteclip_l14", "georsclip_b32"):
        config = yaml.safe_load((CONF / f"{option}.yaml").read_text())
        tower = ViTTower(config["name"], weights="random", image_size=448, options={**VIT, "init_values": None})
        x = torch.linspace(-3, 3, 7)
        torch.testing.assert_close(tower.block(0).mlp.act(x), x * torch.sigmoid(1.702 * x))
