import gc
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.checkpoint import checkpoint

from s4eca.checkpoint import Checkpoint, share
from s4eca.cost import (
    KeptStorages,
    LiveStorages,
    TrainingStep,
    checkpoint_bytes,
    macs,
    measure,
    peak_bytes,
    saved_bytes,
    state_bytes,
)
from s4eca.decoders.lavt import LAVTDecoder
from s4eca.fusion.film import FiLM
from s4eca.fusion.pwam import PWAM
from s4eca.losses import BCEDice
from s4eca.parameters import count_parameters
from s4eca.segmenter import group_of
from s4eca.tuning import Frozen, FullFineTuning
from tiny import SIZE, tiny_inputs, tiny_segmenter
from tuning.methods import s4eca

CPU = torch.device("cpu")


def training_step(segmenter, batch=2):
    image, ids, mask = tiny_inputs(batch=batch)
    masks = torch.zeros(batch, SIZE, SIZE, dtype=torch.bool)
    masks[:, : SIZE // 2] = True
    optimizer = AdamW([value for value in segmenter.parameters() if value.requires_grad], 1e-4)
    return TrainingStep(segmenter.train(), BCEDice(), optimizer, image, ids, mask, masks)


def forward_and_backward(function, *inputs):
    return lambda: function(*inputs).sum().backward()


# multiply-accumulates


def test_macs_of_a_linear_layer():
    layer, x = nn.Linear(4, 5), torch.randn(6, 4)
    assert macs(lambda: layer(x)) == 6 * 4 * 5
    # the gradient of the weight; then that of the input too
    assert macs(forward_and_backward(layer, x)) == 2 * 6 * 4 * 5
    assert macs(forward_and_backward(layer, x.requires_grad_())) == 3 * 6 * 4 * 5
    layer.requires_grad_(False)
    assert macs(forward_and_backward(layer, x)) == 2 * 6 * 4 * 5


@pytest.mark.parametrize("masked", [False, True])
def test_macs_of_attention(masked):
    """Two samples, three heads, five queries of seven keys, four channels: scores and their sum over values."""
    query, key, value = (torch.randn(2, 3, n, 4, requires_grad=True) for n in (5, 7, 7))
    mask = torch.ones(5, 7, dtype=torch.bool) if masked else None
    attention = partial(F.scaled_dot_product_attention, attn_mask=mask)
    once = 2 * 2 * 3 * 5 * 7 * 4
    assert macs(lambda: attention(query, key, value)) == once
    # each of the two products has two gradients
    assert macs(forward_and_backward(attention, query, key, value)) == 3 * once


@pytest.mark.parametrize(
    ("layer", "once"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), 2 * 8 * 8 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding=1, stride=2), 2 * 4 * 4 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 1, groups=2), 2 * 8 * 8 * 6 * 2),
        (nn.Conv2d(4, 4, 5, padding=2, groups=4), 2 * 8 * 8 * 4 * 25),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), 2 * 8 * 8 * 4 * 6 * 4),
        (nn.ConvTranspose2d(4, 4, 2, stride=2, groups=4), 2 * 8 * 8 * 4 * 4),
    ],
    ids=["plain", "strided", "grouped", "depthwise", "transposed", "transposed depthwise"],
)
def test_macs_of_convolutions(layer, once):
    x = torch.randn(2, 4, 8, 8)
    assert macs(lambda: layer(x)) == once
    assert macs(forward_and_backward(layer, x)) == 2 * once
    assert macs(forward_and_backward(layer, x.requires_grad_())) == 3 * once


def test_recomputation_counts_twice():
    first, second, x = nn.Linear(4, 4), nn.Linear(4, 4), torch.randn(6, 4)

    def both(x):
        return second(F.gelu(first(x)))

    assert macs(forward_and_backward(both, x)) == 5 * 6 * 16
    again = partial(checkpoint, both, use_reentrant=False)
    # the recomputation stops at the last tensor that is needed: the input of the second layer
    assert macs(forward_and_backward(again, x)) == (5 + 1) * 6 * 16


