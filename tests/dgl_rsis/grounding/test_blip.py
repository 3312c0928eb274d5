import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from dgl_rsis.grounding.phrases import make_phrase, make_view
from dgl_rsis.grounding.slow_blip import token_maps
from dgl_rsis.tiny_models import tiny_blip
from s4eca.dgl_rsis.grounding.activation import KINDS, fuse
from s4eca.dgl_rsis.grounding.blip import BlipGrounding
from s4eca.dgl_rsis.parts import View
from s4eca.errors import S4ecaError

NAMES = ("local", "context", "whole", "average")
SHIP = make_phrase("a gray ship on the left", local="ship", context="gray left")
PHRASES = [
    SHIP,
    make_phrase("ship", local="ship"),
    make_phrase("the large white storage tank near the road on the upper right", "storage tank", "large white right"),
    make_phrase("the xq court", local="court", context="xq"),
]


@pytest.fixture(scope="module")
def blip():
    return tiny_blip()


@pytest.fixture(scope="module")
def grounding(blip):
    return BlipGrounding(blip, layer=1)


def assert_equal_maps(one, two, atol=1e-6):
    for name in NAMES:
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=0, atol=atol, err_msg=name)
    assert one.score == pytest.approx(two.score, abs=atol)


def encode(blip, view, side=96):
    """The image as the vision tower gives it, from pixels made with PIL."""
    small = np.asarray(Image.fromarray(view.image).resize((side, side), Image.Resampling.BICUBIC), np.float64)
    pixels = (small / 255 - blip.mean) / blip.std
    pixels = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32))
    with torch.no_grad():
        return blip.model.vision_model(pixels, interpolate_pos_encoding=side != blip.image_size).last_hidden_state


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("enc", [None, 77])
def test_maps_are_those_of_nudged_attention(layer, enc):
    blip, view = tiny_blip(vision_config={"image_size": 48}), make_view(48)
    (maps,) = BlipGrounding(blip, layer=layer, enc_token_id=enc).maps(view, [SHIP])
    ids = blip.tokenizer.convert_tokens_to_ids(
        ["[CLS]", "there", "is", "a", "a", "gray", "ship", "on", "the", "left", "[SEP]"]
    )
    if enc is not None:
        ids[0] = enc
    tokens, score = token_maps(blip, ids, encode(blip, view, 48).double(), layer)
    tokens = tokens.reshape(-1, 3, 3).numpy()
    expected = {
        "local": tokens[6],
        "context": (tokens[5] + tokens[9]) / 2,
        "whole": tokens[0],
        "average": tokens[4:10].mean(0),  # not the template's words, and its article only once
    }
    for name, values in expected.items():
        assert values.max() > 1e-6, name  # worth comparing
        np.testing.assert_allclose(getattr(maps, name), values, atol=1e-4 * values.max(), err_msg=name)
        assert getattr(maps, name).dtype == np.float32
    assert maps.score == pytest.approx(score, abs=1e-5)


