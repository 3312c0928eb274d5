import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPImageProcessor

from dgl_rsis.made_clip import block, feature, first_tokens
from dgl_rsis.tiny_models import tiny_clip
from s4eca.cache import digest
from s4eca.dgl_rsis.crops import crop_and_resize
from s4eca.dgl_rsis.parts import Proposals, View
from s4eca.dgl_rsis.regions import ClipRegions
from s4eca.errors import S4ecaError

VARIANTS = [
    {},
    {"eps": 0.0, "beta": 1.0, "crop": "fixed"},
    {"guidance": "fill", "crop": "adaptive"},
    {"guidance": "fill", "crop": "tight"},
    {"guidance": "none", "beta": 0.4},
    {"mode": "single_pass"},
    {"mode": "single_pass", "beta": 0.5, "input_side": 48},
    {"mode": "single_pass", "guidance": "tokens", "beta": 0.85},
]


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


def a_view(height=96, width=128, seed=0):
    return View(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8), key=f"{height} {seed}")


def some_proposals(height=96, width=128, count=7, seed=0):
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        y, x = rng.integers(0, height - 12), rng.integers(0, width - 12)
        mask[y : y + rng.integers(3, height), x : x + rng.integers(3, width)] = True
        mask[y + 1 : y + 2, x + 1] = False
    return Proposals.from_masks(masks)


def one_box(x0, y0, x1, y1, height=96, width=128):
    masks = np.zeros((1, height, width), bool)
    masks[0, y0:y1, x0:x1] = True
    return Proposals.from_masks(masks)


def clips_own(clip, image, side=32):
    """CLIP's feature of an image (side, side, 3) uint8, all done by transformers."""
    processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    pixels = processor(images=image, return_tensors="pt").pixel_values
    with torch.no_grad():
        pooled = clip.model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
    return F.normalize(pooled, dim=-1)[0].numpy()


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("settings", VARIANTS)
def test_features_are_of_unit_length_and_do_not_depend_on_the_batch(clip, settings):
    view, proposals = a_view(), some_proposals()
    found = ClipRegions(clip, **settings, batch_size=3).encode_regions(view, proposals)
    assert found.shape == (7, 24)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=0, atol=1e-6)
    encoder = ClipRegions(clip, **settings, batch_size=100)
    np.testing.assert_allclose(encoder.encode_regions(view, proposals), found, rtol=0, atol=1e-6)
    for place in (0, 6):
        alone = encoder.encode_regions(view, proposals.take([place]))
        np.testing.assert_allclose(alone[0], found[place], rtol=0, atol=1e-6)
    assert encoder.encode_regions(view, proposals.take([])).shape == (0, 24)
    assert np.array_equal(encoder.encode_regions(view, proposals), encoder.encode_regions(view, proposals))
    assert np.abs(found[0] - found[1]).max() > 1e-4


@pytest.mark.parametrize("settings", VARIANTS)
def test_a_trainers_precision_does_not_reach_the_features(clip, settings):
    encoder, view, proposals = ClipRegions(clip, **settings), a_view(), some_proposals(count=2)
    plain = encoder.encode_regions(view, proposals), encoder.encode_texts(["a gray ship"])
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(encoder.encode_regions(view, proposals), plain[0])
        assert np.array_equal(encoder.encode_texts(["a gray ship"]), plain[1])


def test_a_plain_crop_is_clips_feature_of_that_part(clip):
    # the crops are as large as CLIP's input: nothing is resized
    view = a_view()
    tight = ClipRegions(clip, guidance="none", crop="tight", beta=1.0)
    found = tight.encode_regions(view, one_box(40, 20, 72, 52))[0]
    np.testing.assert_allclose(found, clips_own(clip, view.image[20:52, 40:72]), rtol=0, atol=1e-5)
    # 8 x 8 with adaptive context: 24 pixels, at least 32
    adaptive = ClipRegions(clip, guidance="none", beta=1.0)
    found = adaptive.encode_regions(view, one_box(100, 60, 108, 68))[0]
    np.testing.assert_allclose(found, clips_own(clip, view.image[48:80, 88:120]), rtol=0, atol=1e-5)
    # the settings of the context get through: 16 + 2 * 0.5 * 16
    fixed = ClipRegions(clip, guidance="none", crop="fixed", rho0=0.5, min_side=4, beta=1.0)
    found = fixed.encode_regions(view, one_box(0, 60, 16, 70))[0]
    np.testing.assert_allclose(found, clips_own(clip, view.image[49:81, 0:32]), rtol=0, atol=1e-5)


