import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from dgl_rsis.grounding.phrases import make_phrase, make_view
from dgl_rsis.grounding.slow_blip import linear, norm
from dgl_rsis.tiny_models import tiny_clip
from s4eca.dgl_rsis.grounding.activation import KINDS, fuse
from s4eca.dgl_rsis.grounding.clip import ClipGrounding
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
TEMPLATE = "an image of {} in gray"


def lively_clip(**options):
    """A tiny CLIP whose image feature depends on the image; the library's own spread is very small."""
    clip = tiny_clip(**options)
    generator = torch.Generator().manual_seed(0)
    for parameter in clip.model.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return clip


@pytest.fixture(scope="module")
def clip():
    return lively_clip()


@pytest.fixture(scope="module")
def grounding(clip):
    return ClipGrounding(clip, TEMPLATE)


def pixels(clip, view, side):
    small = np.asarray(Image.fromarray(view.image).resize((side, side), Image.Resampling.BICUBIC), np.float64)
    return torch.from_numpy(((small / 255 - clip.mean) / clip.std).transpose(2, 0, 1)[None].astype(np.float32))


def text_feature(clip, text):
    ids = torch.tensor([clip.tokenizer(text)["input_ids"]])
    feature = clip.model.get_text_features(input_ids=ids).pooler_output[0].double()
    return feature / feature.norm()


def cosines(clip, hidden, normed, text):
    """What last block and head make of nudged patches (V, 1 + cells, D), by the formulas in double precision."""
    config = clip.model.config.vision_config
    state = {name: value.double() for name, value in clip.model.state_dict().items()}
    block, heads = f"vision_model.encoder.layers.{config.num_hidden_layers - 1}", config.num_attention_heads
    width = config.hidden_size // heads
    q, k, v = (linear(state, f"{block}.self_attn.{name}_proj", normed) for name in "qkv")
    outputs = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = (q[:, :1, part] @ k[..., part].transpose(1, 2) / math.sqrt(width)).exp()
        outputs.append(scores / scores.sum(-1, keepdim=True) @ v[..., part])
    x = hidden[:, :1] + linear(state, f"{block}.self_attn.out_proj", torch.cat(outputs, -1))
    inner = linear(state, f"{block}.mlp.fc1", norm(state, f"{block}.layer_norm2", x, config.layer_norm_eps))
    x = x + linear(state, f"{block}.mlp.fc2", inner * torch.sigmoid(1.702 * inner))
    x = norm(state, "vision_model.post_layernorm", x[:, 0], config.layer_norm_eps)
    image = x @ state["visual_projection.weight"].T
    return image @ text / image.norm(dim=-1)


@pytest.mark.parametrize("side", [16, 24])
def test_maps_are_those_of_nudged_patches(side):
    clip = lively_clip(vision_config={"image_size": 16})
    view = make_view(50)
    (maps,) = ClipGrounding(clip, TEMPLATE, input_sides=[side]).maps(view, [SHIP])
    # the library says what enters the last block
    hidden = clip.model.vision_model(
        pixels(clip, view, side), interpolate_pos_encoding=side != 16, output_hidden_states=True
    ).hidden_states[-2]
    hidden = hidden.double()
    state = {name: value.double() for name, value in clip.model.state_dict().items()}
    normed = norm(state, "vision_model.encoder.layers.2.layer_norm1", hidden, 1e-5)
    count, step = normed[0].numel(), 1e-5
    nudges = step * torch.eye(count, dtype=torch.float64).reshape(count, *normed.shape[1:])
    texts = {"local": "ship", "context": "gray left", "whole": SHIP.text, "average": SHIP.text}
    for name, text in texts.items():
        feature = text_feature(clip, TEMPLATE.replace("{}", text))
        up, down = (cosines(clip, hidden, normed + sign * nudges, feature) for sign in (1, -1))
        gradient = ((up - down) / (2 * step)).reshape(normed.shape[1:])[1:]
        expected = (normed[0, 1:] @ gradient.mean(0)).clamp(min=0).reshape(side // 8, side // 8).numpy()
        np.testing.assert_allclose(getattr(maps, name), expected, atol=1e-4 * expected.max() + 1e-9, err_msg=name)
        assert getattr(maps, name).dtype == np.float32
    assert max(getattr(maps, name).max() for name in NAMES) > 1e-5
    assert maps.score == pytest.approx(float(cosines(clip, hidden, normed, feature)), abs=1e-5)


def test_score_is_the_librarys_cosine(clip, grounding):
    view = make_view(77)
    for phrase, maps in zip(PHRASES, grounding.maps(view, PHRASES), strict=True):
        ids = torch.tensor([clip.tokenizer(f"an image of {phrase.text} in gray")["input_ids"]])
        output = clip.model(input_ids=ids, pixel_values=pixels(clip, view, 32))
        expected = (output.logits_per_image / clip.model.logit_scale.exp()).item()
        assert maps.score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_padded_batches_agree_with_one_by_one(clip, batch_size):
    view = make_view()
    together = ClipGrounding(clip, TEMPLATE, batch_size=batch_size).maps(view, PHRASES)
    alone = [ClipGrounding(clip, TEMPLATE).maps(view, [phrase])[0] for phrase in PHRASES]
    for one, two, phrase in zip(together, alone, PHRASES, strict=True):
        for name in NAMES:
            np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=0, atol=1e-6)
        assert one.score == pytest.approx(two.score, abs=1e-6)
        for kind in KINDS:
            np.testing.assert_allclose(fuse(one, phrase, kind)[0], fuse(two, phrase, kind)[0], rtol=0, atol=1e-5)
    assert len({maps.whole.tobytes() for maps in together}) == len(PHRASES)


