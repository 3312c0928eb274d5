import math

import pytest
import torch

from s4eca.errors import S4ecaError
from s4eca.fusion import Fusion
from s4eca.fusion.film import FiLM
from s4eca.fusion.none import NoFusion
from s4eca.fusion.pwam import PWAM

CHANNELS = (8, 16)
TEXT = 6


def inputs(batch: int = 2) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    pyramid = [torch.randn(batch, 4, 5, CHANNELS[0]), torch.randn(batch, 2, 3, CHANNELS[1])]
    word_mask = torch.arange(7) < torch.tensor([[7], [4]])[:batch]
    return pyramid, torch.randn(batch, 7, TEXT), word_mask


def build(name: str) -> Fusion:
    torch.manual_seed(0)
    if name == "none":
        return NoFusion(CHANNELS, TEXT)
    if name == "film":
        fusion = FiLM(CHANNELS, TEXT)
        for parameter in fusion.parameters():
            torch.nn.init.normal_(parameter)  # away from the identity
        return fusion
    return PWAM(CHANNELS, TEXT, feedback=name == "pwam-feedback", heads=2 if name == "pwam-heads" else 1)


LANGUAGE = ["film", "pwam", "pwam-heads", "pwam-feedback"]


@pytest.mark.parametrize("name", ["none", *LANGUAGE])
def test_shapes_and_agreement_of_forward_and_stage(name):
    fusion = build(name)
    pyramid, words, word_mask = inputs()
    for i, (grid, whole) in enumerate(zip(pyramid, fusion(pyramid, words, word_mask), strict=True)):
        onward, fused = fusion.stage(i, grid, words, word_mask)
        assert onward.shape == fused.shape == grid.shape
        assert torch.equal(fused, whole)
        last = i == len(pyramid) - 1
        assert torch.equal(onward, grid) == (last or not fusion.feedback)


@pytest.mark.parametrize("name", LANGUAGE)
def test_padded_words_cannot_change_the_result(name):
    fusion = build(name)
    pyramid, words, word_mask = inputs()
    other = torch.where(word_mask[..., None], words, 100 * torch.randn_like(words))
    for i, grid in enumerate(pyramid):
        for before, after in zip(
            fusion.stage(i, grid, words, word_mask), fusion.stage(i, grid, other, word_mask), strict=True
        ):
            assert torch.equal(before, after)


@pytest.mark.parametrize("name", LANGUAGE)
def test_each_sample_follows_its_own_words(name):
    fusion = build(name)
    pyramid, words, word_mask = inputs()
    changed = words.clone()
    changed[0, 2] += 1
    for before, after in zip(fusion(pyramid, words, word_mask), fusion(pyramid, changed, word_mask), strict=True):
        assert not torch.allclose(before[0], after[0], atol=1e-3)
        assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("name", LANGUAGE)
def test_every_parameter_has_a_gradient(name):
    fusion = build(name)
    pyramid, words, word_mask = inputs()
    onward = torch.zeros_like(pyramid[0])
    loss = torch.zeros(())
    for i, grid in enumerate(pyramid):
        # feed back as the walk does: the next stage sees what the last one handed on
        grid = grid + onward.mean((1, 2, 3))[:, None, None, None] * torch.linspace(-1, 1, grid[0].numel()).view_as(
            grid[0]
        )
        onward, fused = fusion.stage(i, grid, words, word_mask)
        loss = loss + (fused * torch.randn_like(fused)).sum()
    loss.backward()
    for parameter_name, parameter in fusion.named_parameters():
        # 1e-4: far above the rounding noise that a bias cancelled by a norm would show
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 1e-4, parameter_name


def test_film_is_the_identity_at_the_start_and_learns_from_the_first_backward():
    fusion = FiLM(CHANNELS, TEXT)
    pyramid, words, word_mask = inputs()
    fused = fusion(pyramid, words, word_mask)
    for grid, result in zip(pyramid, fused, strict=True):
        assert torch.equal(grid, result)
    sum((result**2).sum() for result in fused).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in fusion.parameters())


def test_film_scales_and_shifts_by_the_mean_word():
    fusion = FiLM([1], text_dim=1)
    with torch.no_grad():
        fusion.modulations[0].weight.copy_(torch.tensor([[2.0], [10.0]]))
    words = torch.tensor([[[1.0], [2.0], [99.0]]])
    fused = fusion([torch.full((1, 1, 1, 1), 5.0)], words, torch.tensor([[True, True, False]]))
    # mean word 1.5: scale 3, shift 15
    assert fused[0].item() == 5 * (1 + 3) + 15


