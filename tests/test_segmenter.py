from functools import partial

import pytest
import torch

from s4eca.decoders.fpn import FPNDecoder
from s4eca.decoders.lavt import LAVTDecoder
from s4eca.errors import S4ecaError
from s4eca.fusion.film import FiLM
from s4eca.fusion.pwam import PWAM
from s4eca.runner import Runner
from s4eca.segmenter import ReferringSegmenter, group_of
from s4eca.towers import SwinTower
from s4eca.tuning import ETRIS, S4ECA, Frozen, FullFineTuning, LoRA
from s4eca.tuning.s4eca import TextSettings, VisualSettings
from tiny import NAMES, SIZE, SWIN, shake, tiny_inputs, tiny_segmenter, tiny_text, tiny_vision

SMALL = partial(S4ECA, TextSettings(width=16, heads=2), VisualSettings(width=8))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_logits_at_input_size_and_masks_above_zero():
    network = tiny_segmenter(SMALL()).eval()
    shake(network)
    inputs = tiny_inputs(batch=3)
    logits = network(*inputs)
    assert (logits.shape, logits.dtype) == ((3, 64, 64), torch.float32)
    assert torch.equal(network.predict(*inputs), logits > 0)
    assert network.predict(*inputs).any()


@pytest.mark.parametrize("method", [SMALL, partial(FullFineTuning), partial(LoRA, dropout=0.5)])
@pytest.mark.parametrize("compute", ["fresh", "train", "eval", "mixed"])
def test_predictions_are_those_of_evaluation_and_change_nothing(method, compute):
    """A decoder with batch norms, and dropout in the towers where they are trained."""
    network = ReferringSegmenter(tiny_text(), tiny_vision(), method(), partial(LAVTDecoder, factor=4), PWAM)
    shake(network)
    if compute in ("train", "eval"):
        network.train(compute == "train")
    if compute == "mixed":
        network.eval()
        network.decoder.levels[0].train()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    masks = network.predict(*tiny_inputs())
    assert not masks.requires_grad
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network.predict(*tiny_inputs()), masks)
    assert torch.equal(network.eval()(*tiny_inputs()) > 0, masks)
    other = network.train()(*tiny_inputs()) > 0
    assert not torch.equal(other, masks), "train mode would give another mask"


def test_a_prediction_that_fails_leaves_the_mode_alone():
    network = tiny_segmenter(SMALL()).train()
    image, ids, mask = tiny_inputs()
    with pytest.raises(S4ecaError, match="64 px"):
        network.predict(image[..., :32, :32], ids, mask)
    assert network.training
    assert network.decoder.training


def test_two_logits_are_their_difference():
    network = tiny_segmenter(SMALL(), head_logits=2).eval()
    shake(network)
    logits = network(*tiny_inputs())
    scores = network.decoder([n(g) for n, g in zip(network.norms, network.runner(*tiny_inputs()).pyramid, strict=True)])
    assert scores.shape[1] == 2
    full = torch.nn.functional.interpolate(scores, size=(64, 64), mode="bilinear", align_corners=True)
    torch.testing.assert_close(logits, full[:, 1] - full[:, 0], rtol=1e-4, atol=1e-5)
    assert torch.equal(logits > 0, full.argmax(1).bool())


def test_feedback_changes_what_later_stages_see():
    torch.manual_seed(0)
    fed, plain = (tiny_segmenter(Frozen(), partial(PWAM, feedback=on)).eval() for on in (True, False))
    shake(fed)
    plain.load_state_dict(fed.state_dict(), strict=False)
    seen: list[list[torch.Tensor]] = []
    for network in (fed, plain):
        grids: list[torch.Tensor] = []
        original = network.fusion.stage
        network.fusion.stage = lambda i, grid, *rest, o=original, g=grids: g.append(grid) or o(i, grid, *rest)
        network(*tiny_inputs())
        seen.append(grids)
    assert torch.equal(seen[0][0], seen[1][0]), "the first stage comes before any feedback"
    assert [torch.equal(a, b) for a, b in zip(*seen, strict=True)][1:] == [False] * 3


def test_feedback_needs_the_words_first():
    with pytest.raises(S4ecaError, match=r"tuning=etris walks both towers in turn.*fusion\.feedback=false"):
        tiny_segmenter(ETRIS(width=16, heads=2), partial(PWAM, feedback=True))


def test_unknown_compile_and_needless_recomputation_are_refused():
    with pytest.raises(S4ecaError, match=r"compile=blocks is neither none nor block"):
        tiny_segmenter(SMALL(), compile="blocks")
    with pytest.raises(S4ecaError, match=r"side walks the towers without a graph to compile"):
        tiny_segmenter(SMALL(), placement="side", compile="block")
    with pytest.raises(S4ecaError, match=r"tuning=frozen lets no gradient into the towers.*grad_checkpointing=none"):
        tiny_segmenter(Frozen(), FiLM, grad_checkpointing="block")


@pytest.mark.parametrize("method", [Frozen, FullFineTuning, LoRA])
def test_without_language_every_expression_would_get_the_same_mask(method):
    with pytest.raises(S4ecaError, match=r"brings no language into the image.*fusion=pwam or fusion=film"):
        tiny_segmenter(method())


