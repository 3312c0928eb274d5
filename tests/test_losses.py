import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from s4eca.errors import S4ecaError
from s4eca.losses import BCEDice, CEDice, CrossEntropy, Dice

LOG2 = math.log(2)


def random_batch(seed: int = 0, batch: int = 3, size: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, size, size, generator=generator)
    masks = torch.rand(batch, size, size, generator=generator) < 0.3
    return logits, masks


def two_channels(difference: torch.Tensor) -> torch.Tensor:
    """A head with two channels whose difference l1 - l0 is the given logit, around an arbitrary common level."""
    level = torch.linspace(-2, 2, difference.numel(), dtype=difference.dtype).view_as(difference)
    return torch.stack([level, level + difference], dim=1)


def test_batch_cross_entropy_has_the_value_and_gradient_of_torchs_on_two_channels():
    logits, masks = random_batch()
    ours = logits.clone().requires_grad_()
    theirs = two_channels(logits).requires_grad_()
    loss = CrossEntropy((0.9, 1.1), "batch")(ours, masks)
    expected = F.cross_entropy(theirs, masks.long(), weight=torch.tensor([0.9, 1.1]))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    # with l1 = level + difference, the gradient of the difference is that of channel 1, and channel 0's is its negative
    torch.testing.assert_close(ours.grad, theirs.grad[:, 1])
    torch.testing.assert_close(ours.grad, -theirs.grad[:, 0])


def test_sample_cross_entropy_is_the_mean_of_torchs_over_single_samples():
    logits, masks = random_batch(1)
    weight = torch.tensor([0.5, 2.0])
    singles = [
        F.cross_entropy(two_channels(logits[i : i + 1]), masks[i : i + 1].long(), weight=weight) for i in range(3)
    ]
    torch.testing.assert_close(CrossEntropy((0.5, 2.0))(logits, masks), torch.stack(singles).mean())


def test_cross_entropy_by_hand():
    # pixels: p=1/2 on the target, p=1/4 on background => nll log 2 and log 4/3
    logits = torch.tensor([[[0.0, -math.log(3)]]])
    masks = torch.tensor([[[True, False]]])
    expected = (1.1 * LOG2 + 0.9 * math.log(4 / 3)) / (1.1 + 0.9)
    assert CrossEntropy()(logits, masks).item() == pytest.approx(expected, rel=1e-6)


def test_sample_and_batch_cross_entropy_differ_where_class_shares_differ():
    # sample 1 is all target with nll log 2, sample 2 all background with nll log 4/3
    logits = torch.tensor([[[0.0, 0.0]], [[-math.log(3), -math.log(3)]]])
    masks = torch.tensor([[[True, True]], [[False, False]]])
    first, second = LOG2, math.log(4 / 3)
    assert CrossEntropy((0.9, 1.1), "sample")(logits, masks).item() == pytest.approx((first + second) / 2, rel=1e-6)
    weighted = (2 * 1.1 * first + 2 * 0.9 * second) / 4
    assert CrossEntropy((0.9, 1.1), "batch")(logits, masks).item() == pytest.approx(weighted, rel=1e-6)


def rmsin_dice(logits: torch.Tensor, masks: torch.Tensor) -> list[float]:
    """RMSIN's Dice of every sample and class, in plain loops over a softmax of two channels."""
    probabilities = two_channels(logits.double()).softmax(1)
    losses = []
    for sample in range(len(logits)):
        for label in (0, 1):
            overlap = total = 0.0
            for row in range(logits.shape[1]):
                for column in range(logits.shape[2]):
                    p = probabilities[sample, label, row, column].item()
                    t = float(masks[sample, row, column].item() == label)
                    overlap += p * t
                    total += p + t
            losses.append(1 - (2 * overlap + 1e-6) / (total + 1e-6))
    return losses


def test_dice_is_rmsins_softmax_dice():
    logits, masks = random_batch(2, size=4)
    losses = rmsin_dice(logits, masks)
    assert Dice("batch_sum")(logits, masks).item() == pytest.approx(sum(losses), rel=1e-5)
    assert Dice("sample")(logits, masks).item() == pytest.approx(sum(losses) / 6, rel=1e-5)


