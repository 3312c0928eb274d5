import importlib.metadata
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from layouts import SAMPLES, box_mask, picture
from s4eca.data.resize import resize_image, resize_mask
from s4eca.data.transforms import Augmentation, Photometric
from s4eca.errors import S4ecaError


@pytest.mark.parametrize(("height", "width", "size"), [(80, 80, 48), (81, 80, 48), (20, 33, 48), (48, 48, 48)])
def test_pil_is_what_torchvision_does_to_a_pil_image(height, width, size):
    array = picture(0, height, width)
    expected = np.array(tv.resize(Image.fromarray(array), [size, size], InterpolationMode.BILINEAR))
    result = resize_image(array, size)
    assert result.shape == (3, size, size)
    assert result.dtype == torch.uint8
    assert np.array_equal(result.permute(1, 2, 0).numpy(), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 120), st.integers(8, 120), st.sampled_from([16, 48, 100]), st.integers(0, 1000))
@example(8, 8, 100, 886)  # both round twice, and here the two roundings add up at one pixel
def test_torch_is_within_one_grey_level_and_rarely_two(height, width, size, seed):
    array = picture(seed, height, width)
    difference = (resize_image(array, size, "torch").int() - resize_image(array, size, "pil").int()).abs()
    assert difference.max() <= 2
    assert (difference > 1).float().mean() < 1e-3


def augment(augmentation, image, index=0):
    return augmentation(image, torch.zeros(image.shape[1:], dtype=torch.bool), "The ship", 0, 0, index)[0]


def test_torch_is_within_one_grey_level_on_a_real_image():
    path = SAMPLES / "rrsisd_mini" / "images" / "rrsisd" / "JPEGImages" / "30001.jpg"
    if not path.is_file():
        pytest.skip("the RRSIS-D sample is not in ../shared/data")
    array = np.array(Image.open(path).convert("RGB"))
    difference = resize_image(array, 480, "torch").int() - resize_image(array, 480, "pil").int()
    assert difference.abs().max() <= 1
    assert difference.abs().float().mean() < 0.5


def test_torch_resizes_an_array_that_is_a_view():
    array = picture(0, 40, 40)[:, ::-1]
    assert torch.equal(resize_image(array, 16, "torch"), resize_image(array.copy(), 16, "torch"))


def test_unknown_resizing():
    with pytest.raises(S4ecaError, match=r"no resizing 'cv2'.*pil, torch"):
        resize_image(picture(0), 16, "cv2")


@pytest.mark.parametrize(("height", "width", "size"), [(80, 80, 48), (80, 81, 48), (23, 31, 100), (33, 20, 7)])
def test_masks_are_resized_as_pil_nearest_does(height, width, size):
    mask = np.random.default_rng(0).random((height, width)) < 0.5
    expected = tv.resize(Image.fromarray(mask.astype(np.uint8) * 255), [size, size], InterpolationMode.NEAREST)
    assert np.array_equal(resize_mask(mask, (size, size)), np.array(expected) == 255)
    # by the definition of the filter: the source pixel under the centre of the target pixel (no ties at these sizes)
    rows = np.floor((np.arange(size) + 0.5) * height / size).astype(int)
    columns = np.floor((np.arange(size) + 0.5) * width / size).astype(int)
    assert np.array_equal(resize_mask(mask, (size, size)), mask[rows][:, columns])


def test_mask_size_is_height_and_width():
    assert resize_mask(box_mask(0), (10, 20)).shape == (10, 20)
    assert resize_mask(box_mask(0), (10, 20)).dtype == bool


PARTS = [{"brightness": 0.3}, {"contrast": 0.3}, {"blur": 2.0}, {"noise": 0.1}]


@pytest.mark.parametrize("part", PARTS)
def test_each_part_changes_the_image_by_seed_epoch_and_index(part):
    image = torch.from_numpy(picture(1)).permute(2, 0, 1)
    augmentation = Augmentation(Photometric(**part))
    first = augment(augmentation, image)
    assert first.shape == image.shape
    assert first.dtype == torch.uint8
    assert not torch.equal(first, image)
    for position in range(3):  # whole-number brightness shifts may coincide, but not over six seeds
        keys = [tuple(value if place == position else 0 for place in range(3)) for value in range(6)]
        assert (
            len(
                {
                    augmentation(image, torch.zeros(image.shape[1:], dtype=torch.bool), "", *key)[0].numpy().tobytes()
                    for key in keys
                }
            )
            >= 5
        )
    # neither earlier calls nor another instance nor the global random state matter
    np.random.seed(3)
    assert torch.equal(augment(augmentation, image), first)
    assert torch.equal(augment(Augmentation(Photometric(**part)), image), first)


def test_brightness_keeps_within_its_limit():
    image = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    augmentation = Augmentation(Photometric(brightness=0.1))
    shifts = [float(augment(augmentation, image, index).float().mean()) - 100 for index in range(60)]
    assert max(abs(shift) for shift in shifts) <= 0.1 * 255 + 1
    assert min(shifts) < -10
    assert max(shifts) > 10


def test_nothing_moves():
    """A geometric change would make "left" and "upper" false: the bright half stays where it is."""
    array = np.zeros((32, 32, 3), dtype=np.uint8)
    array[:, :16] = 200
    image = torch.from_numpy(array).permute(2, 0, 1)
    augmentation = Augmentation(Photometric(brightness=0.1, contrast=0.1, blur=1.0, noise=0.05))
    for index in range(20):
        result = augment(augmentation, image, index).float()
        assert result[:, :, :14].mean() > result[:, :, 18:].mean() + 60


def test_off_by_default():
    assert not Photometric().active
    assert Photometric(blur=0.5).active


@pytest.mark.parametrize("part", [{"brightness": 0.31}, {"contrast": -0.1}, {"blur": 4.0}, {"noise": 0.5}])
def test_strengths_out_of_range(part):
    name = next(iter(part))
    with pytest.raises(S4ecaError, match=rf"data\.photometric\.{name}=.*choose a value from 0 to"):
        Photometric(**part)


def test_albumentationsx_is_refused(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.1" if name == "albumentationsx" else real(name))
    with pytest.raises(S4ecaError, match="pip uninstall albumentationsx"):
        Augmentation(Photometric(blur=1.0))


def test_albumentations_is_not_imported_without_augmentation():
    """It costs seconds at import; the subprocess shows what the package itself pulls in."""
    import subprocess

    code = "import sys, s4eca.data; print('albumentations' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
