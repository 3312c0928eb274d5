"""`vision.attention`: the fused kernel against products and a softmax one after the other."""

import pytest
import torch

from s4eca.errors import S4ecaError
from s4eca.towers import ConvNextTower, SwinTower, ViTTower
from s4eca.towers.base import VisionTower, no_tap
from tiny_vision import CONVNEXT, NAMES, SWIN, VIT

BOUND = 1e-5


def tower(family: str, attention: str, size: int = 64, **options) -> VisionTower:
    kind, settings = (SwinTower, SWIN) if family.startswith("swin") else (ViTTower, {**VIT, "patch_size": 16})
    made = kind(NAMES[family], "random", 3, size, {**settings, **options}, attention)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        if name.endswith("relative_position_bias_table"):  # near zero in an untrained model
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return made


def step(one: VisionTower, tables: bool) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """The pyramid, and gradients of everything, or of everything but the tables of position biases."""
    for name, parameter in one.named_parameters():
        parameter.requires_grad_(tables or not name.endswith("relative_position_bias_table"))
    size = one.image_size
    image = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    state, ends = one.begin(image), []
    for place in one.steps:
        state = one.step(place.index, state, no_tap)
        ends += [state] if place.ends_stage else []
    pyramid = one.end(ends)
    sum((grid * torch.linspace(-1, 1, grid.numel()).view(grid.shape)).mean() for grid in pyramid).backward()
    return [grid.detach() for grid in pyramid], {name: value.grad for name, value in one.named_parameters()}


@pytest.mark.parametrize(
    ("family", "size", "tables"),
    [("swin", 64, False), ("swin", 60, False), ("swin", 64, True), ("vit", 64, False), ("dinov3", 64, False)],
)
def test_fused_attention_gives_the_same_pyramid_and_gradients(family, size, tables):
    """At 64 px windows are shifted and masked, at 60 px padded too; tables are learned under full fine-tuning alone."""
    eager, fused = tower(family, "eager", size), tower(family, "sdpa", size)
    if family == "swin":
        assert sum(eager.block(place.index).attn_mask is not None for place in eager.steps) >= 2
    (expected, wanted), (pyramid, gradients) = step(eager, tables), step(fused, tables)
    for grid, other in zip(pyramid, expected, strict=True):
        assert (grid - other).abs().max() <= BOUND * other.abs().max()
    # on a CPU the fused kernel has no gradient for what is added to the scores, and PyTorch takes the plain products
    assert all(map(torch.equal, pyramid, expected)) == tables, "another kernel ran"
    # what nothing reads has no gradient in either
    assert {name for name, value in gradients.items() if value is None} == {
        name for name, value in wanted.items() if value is None
    }
    largest = max(value.abs().max() for value in wanted.values() if value is not None)
    for name, value in wanted.items():
        if value is not None:
            assert (gradients[name] - value).abs().max() <= BOUND * largest, name


def test_families_without_a_fused_form_refuse_it_by_name():
    with pytest.raises(S4ecaError, match=r"vision\.name=swinv2_\S+ has no fused form .*vision\.attention=eager"):
        tower("swinv2", "sdpa")
    with pytest.raises(S4ecaError, match=r"vision\.name=convnext_tiny has no attention; set vision\.attention=eager"):
        ConvNextTower(NAMES["convnext"], "random", 0, 64, CONVNEXT, "sdpa")
    with pytest.raises(S4ecaError, match=r"vision\.attention=flash is neither eager nor sdpa"):
        tower("swin", "flash")


def test_timms_environment_does_not_change_the_setting(monkeypatch):
    monkeypatch.setattr("timm.layers.config._USE_FUSED_ATTN", 2)
    assert not any(tower("swin", "eager").block(index).attn.fused_attn for index in range(9))
    monkeypatch.setattr("timm.layers.config._USE_FUSED_ATTN", 0)
    assert all(tower("vit", "sdpa").block(index).attn.fused_attn for index in range(4))
