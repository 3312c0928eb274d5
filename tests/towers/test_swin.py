import pytest
import timm
import torch

from s4eca.errors import S4ecaError
from s4eca.towers import SwinTower
from s4eca.towers.base import no_tap
from tiny import NAMES, SIZE, SWIN, tiny_vision


def walk(tower, state, tap=no_tap):
    ends = []
    for step in tower.steps:
        state = tower.step(step.index, state, tap)
        if step.ends_stage:
            ends.append(state)
    return tower.end(ends)


@pytest.mark.parametrize("family", ["swin", "swinv2"])
@pytest.mark.parametrize("size", [64, 60])  # 60: 15 patches, so that windows are padded
def test_walk_equals_timm_bit_for_bit(family, size):
    tower = SwinTower(NAMES[family], weights="random", seed=3, image_size=size, options=SWIN)
    torch.manual_seed(3)
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in SWIN.items()}
    reference = timm.create_model(NAMES[family], num_classes=0, img_size=size, drop_path_rate=0.0, **options).eval()
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = reference.forward_intermediates(pixels, intermediates_only=True)
        got = walk(tower, tower.embed(pixels))
    assert [grid.shape[-1] for grid in got] == [16, 32, 64, 128] == tower.widths
    for stage, (grid, wanted) in enumerate(zip(got, expected, strict=True)):
        assert torch.equal(grid.permute(0, 3, 1, 2), wanted), stage


def test_normalises_with_the_models_own_statistics():
    tower = tiny_vision()
    image = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (image / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(tower.begin(image).hidden, tower.embed(pixels).hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["swin", "swinv2"])
def test_every_site_is_visited_and_obeyed(family):
    tower = tiny_vision(family)
    assert [(step.stage, step.ends_stage) for step in tower.steps] == [
        (0, False), (0, True), (1, False), (1, True), (2, False), (2, False), (2, True), (3, False), (3, True),
    ]  # fmt: skip
    assert tower.stage_depths() == [2, 2, 3, 2]
    state = tower.begin(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8))
    visits = []

    def spy(site, x, branch_in=None):
        visits.append((site, branch_in is not None, x.shape[-1]))
        return x

    tower.step(0, state, spy)
    tower.step(1, state, spy)
    sites = [("in", False), ("attn", True), ("mid", False), ("mlp", True), ("out", False)]
    assert visits == [(*site, 16) for site in [*sites, *sites, ("stage_out", False)]]
    plain = tower.step(1, state, no_tap).hidden
    for wanted in ("in", "attn", "mid", "mlp", "out", "stage_out"):
        changed = tower.step(1, state, lambda site, x, branch_in=None, w=wanted: x + 1 if site == w else x).hidden
        assert not torch.equal(changed, plain), wanted


def test_is_frozen_and_in_eval_mode():
    tower = tiny_vision(drop_path_rate=0.3)
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not any(module.training for module in tower.modules())


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = tiny_vision(seed=5).base.sha256
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert tiny_vision(seed=5).base.sha256 == first != tiny_vision(seed=6).base.sha256
    assert torch.equal(torch.get_rng_state(), state), "the run's own random numbers are left alone"


def test_refuses_other_families_and_sizes():
    with pytest.raises(S4ecaError, match=r"vision\.name=resnet18 is no Swin"):
        SwinTower("resnet18", weights="random")
    with pytest.raises(S4ecaError, match="same image_size"):
        tiny_vision().begin(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(S4ecaError, match="timm cannot build"):
        SwinTower("swin_tiny_patch4_window7_224", weights="random", options={"embed_dims": 3})