def test_a_word_of_several_sub_tokens_has_their_mean():
    blip, view = tiny_blip(vision_config={"image_size": 48}), make_view(48)
    (maps,) = BlipGrounding(blip, layer=1).maps(view, [make_phrase("the xq court", local="court", context="xq")])
    tokens = ["[CLS]", "there", "is", "a", "the", "x", "##q", "court", "[SEP]"]
    ids = blip.tokenizer.convert_tokens_to_ids(tokens)
    found, _ = token_maps(blip, ids, encode(blip, view, 48).double(), 1)
    expected = found[5:7].mean(0).reshape(3, 3).numpy()
    np.testing.assert_allclose(maps.context, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("enc", [None, 77])
def test_score_is_the_librarys_match_logit(blip, enc):
    view = make_view(130)  # resized on its way
    grounding = BlipGrounding(blip, layer=1, enc_token_id=enc)
    small = np.asarray(Image.fromarray(view.image).resize((96, 96), Image.Resampling.BICUBIC), np.float32)
    pixels = torch.from_numpy(((small / 255 - blip.mean) / blip.std).transpose(2, 0, 1)[None].astype(np.float32))
    for phrase, maps in zip(PHRASES, grounding.maps(view, PHRASES), strict=True):
        ids = torch.tensor([blip.tokenizer(f"there is a {phrase.text}")["input_ids"]])
        ids[:, 0] = ids[:, 0] if enc is None else enc
        with torch.no_grad():
            expected = blip.model(input_ids=ids, pixel_values=pixels).itm_score[0, 1]
        assert maps.score == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_padded_batches_agree_with_one_by_one(blip, batch_size):
    view = make_view()
    together = BlipGrounding(blip, layer=1, batch_size=batch_size).maps(view, PHRASES)
    alone = [BlipGrounding(blip, layer=1).maps(view, [phrase])[0] for phrase in PHRASES]
    for one, two, phrase in zip(together, alone, PHRASES, strict=True):
        assert_equal_maps(one, two)
        for kind in KINDS:  # the maps themselves are small
            np.testing.assert_allclose(fuse(one, phrase, kind)[0], fuse(two, phrase, kind)[0], rtol=0, atol=5e-6)
    assert len({maps.local.tobytes() for maps in together}) == len(PHRASES)


def test_modes_of_the_caller_change_nothing(grounding):
    view = make_view()
    expected = grounding.maps(view, PHRASES)
    for mode in (torch.inference_mode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16)):
        with mode:
            found = grounding.maps(view, PHRASES)
            assert not torch.is_grad_enabled() or isinstance(mode, torch.autocast)
        for one, two in zip(found, expected, strict=True):
            assert one.pack().keys() == two.pack().keys()
            assert all(np.array_equal(one.pack()[name], two.pack()[name]) for name in one.pack())


def test_the_image_is_encoded_once_and_without_a_gradient(blip):
    grounding = BlipGrounding(blip, layer=1, batch_size=1)
    modes = []
    hook = blip.model.vision_model.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    grounding.maps(make_view(), PHRASES)
    hook.remove()
    assert modes == [False]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in blip.model.parameters())


def test_missing_words_have_an_empty_map(grounding):
    assert grounding.maps(make_view(), []) == []
    (maps,) = grounding.maps(make_view(), [make_phrase("ship", local="ship")])
    assert not maps.context.any()
    np.testing.assert_allclose(maps.local, maps.average)
    (nothing,) = grounding.maps(make_view(), [make_phrase("")])
    assert not nothing.local.any()
    assert not nothing.average.any()
    assert nothing.whole.any()


def test_what_is_too_long_is_cut_with_a_warning_that_counts(blip):
    grounding = BlipGrounding(blip, layer=1, max_tokens=9)  # [CLS] there is a ... [SEP]: four left
    long = make_phrase("a gray ship on the left", local="ship", context="left")
    with pytest.warns(UserWarning, match=r"2 of 3 texts are longer than the 9 .* first being 'a gray ship on the le"):
        cut, _, short = grounding.maps(make_view(), [long, PHRASES[2], PHRASES[1]])
    assert cut.local.any()
    assert not cut.context.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (alone,) = grounding.maps(make_view(), [PHRASES[1]])
        grounding.maps(make_view(), [make_phrase("a gray ship on", local="ship")])  # just fits
    assert_equal_maps(short, alone)


def test_several_sides_are_averaged_on_the_largest_grid(blip):
    view = make_view()
    coarse = BlipGrounding(blip, layer=1, input_sides=[48]).maps(view, PHRASES)
    fine = BlipGrounding(blip, layer=1, input_sides=[192]).maps(view, PHRASES)
    both = BlipGrounding(blip, layer=1, input_sides=[48, 192]).maps(view, PHRASES)
    # 12 rows out of 3: a cell's centre lies at (i + 0.5) / 4 - 0.5, and its map spreads over 16 cells
    at = np.clip((np.arange(12) + 0.5) / 4 - 0.5, 0, 2)
    grid = np.meshgrid(at, at, indexing="ij")
    for one, two, found in zip(coarse, fine, both, strict=True):
        for name in NAMES:
            small = ndimage.map_coordinates(getattr(one, name).astype(np.float64), grid, order=1) / 16
            expected = (small + getattr(two, name)) / 2
            np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-4, atol=1e-9)
        assert found.score == pytest.approx((one.score + two.score) / 2)
    score = blip.model.itm_head(
        blip.model.text_encoder(
            input_ids=torch.tensor([blip.tokenizer("there is a ship")["input_ids"]]),
            encoder_hidden_states=encode(blip, view, 192),
        ).last_hidden_state[:, 0]
    )[0, 1]
    assert fine[1].score == pytest.approx(float(score), abs=1e-5)


