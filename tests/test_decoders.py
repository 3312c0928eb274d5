import pytest
import torch
from torch import nn

from s4eca.decoders.fpn import FPNDecoder
from s4eca.decoders.lavt import LAVTDecoder
from s4eca.decoders.memory import put_channels_first, put_channels_last
from s4eca.errors import S4ecaError

SWIN_B = (128, 256, 512, 1024)
CHANNELS = (8, 16, 32, 64)


def small(decoder: str, out_channels: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return LAVTDecoder(CHANNELS, out_channels) if decoder == "lavt" else FPNDecoder(CHANNELS, out_channels, width=16)


def pyramid(
    batch: int = 2, sizes: tuple[tuple[int, int], ...] = ((12, 16), (6, 8), (3, 4), (2, 2))
) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, *size, width) for size, width in zip(sizes, CHANNELS, strict=True)]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_lavt_parameter_count_by_hand():
    with torch.device("meta"):
        decoder = LAVTDecoder(SWIN_B, out_channels=2)
    first = [(1024 + 512) * 512 * 9, (512 + 256) * 512 * 9, (512 + 128) * 512 * 9]
    second = 3 * 512 * 512 * 9
    norms = 6 * 2 * 512
    classifier = 512 * 2 + 2
    assert parameters(decoder) == sum(first) + second + norms + classifier == 20_651_010


def test_lavt_factor_sets_the_width():
    with torch.device("meta"):
        decoder = LAVTDecoder(SWIN_B, out_channels=1, factor=4)
    convolutions = [(1024 + 512) * 256, (256 + 256) * 256, (256 + 128) * 256, 3 * 256 * 256]
    assert parameters(decoder) == 9 * sum(convolutions) + 6 * 2 * 256 + 256 + 1


@pytest.mark.parametrize(("width", "millions"), [(256, 3.44), (224, 2.69), (128, 0.99)])
def test_fpn_parameter_count_by_hand(width, millions):
    with torch.device("meta"):
        decoder = FPNDecoder(SWIN_B, out_channels=2, width=width)
    laterals = (128 + 256 + 512 + 1024) * width + 4 * width
    convolutions = 5 * (9 * width * width + 2 * width)
    assert parameters(decoder) == laterals + convolutions + 2 * width + 2
    assert round(parameters(decoder) / 1e6, 2) == millions


@pytest.mark.parametrize("decoder", ["lavt", "fpn"])
@pytest.mark.parametrize("out_channels", [1, 2])
def test_scores_have_the_finest_grid(decoder, out_channels):
    assert small(decoder, out_channels)(pyramid()).shape == (2, out_channels, 12, 16)


@pytest.mark.parametrize("decoder", ["lavt", "fpn"])
def test_every_parameter_and_stage_has_a_gradient(decoder):
    module = small(decoder)
    grids = [grid.requires_grad_() for grid in pyramid()]
    module(grids).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    for grid in grids:
        assert grid.grad.abs().max() > 0


def test_lavt_resizes_with_aligned_corners():
    """With two stages, centre-only kernels and no norm the scores are a resize that numpy can repeat."""
    decoder = LAVTDecoder((1, 1), out_channels=1, factor=1).eval()
    first, _, _, second, _, _ = decoder.levels[0]
    with torch.no_grad():
        for convolution in (first, second):
            convolution.weight.zero_()
            convolution.weight[:, 0, 1, 1] = 1  # input 0 of `first` is the resized coarser map
        decoder.classifier.weight.fill_(1)
        decoder.classifier.bias.zero_()
        scores = decoder([torch.zeros(1, 1, 5, 1), torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)])
    # aligned corners: the end pixels keep their values and the rest is spaced evenly; centred would give 1, 1.2, 2, …
    torch.testing.assert_close(scores.flatten(), torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0]), atol=1e-4, rtol=0)


def test_fpn_hands_coarse_stages_down_to_the_finest():
    decoder = small("fpn")
    with torch.no_grad():
        for smooth in decoder.smooth[1:]:
            smooth[0].weight.zero_()  # what coarser levels add at the end is gone; the way down through sums is left
    grids = [grid.requires_grad_() for grid in pyramid()]
    decoder(grids).square().sum().backward()
    assert all(grid.grad.abs().max() > 1e-3 for grid in grids)


def test_fpn_scores_of_a_sample_do_not_depend_on_the_batch():
    decoder = small("fpn").train()
    grids = pyramid(batch=3)
    together = decoder(grids)
    for i in range(3):
        torch.testing.assert_close(decoder([grid[i : i + 1] for grid in grids])[0], together[i], atol=1e-5, rtol=1e-5)


def test_impossible_options_are_refused():
    with pytest.raises(S4ecaError, match="multiple of 8"):
        FPNDecoder(CHANNELS, 1, width=20)
    with pytest.raises(S4ecaError, match="at least two"):
        LAVTDecoder((64,), 1)
    with pytest.raises(S4ecaError, match="lower the factor"):
        LAVTDecoder((4, 8), 1, factor=16)


@pytest.mark.parametrize("decoder", ["lavt", "fpn"])
def test_both_orders_in_memory_give_the_same_scores_and_gradients(decoder):
    results = []
    for last in (False, True):
        module, grids = small(decoder), [grid.requires_grad_() for grid in pyramid()]
        if last:
            put_channels_last(module)
        seen: list[torch.Tensor] = []
        convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
        for part in convolutions:
            part.register_forward_pre_hook(lambda part, given, seen=seen: seen.append(given[0]))
        scores = module(grids if last else put_channels_first(grids))
        scores.square().mean().backward()
        order = torch.channels_last if last else torch.contiguous_format
        assert all(given.is_contiguous(memory_format=order) for given in seen)
        assert all(part.weight.is_contiguous(memory_format=order) for part in convolutions)
        gradients = [part.grad for part in (*module.parameters(), *grids)]
        results.append([scores.detach(), *gradients])
    largest = max(value.abs().max() for value in results[0][1:])
    assert (results[1][0] - results[0][0]).abs().max() <= 1e-5 * results[0][0].abs().max()
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(largest, other.abs().max())


def test_weights_load_from_one_order_into_the_other(tmp_path):
    first, last = small("fpn"), small("fpn")
    put_channels_last(last)
    kernel = last.smooth[0][0].weight
    assert not kernel.is_contiguous()
    with torch.no_grad():
        for parameter in last.parameters():
            parameter += 1
    torch.save(last.state_dict(), tmp_path / "last.pt")
    first.load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True))
    assert first.smooth[0][0].weight.is_contiguous(), "the order in memory is the network's"
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), last.parameters(), strict=True))
    torch.save(small("fpn").state_dict(), tmp_path / "first.pt")
    last.load_state_dict(torch.load(tmp_path / "first.pt", weights_only=True))
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(kernel, small("fpn").smooth[0][0].weight)