def test_dice_by_hand():
    # p = 3/4 and 1/4, truth 1 and 0: both classes have overlap 3/4, total 1 + 1 => score 3/4
    logits = torch.tensor([[[math.log(3), -math.log(3)]]])
    masks = torch.tensor([[[True, False]]])
    assert Dice()(logits, masks).item() == pytest.approx(0.25, abs=1e-6)
    assert Dice("batch_sum")(logits, masks).item() == pytest.approx(0.5, abs=1e-6)


def test_ce_dice_is_rmsins_recipe():
    logits, masks = random_batch(3, size=4)
    cross_entropy = F.cross_entropy(two_channels(logits), masks.long(), weight=torch.tensor([0.9, 1.1])).item()
    expected = 0.9 * cross_entropy + 0.1 * sum(rmsin_dice(logits, masks))
    assert CEDice(reduction="batch")(logits, masks).item() == pytest.approx(expected, rel=1e-5)


def test_ce_dice_uses_every_option():
    logits, masks = random_batch(4, size=4)
    dice = sum(rmsin_dice(logits, masks)) / 6
    weight = torch.tensor([0.4, 3.0])
    singles = [
        F.cross_entropy(two_channels(logits[i : i + 1]), masks[i : i + 1].long(), weight=weight) for i in (0, 1, 2)
    ]
    expected = 2 * torch.stack(singles).mean().item() + 3 * dice
    assert CEDice(2, 3, (0.4, 3.0))(logits, masks).item() == pytest.approx(expected, rel=1e-5)


def test_bce_dice_is_bce_plus_the_target_classs_dice():
    logits, masks = random_batch(5, size=4)
    dice = sum(rmsin_dice(logits, masks)[1::2]) / 3
    bce = F.binary_cross_entropy(torch.sigmoid(logits.double()), masks.double()).item()
    assert BCEDice(2.0, 0.5)(logits, masks).item() == pytest.approx(2 * bce + 0.5 * dice, rel=1e-5)


PER_SAMPLE = [CrossEntropy(), Dice(), CEDice(), BCEDice()]


@pytest.mark.parametrize("loss", PER_SAMPLE, ids=lambda loss: type(loss).__name__)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_sample_losses_do_not_depend_on_how_a_batch_is_split(loss, seed, sizes):
    logits, masks = random_batch(seed, sum(sizes), 5)
    parts = zip(logits.split(sizes), masks.split(sizes), sizes, strict=True)
    split = sum(loss(part, truth) * size for part, truth, size in parts) / sum(sizes)
    torch.testing.assert_close(loss(logits, masks), split)


def test_batch_losses_do_depend_on_the_split():
    logits, masks = random_batch(6, 2)
    masks[0] = True
    for loss in (CrossEntropy(reduction="batch"), Dice("batch_sum")):
        halves = (loss(logits[:1], masks[:1]) + loss(logits[1:], masks[1:])) / 2
        assert abs(loss(logits, masks) - halves) > 1e-3


ALL = [*PER_SAMPLE, CrossEntropy(reduction="batch"), Dice("batch_sum"), CEDice(reduction="batch")]


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("truth", [False, True])
def test_empty_and_full_masks_give_finite_losses_and_gradients(loss, logit, truth):
    logits = torch.full((2, 4, 4), logit, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), truth))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", ALL)
def test_losses_of_bf16_logits_under_autocast_are_computed_in_float32(loss):
    logits, masks = random_batch(7, size=40)
    logits = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, masks)
    assert value.dtype == torch.float32
    # bit for bit the loss of the same numbers in float32: nothing inside fell back to 8 bits
    assert value == loss(logits.float(), masks)


def test_unknown_options_and_shapes_are_refused():
    with pytest.raises(S4ecaError, match="'mean' is unknown"):
        CrossEntropy(reduction="mean")
    with pytest.raises(S4ecaError, match="'batch' is unknown: use sample or batch_sum"):
        Dice("batch")
    with pytest.raises(S4ecaError, match="two positive numbers"):
        CEDice(weight=(0.0, 1.0))
    with pytest.raises(S4ecaError, match="both must be"):
        BCEDice()(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool))