def test_filled_crops_are_the_pixel_mean_outside_the_mask(clip):
    view, masks = a_view(), np.zeros((1, 96, 128), bool)
    masks[0, 20:52, 40:72] = np.tri(32, dtype=bool)
    found = ClipRegions(clip, guidance="fill", crop="tight").encode_regions(view, Proposals.from_masks(masks))[0]
    pixels = (view.image[20:52, 40:72] / 255 - np.array(clip.mean)) / np.array(clip.std) * np.tri(32)[:, :, None]
    pixels = torch.from_numpy(pixels).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = F.normalize(clip.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)


def test_attention_in_the_crop_sees_the_mask_there(clip):
    # a crop of 32 x 32 around (96..104, 40..56), whose mask covers cells of 8 x 8: rows 1 and 2 of column 1 or 2
    view, proposals = a_view(), one_box(96, 40, 104, 56)
    encoder = ClipRegions(clip, crop="fixed", rho0=0.5, eps=0.25, beta=1.0)
    pixels = torch.from_numpy((view.image[32:64, 84:116] / 255 - clip.mean) / clip.std).float().permute(2, 0, 1)[None]
    mask = np.zeros((32, 32))
    mask[8:24, 12:20] = 1
    seen = np.concatenate([[1.0], 0.75 * mask.reshape(4, 8, 4, 8).mean(axis=(1, 3)).ravel() + 0.25])
    x = first_tokens(clip, pixels)
    *earlier, last = clip.model.vision_model.encoder.layers
    for layer in earlier:
        x = block(layer, x)
    expected = feature(clip, block(last, x, seen))
    np.testing.assert_allclose(encoder.encode_regions(view, proposals)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"mode": "single_pass"}, {"mode": "single_pass", "guidance": "tokens"}])
