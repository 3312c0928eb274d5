import math

import pytest
import torch
import torch.nn.functional as F

from s4eca.data.augmentation.occlusion import is_occluded, occlude
from s4eca.data.augmentation.transforms import Augmentation

WHITE = torch.full((3, 160, 160), 255, dtype=torch.uint8)
EMPTY = torch.zeros(160, 160, dtype=torch.bool)


def white(size):
    return torch.full((3, size, size), 255, dtype=torch.uint8)


def pool(flags, side):
    """Returns where a window of side × side pixels holds a True."""
    return F.max_pool2d(F.max_pool2d(flags.float(), (side, 1), stride=1), (1, side), stride=1) > 0


def chosen(share, seed, count=4000):
    return [index for index in range(count) if is_occluded(share, seed, index)]


def test_a_fifth_of_the_samples_is_chosen():
    first = chosen(0.2, 0)
    assert abs(len(first) - 800) < 4 * math.sqrt(4000 * 0.2 * 0.8)
    other = chosen(0.2, 1)
    assert abs(len(other) - 800) < 4 * math.sqrt(4000 * 0.2 * 0.8)
    assert abs(len(set(first) & set(other)) - 160) < 4 * math.sqrt(4000 * 0.04 * 0.96)  # two independent choices
    assert chosen(0.0, 0, 100) == []
    assert chosen(1.0, 0, 100) == list(range(100))
    # all quarters of the dataset alike
    for start in range(0, 4000, 1000):
        assert abs(sum(start <= index < start + 1000 for index in first) - 200) < 4 * math.sqrt(160)


@pytest.mark.parametrize(("size", "side"), [(800, 32), (480, 19), (400, 16), (128, 5), (10, 1)])
def test_squares_are_black_whole_and_scaled(size, side):
    """Every black pixel lies in a black square of that side: what is left of the black after opening it."""
    for index in range(2):
        result = occlude(white(size), 0, 0, index)
        assert result.shape == (3, size, size)
        assert result.dtype == torch.uint8
        assert set(result.unique().tolist()) == {0, 255}
        black = (result == 0).all(dim=0)
        assert torch.equal(black, (result == 0).any(dim=0))
        shrunk = pool(~black[None], side)
        opened = pool(F.pad(~shrunk, [side - 1] * 4), side)[0]
        assert torch.equal(opened, black)
        assert side**2 < black.sum() <= 60 * side**2 or side == 1


def test_there_are_20_to_60_squares():
    areas = [int((occlude(white(800), 0, 0, index)[0] == 0).sum()) / 32**2 for index in range(150)]
    assert max(areas) <= 60
    assert min(areas) >= 17  # some overlap
    # the mean over 20 … 60 squares of what is covered; squares lie a bit thicker in the middle, where they overlap more
    expected = sum(1 - (1 - (32 / 800) ** 2) ** count for count in range(20, 61)) / 41 * (800 / 32) ** 2
    assert sum(areas) / len(areas) == pytest.approx(expected, rel=0.06)
    # they reach every corner of the image
    seen = torch.zeros(800, 800, dtype=torch.bool)
    for index in range(150):
        seen |= occlude(white(800), 0, 0, index)[0] == 0
    assert seen[:24, :24].any()
    assert seen[-24:, -24:].any()
    assert seen[32:-32, 32:-32].float().mean() > 0.999


def test_samples_are_chosen_once_and_their_squares_lie_elsewhere_each_time():
    augmentation = Augmentation(occlusion=0.2)
    mask = torch.zeros(160, 160, dtype=torch.bool)
    mask[40:120, 40:120] = True
    for index in range(60):
        epochs = []
        for epoch in range(3):
            image, same, words, _ = augmentation(WHITE, mask, "A ship on the left", 7, epoch, index)
            assert torch.equal(same, mask)
            assert words == "A ship on the left"
            epochs.append(image)
        occluded = [not torch.equal(image, WHITE) for image in epochs]
        assert occluded == [is_occluded(0.2, 7, index)] * 3
        if occluded[0]:
            assert not torch.equal(epochs[0], epochs[1])
            assert not torch.equal(epochs[1], epochs[2])
    assert (WHITE == 255).all()


def test_squares_stay_black_under_the_other_parts():
    augmentation = Augmentation(occlusion=1.0, brightness=0.3, noise=0.1, blur=2.0)
    image, _, _, _ = augmentation(WHITE, EMPTY, "A ship", 0, 0, 0)
    black = occlude(WHITE, 0, 0, 0)[0] == 0
    assert (image[:, black] == 0).all()
    assert image[:, ~black].float().mean() > 100


def test_a_turned_sample_is_occluded_after_the_turn():
    mask = torch.zeros(160, 160, dtype=torch.bool)
    mask[:, :30] = True
    augmentation = Augmentation(occlusion=1.0, horizontal_flip=1.0)
    image, turned, words, _ = augmentation(WHITE, mask, "A ship on the left", 0, 0, 3)
    assert words == "A ship on the right"
    assert torch.equal(turned, mask.flip(-1))
    assert torch.equal(image, occlude(WHITE, 0, 0, 3))
