import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from s4eca.dgl_rsis.crops import crop_and_resize, crop_boxes


@pytest.mark.parametrize(
    ("kind", "box", "size", "expected"),
    [
        # 32 x 32 has the area at which the context is half a side: 32 * 2 = 64
        ("adaptive", (384, 384, 416, 416), (800, 800), (368, 368, 432, 432)),
        # 64 x 64: four times the area, half the context: 64 * 1.5
        ("adaptive", (400, 400, 464, 464), (800, 800), (384, 384, 480, 480)),
        # 16 x 4: 0.5 * sqrt(1024 / 64) = 2, at most 1: 16 * 3 = 48
        ("adaptive", (100, 200, 116, 204), (800, 800), (84, 178, 132, 226)),
        # 8 x 8: 8 * 3 = 24, at least 32
        ("adaptive", (100, 100, 108, 108), (800, 800), (88, 88, 120, 120)),
        # 320 x 320: 0.5 / 10, at least 0.1: 384
        ("adaptive", (200, 200, 520, 520), (800, 800), (168, 168, 552, 552)),
        ("fixed", (200, 200, 240, 220), (800, 800), (180, 170, 260, 250)),
        ("tight", (200, 200, 240, 220), (800, 800), (200, 200, 240, 220)),
        # shifted back at the edges, not cut
        ("fixed", (0, 780, 40, 800), (800, 800), (0, 720, 80, 800)),
        # the square of 160 does not fit: less context
        ("fixed", (100, 20, 180, 60), (100, 300), (90, 0, 190, 100)),
        # longer than the short side: no square holds it
        ("fixed", (50, 20, 250, 60), (100, 300), (50, 0, 250, 100)),
    ],
)
def test_crops_by_hand(kind, box, size, expected):
    crop = crop_boxes(np.array([box]), size, kind)
    assert crop.dtype == np.int32
    assert crop.tolist() == [list(expected)]


@st.composite
def boxes_in_images(draw):
    height, width = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))), (height, width)


@given(boxes_in_images(), st.sampled_from(["adaptive", "fixed"]), st.floats(0, 2), st.integers(1, 64))
@settings(max_examples=200, deadline=None)
def test_crops_hold_their_box_and_are_square_where_a_square_can(case, kind, rho0, min_side):
    (x0, y0, x1, y1), (height, width) = case
    crop = crop_boxes(np.array([[x0, y0, x1, y1]]), (height, width), kind, rho0=rho0, min_side=min_side)
    left, top, right, bottom = crop[0].tolist()
    assert 0 <= left <= x0 < x1 <= right <= width
    assert 0 <= top <= y0 < y1 <= bottom <= height
    longer = max(x1 - x0, y1 - y0)
    if longer <= min(height, width):
        assert right - left == bottom - top
    else:
        assert sorted([right - left, bottom - top]) == sorted([longer, min(height, width)])
    rho = rho0 if kind == "fixed" else min(max(rho0 * (1024 / ((x1 - x0) * (y1 - y0))) ** 0.5, 0.1), 1.0)
    wanted = max(min_side, longer * (1 + 2 * rho))
    if wanted <= min(height, width) - 1:
        assert abs(right - left - wanted) <= 0.5 + 1e-6
    # the box is in the middle, unless the image ends there
    if left > 0 and right < width:
        assert abs((left + right) - (x0 + x1)) <= 1
    if top > 0 and bottom < height:
        assert abs((top + bottom) - (y0 + y1)) <= 1


@given(st.integers(1, 100), st.integers(1, 100))
@settings(max_examples=50, deadline=None)
def test_smaller_objects_get_more_context(one, two):
    small, large = sorted([one, two])
    boxes = np.array([[500, 500, 500 + side, 500 + side] for side in (small, large)])
    crop = crop_boxes(boxes, (1000, 1000), min_side=1)
    shares = (crop[:, 2] - crop[:, 0]) / (boxes[:, 2] - boxes[:, 0])
    assert shares[0] >= shares[1] - 0.5 / small  # a side is a whole number of pixels


def test_no_boxes_give_no_crops():
    assert crop_boxes(np.zeros((0, 4), np.int32), (10, 10)).shape == (0, 4)
    assert crop_and_resize(torch.zeros(3, 8, 8), np.zeros((0, 4), np.int32), 4).shape == (0, 3, 4, 4)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("box", [(3, 5, 93, 85), (10, 10, 22, 18), (0, 0, 32, 32)])
def test_resizing_is_pillow_bicubic_up_to_rounding(box):
    image = noise(90, 100)
    x0, y0, x1, y1 = box
    expected = Image.fromarray(image[y0:y1, x0:x1]).resize((32, 32), Image.Resampling.BICUBIC)
    found = crop_and_resize(as_tensor(image), np.array([box]), 32)[0]
    difference = (found * 255 - torch.from_numpy(np.array(expected)).permute(2, 0, 1)).abs()
    if (x1 - x0, y1 - y0) == (32, 32):
        assert difference.max() < 1e-3
    assert difference.mean() < 0.5
    # Pillow also clips between rows and columns, which shows where noise overshoots
    assert difference.flatten().quantile(0.98) < 2
    assert found.min() >= 0
    assert found.max() <= 1


def test_what_is_outside_the_mask_is_filled_before_resizing():
    image, masks = noise(40, 50), torch.zeros(2, 40, 50, dtype=torch.bool)
    masks[0, 10:20, 5:25] = True
    boxes = np.array([[0, 0, 40, 40], [5, 5, 30, 20]])
    found = crop_and_resize(as_tensor(image), boxes, 16, masks, (0.25, 0.5, 0.75))
    filled = np.full(image.shape, (0.25, 0.5, 0.75))
    filled[10:20, 5:25] = image[10:20, 5:25] / 255
    expected = crop_and_resize(torch.from_numpy(filled).permute(2, 0, 1).float(), boxes[:1], 16)
    torch.testing.assert_close(found[:1], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found[1], torch.tensor([0.25, 0.5, 0.75]).reshape(3, 1, 1).expand(3, 16, 16))