def test_beta_mixes_with_the_filled_tight_box(clip, settings):
    view, proposals = a_view(), some_proposals(count=3)
    main = ClipRegions(clip, **settings, beta=1.0).encode_regions(view, proposals)
    tight = ClipRegions(clip, guidance="fill", crop="tight").encode_regions(view, proposals)
    found = ClipRegions(clip, **settings, beta=0.3).encode_regions(view, proposals)
    expected = [unit(0.3 * one + 0.7 * two) for one, two in zip(main, tight, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_says_how_its_texts_are_split(clip):
    encoder = ClipRegions(clip)
    assert encoder.tokenizer is clip.tokenizer
    assert encoder.max_tokens == 48


def test_default_beta(clip):
    assert (ClipRegions(clip).beta, ClipRegions(clip, mode="single_pass").beta) == (0.7, 1.0)


@pytest.mark.parametrize("guidance", ["attention", "tokens"])
def test_single_pass_sees_the_whole_view(clip, guidance):
    view = a_view(64, 64)
    whole = Proposals.from_masks(np.ones((1, 64, 64), bool))
    encoder = ClipRegions(clip, mode="single_pass", guidance=guidance, input_side=64)
    expected = clips_own(clip, view.image, side=64)
    np.testing.assert_allclose(encoder.encode_regions(view, whole)[0], expected, rtol=0, atol=1e-5)


def test_single_pass_masks_lie_on_the_stretched_view(clip):
    # the right half of a wide view, at twice the height: columns 2 and 3 of 4, all rows
    view, proposals = a_view(32, 64), one_box(32, 0, 64, 32, 32, 64)
    encoder = ClipRegions(clip, mode="single_pass", eps=0.0, input_side=32)
    image = torch.from_numpy(view.image).permute(2, 0, 1).float() / 255
    pixels = crop_and_resize(image, np.array([[0, 0, 64, 32]]), 32)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (clip.mean, clip.std))
    x = first_tokens(clip, (pixels - mean) / std)
    *earlier, last = clip.model.vision_model.encoder.layers
    for layer in earlier:
        x = block(layer, x)
    expected = feature(clip, block(last, x, np.array([1.0, *[0, 0, 1, 1] * 4])))
    np.testing.assert_allclose(encoder.encode_regions(view, proposals)[0], expected, rtol=0, atol=1e-5)


def test_default_sides_and_block(clip):
    assert ClipRegions(clip, mode="single_pass").input_side == 64
    tokens = ClipRegions(clip, mode="single_pass", guidance="tokens")
    assert (tokens.input_side, tokens.block) == (32, 0)
    deep = tiny_clip(vision_config={"num_hidden_layers": 12})
    assert ClipRegions(deep, mode="single_pass", guidance="tokens").block == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "tiles"}, "mode is one of crops, single_pass, not tiles"),
        ({"guidance": "tokens"}, "guidance with model.regions.mode=crops is one of attention, fill, none, not tokens"),
        ({"mode": "single_pass", "guidance": "none"}, "guidance with model.regions.mode=single_pass is one of"),
        ({"crop": "loose"}, "crop is one of adaptive, fixed, tight, not loose"),
        ({"mode": "single_pass", "crop": "tight"}, "crop=tight has no effect with model.regions.mode=single_pass"),
        ({"mode": "single_pass", "rho0": 0.5}, "rho0=0.5 has no effect with model.regions.mode=single_pass"),
        ({"mode": "single_pass", "min_side": 9}, "min_side=9 has no effect with model.regions.mode=single_pass"),
        ({"guidance": "fill", "eps": 0.1}, "eps=0.1 has no effect with model.regions.guidance=fill; leave it null"),
        (
            {"guidance": "fill", "crop": "tight", "beta": 0.7},
            "beta=0.7 has no effect with model.regions.crop=tight and",
        ),
        ({"input_side": 64}, "input_side=64 has no effect with model.regions.mode=crops"),
        ({"mode": "single_pass", "block": 1}, "block=1 has no effect with model.regions.guidance=attention"),
        ({"crop": "fixed", "rho_max": 1.0}, "rho_max=1.0 has no effect with model.regions.crop=fixed"),
        ({"crop": "fixed", "area0": 9.0}, "area0=9.0 has no effect with model.regions.crop=fixed"),
        ({"crop": "tight", "rho0": 0.1}, "rho0=0.1 has no effect with model.regions.crop=tight"),
        ({"eps": 1.5}, "eps is at least 0 and at most 1, not 1.5"),
        ({"beta": 0.0}, "beta is above 0 and at most 1, not 0.0"),
        ({"rho0": -0.1}, "rho0 is at least 0, not -0.1"),
        ({"area0": 0.0}, "area0 is above 0, not 0.0"),
        ({"min_side": 0}, "min_side is above 0, not 0"),
        ({"rho_min": 2.0}, "rho_min is larger than model.regions.rho_max"),
        ({"batch_size": 0}, "batch_size is at least 1, not 0"),
        ({"mode": "single_pass", "guidance": "tokens", "block": 3}, "block is at least 0 and at most 2, not 3"),
        ({"mode": "single_pass", "input_side": 60}, "input_side=60 is no multiple of clip's patch size; give one of 8"),
        ({"mode": "single_pass", "input_side": 0}, "input_side=0 is no multiple"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_refused_by_name(clip, settings, message):
    with pytest.raises(S4ecaError, match=f"model.regions.{message}"):
        ClipRegions(clip, **settings)


def test_identity_holds_what_acts(clip):
    keys = [digest(made_by=ClipRegions(clip, **settings).identity()) for settings in VARIANTS]
    keys += [digest(made_by=ClipRegions(clip, **one).identity()) for one in ({"rho0": 0.4}, {"eps": 0.2})]
    keys.append(digest(made_by=ClipRegions(tiny_clip(seed=1)).identity()))
    keys.append(digest(made_by=ClipRegions(tiny_clip(vision_config={"num_attention_heads": 4})).identity()))
    keys.append(digest(made_by=ClipRegions(tiny_clip(vision_config={"hidden_act": "gelu"})).identity()))
    assert len({*keys}) == len(keys)
    assert digest(made_by=ClipRegions(clip, batch_size=5, rho0=0.5, beta=0.7).identity()) == keys[0]
    assert ClipRegions(clip).identity()["clip"]["weights"] == clip.base.sha256
    assert "rho0" not in ClipRegions(clip, mode="single_pass").identity()


TEXTS = ["a gray ship", "the ship is on the lower left of the large white harbor", "ship", "a tiny windmill"]


def test_texts_are_clips_own_features_whatever_the_batch(clip):
    found = ClipRegions(clip).encode_texts(TEXTS)
    assert found.dtype == np.float32
    expected = []
    for text in TEXTS:
        ids = torch.tensor([clip.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = clip.model.text_model(input_ids=ids).last_hidden_state
            expected.append(F.normalize(clip.model.text_projection(hidden[0, -1]), dim=-1).numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    for size in (1, 2):
        np.testing.assert_allclose(ClipRegions(clip, batch_size=size).encode_texts(TEXTS), found, rtol=0, atol=1e-6)
    assert ClipRegions(clip).encode_texts([]).shape == (0, 24)
    assert np.abs(found[0] - found[2]).max() > 1e-4


def test_long_texts_are_cut_with_a_warning(clip):
    long = "ship " * 60
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than CLIP's 48 tokens and are cut.*'ship ship"):
        found = ClipRegions(clip).encode_texts([long, "ship"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = ClipRegions(clip).encode_texts(["ship " * 46])  # and two special tokens
    np.testing.assert_allclose(found[0], fits[0], rtol=0, atol=1e-6)