def test_macs_of_a_network():
    """Against a count by layers: what goes through each Linear and Conv2d, and attention by its formula."""
    segmenter = tiny_segmenter(Frozen(), FiLM).train()
    step = training_step(segmenter)
    counted = 0

    def count(layer, inputs, out):
        nonlocal counted
        counted += out.numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(count) for layer in segmenter.modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    step.forward()
    for hook in hooks:
        hook.remove()
    batch, words = step.input_ids.shape
    text = segmenter.text
    counted += len(text.steps) * 2 * batch * words**2 * text.widths[0]
    for index, place in enumerate(segmenter.vision.steps):
        side = segmenter.vision.block(index).window_size[0]
        rows, columns = (-(-length // side) * side for length in place.grid)
        counted += 2 * batch * rows * columns * side**2 * place.width
    assert macs(step.forward) == counted


# what autograd keeps


def kept(function, there):
    storages = KeptStorages(there)
    with storages:
        out = function()
    held = storages.bytes()
    del out
    assert storages.bytes() == 0, "the graph is gone and its tensors are still held"
    return held


def test_saved_bytes_by_hand():
    first, second, x = nn.Linear(8, 16), nn.Linear(16, 4), torch.randn(6, 8)
    there = [x, *first.parameters(), *second.parameters()]
    # GELU keeps its input, the second layer its own
    assert kept(lambda: second(F.gelu(first(x))), there) == 2 * 6 * 16 * 4
    assert kept(lambda: second(F.gelu(first(x.clone()))), there) == (2 * 6 * 16 + 6 * 8) * 4
    # an output that is kept: exp
    assert kept(lambda: first(x).exp(), there) == 6 * 16 * 4
    second.requires_grad_(False)
    assert kept(lambda: second(F.gelu(first(x))), there) == 6 * 16 * 4
    first.requires_grad_(False)
    assert kept(lambda: second(F.gelu(first(x))), there) == 0


def test_a_storage_counts_once_and_as_a_whole():
    layer, x = nn.Linear(8, 16), torch.randn(6, 8)
    there = [x, *layer.parameters()]

    def views():
        y = layer(x)
        return (y[:2] * y[2:4]).sum() + y.t().exp().sum()

    # y's storage, of which two views are kept; exp's result
    assert kept(views, there) == 2 * 6 * 16 * 4


def test_what_is_dropped_does_not_count():
    layer, x = nn.Linear(8, 16), torch.randn(6, 8)
    storages = KeptStorages([x, *layer.parameters()])
    with storages:
        for _ in range(3):
            out = layer(x).exp()
    assert storages.bytes() == out.nbytes


def test_saved_bytes_under_checkpointing():
    first, second, third, x = nn.Linear(8, 16), nn.Linear(16, 32), nn.Linear(32, 4), torch.randn(6, 8)
    there = [x, *first.parameters(), *second.parameters(), *third.parameters()]

    def function():
        y = first(x)
        y = checkpoint(lambda y: F.gelu(second(F.gelu(y))).exp(), y, use_reentrant=False)
        return third(y)

    # the checkpoint's input and the third layer's
    assert kept(function, there) == (6 * 16 + 6 * 32) * 4


@pytest.mark.parametrize(
    ("method", "fusion", "options"),
    [
        (s4eca, None, {}),
        (s4eca, None, {"start_stage": 3}),
        (s4eca, None, {"grad_checkpointing": "block"}),
        (s4eca, None, {"grad_checkpointing": "stage"}),
        (FullFineTuning, PWAM, {}),
        (FullFineTuning, PWAM, {"grad_checkpointing": "block"}),
    ],
    ids=["inside", "start_stage", "block", "stage", "full", "full block"],
)
def test_saved_bytes_are_what_the_graph_holds_alive(method, fusion, options):
    """Against following all memory: run forward, keep nothing but the graph's end, and see what is still alive."""
    segmenter = tiny_segmenter(method(), fusion, **options)
    step = training_step(segmenter)
    saved = saved_bytes(segmenter, step.forward, step.batch())
    with LiveStorages() as live:
        walked = segmenter.runner(step.image, step.input_ids, step.attention_mask)
        ends = [tensor.grad_fn for tensor in (walked.words, *walked.pyramid)]
        del walked
        gc.collect()
        # beside tensors, a recomputation is given the walk's context with the mask of words
        context = 0 if options.get("grad_checkpointing") is None else step.attention_mask.numel()
        assert saved.towers_and_method == live.now - context
        del ends
    with LiveStorages() as live:
        end = step.forward().grad_fn
        gc.collect()
        assert saved.step == live.now - context
        del end


def test_less_is_kept():
    def saved(method, fusion, **options):
        step = training_step(tiny_segmenter(method, fusion, **options))
        return saved_bytes(step.segmenter, step.forward, step.batch())

    full = saved(FullFineTuning(), PWAM)
    inside = saved(s4eca(), None)
    block = saved(s4eca(), None, grad_checkpointing="block")
    late = saved(s4eca(), None, start_stage=3)
    frozen = saved(Frozen(), PWAM)
    fed_back = saved(Frozen(), partial(PWAM, feedback=True))
    # no order between full and inside: at this size the adapters are larger than the blocks
    assert inside.towers_and_method > late.towers_and_method > block.towers_and_method > 0
    assert full.towers_and_method > block.towers_and_method
    assert frozen.towers_and_method == 0
    assert frozen.step > 0
    assert fed_back.towers_and_method > 0, "the fusion and what follows it is part of the walk"
    assert all(one.step > one.towers_and_method for one in (full, inside, late, block, fed_back))


# memory


def test_peak_by_hand():
    x = torch.ones(1000)

    def step():
        y = x + 1  # 4000
        z = y * 2  # 8000
        del y
        w = z.view(10, 100).exp_()  # 4000: a view, in place
        return w.sum()  # 4004

    assert peak_bytes(step, [x], CPU) == 4000 + 8000
    assert peak_bytes(step, [x, x.view(10, 100)], CPU) == 4000 + 8000, "x counts once"


def test_peak_of_a_backward_pass():
    """Kept for the backward pass: h and its GELU; at the backward's start there are the output and its gradients."""
    first, x = nn.Linear(100, 100, bias=False), torch.randn(50, 100)
    there = [x, first.weight]

    def step():
        first(x).exp().sum().backward()
        first.weight.grad = None

    # exp's output and its gradient (50 x 100 each; the sum's is an expanded number), then the weight's (100 x 100)
    out, weight = 50 * 100 * 4, 100 * 100 * 4
    assert peak_bytes(step, there, CPU) == pytest.approx(there[0].nbytes + weight + out + weight, rel=0.001)


@pytest.mark.gpu
def test_peak_on_a_gpu():
    x = torch.ones(1 << 20, device="cuda")
    other = torch.ones(1 << 22, device="cuda")  # somebody else's

    def step():
        y = x + 1
        return (y * 2).sum()

    assert peak_bytes(step, [x], x.device) == pytest.approx(3 * x.nbytes, rel=0.01)
    del other


def test_state_of_a_real_optimizer():
    step = training_step(tiny_segmenter(s4eca()))
    step.forward().backward()
    step.optimizer.step()
    found = {"method": 0, "head": 0}
    for name, value in step.segmenter.named_parameters():
        if value.grad is not None:
            state = step.optimizer.state[value]
            part = "method" if group_of(name) == "method" else "head"
            found[part] += value.grad.nbytes + state["exp_avg"].nbytes + state["exp_avg_sq"].nbytes
    result = state_bytes(step.segmenter)
    assert {"method": result.method, "head": result.head} == found
    assert result.method == 12 * count_parameters(step.segmenter)["method"].learned


@pytest.mark.parametrize("method", [s4eca, FullFineTuning, Frozen])
def test_files_have_the_computed_size(tmp_path, method):
    segmenter = tiny_segmenter(method(), PWAM)
    segmenter.decoder = LAVTDecoder(segmenter.vision.widths, 2)  # has integers among its buffers
    folder = share(Checkpoint(Path("run.ckpt"), segmenter.learned_state(), {}), tmp_path / "shared")
    sizes = checkpoint_bytes(segmenter)
    assert sizes.method == (folder / "method.safetensors").stat().st_size
    assert sizes.head == (folder / "head.safetensors").stat().st_size


def test_everything_of_a_step():
    segmenter = tiny_segmenter(s4eca())
    step = training_step(segmenter)
    cost = measure(step)
    counts = count_parameters(segmenter)
    assert cost.method == counts["method"].learned
    assert cost.percent == pytest.approx(100 * cost.method / cost.towers)
    assert cost.head == counts["norms"].learned + counts["decoder"].learned
    assert 2 * cost.forward_macs < cost.step_macs < 3 * cost.forward_macs
    resident = sum(value.nbytes for value in [*segmenter.parameters(), *segmenter.buffers()])
    moments = 2 / 3 * (cost.state.method + cost.state.head)
    assert cost.peak > resident + moments + cost.saved.step
    assert all(value.grad is None for value in segmenter.parameters())
    assert json.loads(json.dumps(cost.to_dict()))["saved"] == {
        "towers_and_method": cost.saved.towers_and_method,
        "step": cost.saved.step,
    }