def reference_pwam(module, grid, words, word_mask, heads):
    """LAVT's attention for one sample, pixel by pixel and word by word, in float64."""

    def normalise(rows):
        centred = rows - rows.mean(0)
        return centred / (centred.square().mean(0) + 1e-5).sqrt()

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    w = {name: parameter.detach().double() for name, parameter in module.named_parameters()}
    channels = grid.shape[-1]
    pixels = grid.reshape(-1, channels).double()
    words = words[word_mask].double()
    query = normalise(pixels @ w["query.weight"].T)
    key, value = words @ w["key.weight"].T, words @ w["value.weight"].T
    attended = torch.zeros_like(query)
    share = channels // heads
    for n in range(len(pixels)):
        for head in range(heads):
            part = slice(head * share, (head + 1) * share)
            scores = [math.exp((query[n, part] @ word[part]).item() / math.sqrt(channels)) for word in key]
            for score, word in zip(scores, value, strict=True):
                attended[n, part] += score / sum(scores) * word[part]
    language = normalise(attended @ w["out.weight"].T)
    own = gelu(pixels @ w["pixel.0.weight"].T + w["pixel.0.bias"])
    return gelu((own * language) @ w["merge.0.weight"].T + w["merge.0.bias"]).view_as(grid)


@pytest.mark.parametrize("heads", [1, 4])
def test_pwam_is_lavts_attention(heads):
    torch.manual_seed(0)
    fusion = PWAM(CHANNELS, TEXT, heads=heads)
    pyramid, words, word_mask = inputs()
    fused = fusion(pyramid, words, word_mask)
    for i, grid in enumerate(pyramid):
        for sample in range(2):
            expected = reference_pwam(fusion.attentions[i], grid[sample], words[sample], word_mask[sample], heads)
            torch.testing.assert_close(fused[i][sample].double(), expected, atol=2e-4, rtol=1e-3)


def test_pwam_feedback_adds_the_gated_fusion():
    fusion = build("pwam-feedback")
    pyramid, words, word_mask = inputs()
    onward, fused = fusion.stage(0, pyramid[0], words, word_mask)
    first, second = (fusion.gates[0][i].weight for i in (0, 2))
    gate = torch.tanh(torch.relu(fused @ first.T) @ second.T)
    torch.testing.assert_close(onward, pyramid[0] + gate * fused)


def test_pwam_parameter_count_by_hand():
    plain = sum(parameter.numel() for parameter in PWAM(CHANNELS, TEXT).parameters())
    # W_q, W_o; W_k, W_v; W_x and W_m with their biases
    assert plain == sum(2 * c * c + 2 * TEXT * c + 2 * (c * c + c) for c in CHANNELS)
    feedback = sum(parameter.numel() for parameter in PWAM(CHANNELS, TEXT, feedback=True).parameters())
    assert feedback - plain == 2 * 8 * 8  # the last stage has no gate


def test_pwam_dropout_acts_in_training_only():
    fusion = PWAM(CHANNELS, TEXT, dropout=0.5)
    pyramid, words, word_mask = inputs()
    plain = PWAM(CHANNELS, TEXT)
    plain.load_state_dict(fusion.state_dict())
    assert not torch.equal(fusion(pyramid, words, word_mask)[0], plain(pyramid, words, word_mask)[0])
    assert torch.equal(fusion.eval()(pyramid, words, word_mask)[0], plain(pyramid, words, word_mask)[0])


@pytest.mark.parametrize("name", LANGUAGE)
def test_bf16_autocast_stays_close_to_float32(name):
    fusion = build(name)
    pyramid, words, word_mask = inputs()
    exact = fusion(pyramid, words, word_mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = fusion(pyramid, words, word_mask)
    for before, after in zip(exact, rough, strict=True):
        assert (before - after).abs().mean() < 0.02 * before.abs().mean() + 0.01


def test_pwam_softmax_is_float32_under_autocast(monkeypatch):
    seen = []
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda self, dim: seen.append(self.dtype) or softmax(self, dim))
    with torch.autocast("cpu", torch.bfloat16):
        build("pwam")(*inputs())
    assert seen == [torch.float32, torch.float32]


def test_impossible_pwams_are_refused():
    with pytest.raises(S4ecaError, match="heads 3 do not divide a stage of 8 channels"):
        PWAM(CHANNELS, TEXT, heads=3)
    _, words, word_mask = inputs()
    with pytest.raises(S4ecaError, match="grid of one"):
        build("pwam").stage(0, torch.randn(2, 1, 1, 8), words, word_mask)


def test_no_fusion_has_no_parameters_and_returns_the_grid():
    fusion = build("none")
    assert list(fusion.parameters()) == []
    grid = torch.randn(1, 2, 2, 8)
    onward, fused = fusion.stage(0, grid, torch.randn(1, 3, TEXT), torch.ones(1, 3, dtype=torch.bool))
    assert onward is grid
    assert fused is grid