def test_modes_of_the_caller_change_nothing(grounding):
    view = make_view()
    expected = grounding.maps(view, PHRASES)
    for mode in (torch.inference_mode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16)):
        with mode:
            found = grounding.maps(view, PHRASES)
        for one, two in zip(found, expected, strict=True):
            assert all(np.array_equal(one.pack()[name], two.pack()[name]) for name in two.pack())


def test_only_the_last_block_has_a_gradient_and_the_image_is_encoded_once(clip):
    grounding, modes = ClipGrounding(clip, batch_size=1), []
    blocks = clip.model.vision_model.encoder.layers
    hooks = [block.mlp.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled())) for block in blocks]
    grounding.maps(make_view(), [SHIP, PHRASES[1]])
    for hook in hooks:
        hook.remove()
    assert modes == [False, False, True, True, True]  # of the five texts three are the same
    assert all(parameter.grad is None for parameter in clip.model.parameters())


def test_missing_words_have_an_empty_map(grounding):
    assert grounding.maps(make_view(), []) == []
    (maps,) = grounding.maps(make_view(), [make_phrase("ship", local="ship")])
    assert not maps.context.any()
    np.testing.assert_array_equal(maps.local, maps.whole)
    (maps,) = grounding.maps(make_view(), [make_phrase("on the left", context="left")])
    assert not maps.local.any()


def test_what_is_too_long_is_cut_with_a_warning_that_counts(grounding):
    long = make_phrase("ship " * 50, local="")
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 48"):
        grounding.maps(make_view(), [long, PHRASES[1]])


def test_several_sides_are_averaged_on_the_largest_grid(clip):
    view = make_view()
    coarse, fine, both = (ClipGrounding(clip, input_sides=s).maps(view, [SHIP])[0] for s in ([16], [64], [16, 64]))
    at = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)
    grid = np.meshgrid(at, at, indexing="ij")
    for name in NAMES:
        small = ndimage.map_coordinates(getattr(coarse, name).astype(np.float64), grid, order=1) / 16
        expected = (small + getattr(fine, name)) / 2
        np.testing.assert_allclose(getattr(both, name), expected, rtol=1e-4, atol=1e-9)
    assert both.score == pytest.approx((coarse.score + fine.score) / 2)


def test_cells_lie_in_the_image_as_the_patches_do():
    clip = lively_clip()
    vision = clip.model.vision_model
    vision.encoder.layers = vision.encoder.layers[2:]  # before the last block a patch acts on its own cell alone
    vision.embeddings.position_embedding.weight.zero_()
    image = np.full((32, 32, 3), 90, np.uint8)
    image[8:16, 24:] = 200  # second row, fourth column
    found = ClipGrounding(clip).maps(View(image, "spot"), PHRASES)
    odd = 0
    for maps in found:
        values = maps.whole
        others = np.delete(values.ravel(), 7)
        np.testing.assert_allclose(others, others[0], rtol=1e-4, atol=1e-7)
        odd += abs(values[1, 3] - others[0]) > 0.01 * values.max()
    assert odd


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "a ship"}, r"grounding\.template"),
        ({"input_sides": [30]}, r"grounding\.input_sides has 30, .* 8 pixels; give for example 32"),
        ({"batch_size": 0}, r"grounding\.batch_size=0"),
    ],
)
def test_impossible_settings_are_refused(clip, options, message):
    with pytest.raises(S4ecaError, match=message):
        ClipGrounding(clip, **options)


def test_identity_tells_whatever_changes_the_maps(clip, grounding):
    identity = grounding.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert ClipGrounding(clip, TEMPLATE, batch_size=3, input_sides=[32]).identity() == identity
    others = [
        ClipGrounding(clip),
        ClipGrounding(clip, TEMPLATE, input_sides=[64]),
        ClipGrounding(tiny_clip(seed=1), TEMPLATE),
    ]
    assert len({json.dumps(other.identity()) for other in others} | {json.dumps(identity)}) == 4
    assert grounding.max_tokens == 48
    assert grounding.tokenizer is clip.tokenizer


@pytest.mark.gpu
def test_gpu_and_cpu_agree():
    view = make_view()
    expected = ClipGrounding(lively_clip()).maps(view, PHRASES)
    found = ClipGrounding(lively_clip()).cuda().maps(view, PHRASES)
    for one, two, phrase in zip(found, expected, PHRASES, strict=True):
        np.testing.assert_allclose(fuse(one, phrase)[0], fuse(two, phrase)[0], rtol=0, atol=1e-4)
        assert one.score == pytest.approx(two.score, abs=1e-4)