def test_unknown_settings_are_refused():
    with pytest.raises(S4ecaError, match=r"head_logits=3 is neither 1 nor 2"):
        tiny_segmenter(SMALL(), head_logits=3)
    with pytest.raises(S4ecaError, match=r"grad_checkpointing=all is none of none, block, stage"):
        tiny_segmenter(SMALL(), grad_checkpointing="all")


def test_a_method_may_refuse_checkpointing():
    from s4eca.tuning.base import Capabilities

    method = Frozen()
    method.capabilities = Capabilities(language=True, checkpointing=False)
    with pytest.raises(S4ecaError, match="tuning=frozen cannot be recomputed"):
        Runner(tiny_text(), tiny_vision(), method, grad_checkpointing="block")


def test_learned_tensors_fall_into_four_groups():
    network = tiny_segmenter(LoRA(rank=2), PWAM)
    groups = {name: group_of(name) for name in network.learned_state()}
    assert set(groups.values()) == {"method", "norms", "fusion", "decoder"}
    assert all(group == "method" for name, group in groups.items() if ".lora_" in name)
    assert all(".lora_" in name for name, group in groups.items() if group == "method")


def test_lora_names_must_exist():
    with pytest.raises(S4ecaError, match=r"tuning\.text_layers names 'q_proj'"):
        tiny_segmenter(LoRA(text_layers=["q_proj"]), PWAM)
    with pytest.raises(S4ecaError, match=r"Swin V2 takes the weight of qkv past the layer.*vision_layers=\[proj\]"):
        tiny_segmenter(LoRA(vision_layers=["qkv"]), PWAM, "swinv2")


def test_full_fine_tuning_of_more_layers_than_there_are():
    with pytest.raises(S4ecaError, match=r"tuning\.text_layers=9, and the text tower has 4 layers"):
        tiny_segmenter(FullFineTuning(9), PWAM)


def test_trained_layers_of_the_lavt_recipe():
    network = tiny_segmenter(FullFineTuning(3), PWAM).train()
    trained = {name for name, p in network.text.named_parameters() if p.requires_grad}
    assert {name.split(".")[3] for name in trained} == {"0", "1", "2"}
    assert network.text.block(2).training
    assert not network.text.block(3).training
    assert not network.text.model.embeddings.training


def test_checkpointing_saves_memory():
    kept = {}
    for setting in ("none", "block"):
        network = tiny_segmenter(SMALL(), grad_checkpointing=setting).train()
        total = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            network(*tiny_inputs())
        kept[setting] = total
    assert kept["block"] < 0.5 * kept["none"]


def test_fpn_network_does_not_depend_on_the_batch():
    network = ReferringSegmenter(tiny_text(), tiny_vision(), SMALL(), partial(FPNDecoder, width=8)).eval()
    shake(network)
    image, ids, mask = tiny_inputs(batch=3)
    together = network(image, ids, mask)
    alone = torch.cat([network(image[i : i + 1], ids[i : i + 1], mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_the_decoders_memory_is_a_switch():
    last, first = (tiny_segmenter(SMALL(), channels_last=on).eval() for on in (True, False))
    kernels = [network.decoder.smooth[0][0].weight for network in (last, first)]
    assert [kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels] == [True, False]
    shake(last)
    first.load_state_dict(last.learned_state(), strict=False)
    expected = last(*tiny_inputs())
    grids: list[torch.Tensor] = []
    first.decoder.register_forward_pre_hook(lambda part, given: grids.extend(given[0]))
    logits = first(*tiny_inputs())
    assert all(grid.permute(0, 3, 1, 2).is_contiguous() for grid in grids)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    with pytest.raises(S4ecaError, match=r"channels_last=1 is neither true nor false"):
        tiny_segmenter(SMALL(), channels_last=1)


# `eager` traces blocks and their shapes; inductor, which `block` stands for, needs a C++ compiler and minutes
@pytest.mark.parametrize(
    "backend", ["eager", *(pytest.param(it, marks=pytest.mark.slow) for it in ("aot_eager", "block"))]
)
def test_compiles_by_block_with_all_other_switches(backend):
    torch._dynamo.reset()
    networks, results = [], []
    for chosen in ("none", backend):
        torch.manual_seed(0)
        vision = SwinTower(NAMES["swin"], "random", 0, SIZE, {**SWIN, "depths": [2, 1, 1, 1]}, "sdpa")
        networks.append(
            ReferringSegmenter(
                tiny_text(num_hidden_layers=2),
                vision,
                SMALL(),
                partial(FPNDecoder, width=8),
                compile=chosen,
                tower_dtype="bf16",
                channels_last=True,
            )
        )
        shake(networks[-1], scale=0.02)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = networks[-1](*tiny_inputs())
        logits.square().mean().backward()
        gradients = {name: value.grad for name, value in networks[-1].named_parameters() if value.grad is not None}
        results.append((logits.detach(), gradients))
    (expected, wanted), (logits, gradients) = results
    assert networks[1].runner.compiled
    assert gradients.keys() == wanted.keys()
    # bf16 has 8 bits, and inductor leaves some of its roundings out
    assert backend == "block" or torch.equal(logits, expected)
    assert (logits - expected).abs().max() <= 2**-5 * expected.abs().max()
    largest = max(value.abs().max() for value in wanted.values())
    for key, value in gradients.items():
        assert (value - wanted[key]).abs().max() <= 2**-5 * largest, key