def test_cells_lie_in_the_image_as_the_patches_do():
    blip = tiny_blip()
    vision = blip.model.vision_model
    vision.encoder.layers = vision.encoder.layers[:0]  # a patch acts on its own cell alone
    vision.embeddings.position_embedding.zero_()
    image = np.full((96, 96, 3), 90, np.uint8)
    image[16:32, 48:64] = 200  # second row, fourth column
    (maps,) = BlipGrounding(blip, layer=1).maps(View(image, "spot"), [SHIP])
    for name in NAMES:
        values = getattr(maps, name)
        others = np.delete(values.ravel(), 9)
        np.testing.assert_allclose(others, others[0], rtol=1e-4)
        assert abs(values[1, 3] - others[0]) > 0.01 * values.max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 2}, r"grounding\.layer=2 must be from 0 to 1"),
        ({"layer": -1}, r"grounding\.layer=-1"),
        ({"template": "there is a ship"}, r"grounding\.template"),
        ({"template": "{} and {}"}, r"grounding\.template"),
        ({"input_sides": []}, r"grounding\.input_sides"),
        ({"input_sides": [96, 96]}, r"grounding\.input_sides"),
        ({"input_sides": [100]}, r"grounding\.input_sides has 100, .* 16 pixels; give for example 96"),
        ({"input_sides": [0]}, r"grounding\.input_sides has 0"),
        ({"enc_token_id": 30523}, r"grounding\.enc_token_id=30523 .* 256 .* give null"),
        ({"max_tokens": 49}, r"grounding\.max_tokens=49 .* 48"),
        ({"max_tokens": 2}, r"grounding\.max_tokens=2"),
        ({"batch_size": 0}, r"grounding\.batch_size=0"),
    ],
)
def test_impossible_settings_are_refused(blip, options, message):
    with pytest.raises(S4ecaError, match=message):
        BlipGrounding(blip, **{"layer": 1} | options)


def test_identity_tells_whatever_changes_the_maps(blip, grounding):
    identity = grounding.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert BlipGrounding(blip, layer=1, batch_size=3, input_sides=[96]).identity() == identity
    others = [
        BlipGrounding(blip, layer=0),
        BlipGrounding(blip, layer=1, template="{}"),
        BlipGrounding(blip, layer=1, input_sides=[48]),
        BlipGrounding(blip, layer=1, enc_token_id=7),
        BlipGrounding(blip, layer=1, max_tokens=20),
        BlipGrounding(tiny_blip(seed=1), layer=1),
    ]
    hashes = {json.dumps(other.identity()) for other in others}
    assert len(hashes | {json.dumps(identity)}) == len(others) + 1


def test_another_vocabulary_is_another_identity(grounding):
    other = tiny_blip()
    other.tokenizer.add_tokens(["zeppelin"])
    assert BlipGrounding(other, layer=1).identity() != grounding.identity()


def test_tokenizer_and_length_are_offered_to_data_modules(blip, grounding):
    assert grounding.tokenizer is blip.tokenizer
    assert grounding.max_tokens == 35


@pytest.mark.gpu
def test_gpu_and_cpu_agree():
    view = make_view()
    expected = BlipGrounding(tiny_blip(), layer=1).maps(view, PHRASES)
    found = BlipGrounding(tiny_blip(), layer=1).cuda().maps(view, PHRASES)
    for one, two, phrase in zip(found, expected, PHRASES, strict=True):
        np.testing.assert_allclose(fuse(one, phrase)[0], fuse(two, phrase)[0], rtol=0, atol=1e-4)
        assert one.score == pytest.approx(two.score, abs=1e-4)
