import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_rsis.made_clip import block, feature, first_tokens
from dgl_rsis.tiny_models import tiny_clip
from s4eca.dgl_rsis.masked_clip import masked_features, patch_coverage, token_masked_features


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lively_clip(attention="sdpa"):
    """A tiny CLIP whose attention is far from even, so that masks show."""
    clip = tiny_clip()
    clip.model.set_attn_implementation(attention)
    with torch.no_grad():
        for layer in clip.model.vision_model.encoder.layers:
            layer.self_attn.q_proj.weight *= 4
            layer.self_attn.k_proj.weight *= 4
            layer.layer_norm1.bias += noise(32, seed=3)
    return clip


def own_features(clip, pixels):
    pooled = clip.model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
    return F.normalize(pooled, dim=-1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (32, 48)])
@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
def test_a_full_mask_gives_clips_own_feature(attention, size, eps):
    clip, pixels = lively_clip(attention), noise(2, 3, *size)
    assert clip.model.vision_model.config._attn_implementation == attention
    coverage = torch.ones(2, 3, size[0] // 8, size[1] // 8)
    with torch.no_grad():
        found, expected = masked_features(clip, pixels, coverage, eps), own_features(clip, pixels)
    torch.testing.assert_close(found, expected[:, None].expand(-1, 3, -1), rtol=0, atol=1e-5)


def test_eps_1_is_clip_whatever_the_mask():
    clip, pixels = lively_clip(), noise(1, 3, 32, 32)
    coverage = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = masked_features(clip, pixels, coverage, 1.0)
        torch.testing.assert_close(found, own_features(clip, pixels).expand(1, 4, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.6])
def test_masks_weigh_the_keys_of_the_last_block_only(eps):
    clip, pixels = lively_clip(), noise(1, 3, 48, 32)
    masks = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(1))
    masks[1] = 0  # nothing: with eps 0 only CLS is left
    masks[2] = (masks[2] > 0.8).float()
    with torch.no_grad():
        found = masked_features(clip, pixels, masks[None], eps)[0].numpy()
    *earlier, last = clip.model.vision_model.encoder.layers
    x = first_tokens(clip, pixels)
    for layer in earlier:
        x = block(layer, x)
    for row, mask in zip(found, masks.double().numpy(), strict=True):
        seen = np.concatenate([[1.0], (1 - eps) * mask.ravel() + eps])
        np.testing.assert_allclose(row, feature(clip, block(last, x, seen)), rtol=0, atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_a_mask_does_not_depend_on_the_others():
    clip, pixels = lively_clip(), noise(3, 3, 32, 32)
    coverage = torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = masked_features(clip, pixels, coverage, 0.1)
        for image in range(3):
            for mask in range(5):
                alone = masked_features(clip, pixels[image : image + 1], coverage[image, mask][None, None], 0.1)
                torch.testing.assert_close(together[image, mask], alone[0, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_tokens_are_masked_before_every_block_from_one_on(first):
    clip, pixels = lively_clip(), noise(1, 3, 48, 32)
    masks = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(1))
    masks[1] = 0
    with torch.no_grad():
        found = token_masked_features(clip, pixels, masks, first, batch_size=2).numpy()
    for row, mask in zip(found, masks.double().numpy(), strict=True):
        x, weights = first_tokens(clip, pixels), np.concatenate([[1.0], mask.ravel()])[:, None]
        for index, layer in enumerate(clip.model.vision_model.encoder.layers):
            x = block(layer, x * weights if index >= first else x)
        np.testing.assert_allclose(row, feature(clip, x), rtol=0, atol=1e-5)


def test_a_full_mask_leaves_the_tokens_alone():
    clip, pixels = lively_clip(), noise(1, 3, 32, 32)
    with torch.no_grad():
        found = token_masked_features(clip, pixels, torch.ones(1, 4, 4), 1, batch_size=1)
        torch.testing.assert_close(found, own_features(clip, pixels), rtol=0, atol=1e-5)


@given(
    st.tuples(st.integers(1, 23), st.integers(1, 23)),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_coverage_is_the_exact_share_of_each_patch(size, grid, seed):
    mask = np.random.default_rng(seed).random(size) < 0.4
    # every pixel blown up until the patches' edges fall between pixels
    fine = np.kron(mask, np.ones(grid)).reshape(grid[0], size[0], grid[1], size[1])
    found = patch_coverage(torch.from_numpy(mask), *grid)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), fine.mean(axis=(1, 3)), rtol=0, atol=1e-6)


def test_a_full_mask_covers_exactly():
    for size in (7, 10, 213, 800):
        assert (patch_coverage(torch.ones(size, size, dtype=torch.bool), 14, 14) > 1 - 1e-6).all()
