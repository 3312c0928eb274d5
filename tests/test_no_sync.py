"""A step waits for the device nowhere: no operator of forward, loss and backward hands a value to the host."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.masking_utils import create_bidirectional_mask

from s4eca.fusion.film import FiLM
from s4eca.losses import BCEDice, CEDice
from s4eca.tuning import NormTuning
from tiny import tiny_inputs, tiny_segmenter
from tiny_text import TEXT
from tiny_vision import VISION
from tuning.methods import FULL_PROMISES, METHODS
from tuning.test_sharing import SHARED, inputs

# what makes a number, or a shape, out of values: on a GPU each waits until all work before it is done
WAITING = {
    "aten._local_scalar_dense",
    "aten.item",
    "aten.is_nonzero",
    "aten.equal",
    "aten.nonzero",
    "aten.masked_select",
    "aten.unique_dim",
    "aten._unique2",
    "aten.repeat_interleave.Tensor",
}


class Waits(TorchDispatchMode):
    """Notes every operator that would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += 1
        picks = str(func.overloadpacket) in ("aten.index", "aten.index_put", "aten.index_put_", "aten._unsafe_index")
        masks = [given for given in args[1] if given is not None] if picks else []
        boolean = any(given.dtype in (torch.bool, torch.uint8) for given in masks)
        if boolean or {str(func), str(func.overloadpacket)} & WAITING:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def waits(network, loss, batch, **given) -> list[str]:
    masks = torch.zeros(len(batch[0]), 64, 64, dtype=torch.bool)
    masks[:, :20] = True
    with Waits() as mode:
        loss(network(*batch, **given), masks).backward()
    assert mode.seen > 500
    return mode.found


@pytest.mark.parametrize("name", FULL_PROMISES)
def test_no_method_waits(name):
    torch.manual_seed(0)
    case = METHODS[name]
    network = tiny_segmenter(case.method(), case.fusion).train()
    assert waits(network, CEDice(), tiny_inputs()) == []


@pytest.mark.parametrize(
    ("vision", "text"), [(vision, "bert") for vision in VISION] + [("swin", text) for text in TEXT if text != "bert"]
)
def test_no_tower_waits(vision, text):
    network = tiny_segmenter(NormTuning(), FiLM, vision, text).train()
    assert waits(network, BCEDice(), tiny_inputs()) == []


def test_no_switch_waits():
    network = tiny_segmenter(
        METHODS["s4eca"].method(), None, encode_once=True, tower_dtype="bf16", grad_checkpointing="block"
    ).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert waits(network, CEDice(), inputs(), shared=SHARED) == []


def test_a_wait_would_be_found():
    x, config = torch.ones(2, 3), tiny_segmenter(METHODS["s4eca"].method()).text.model.config
    for wait in (
        lambda: float(x.sum()),
        lambda: bool((x > 0).all()),
        lambda: x[x > 0],
        lambda: x.nonzero(),
        lambda: x.index_put((x > 0,), torch.zeros(())),
        lambda: create_bidirectional_mask(config=config, inputs_embeds=x[..., None], attention_mask=x.long()),
    ):
        with Waits() as mode:
            wait()
        assert mode.found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", FULL_PROMISES)
def test_no_method_waits_on_a_gpu(name):
    case = METHODS[name]
    network = tiny_segmenter(case.method(), case.fusion).train().cuda()
    batch = [tensor.cuda() for tensor in tiny_inputs()]
    masks = torch.zeros(2, 64, 64, dtype=torch.bool, device="cuda")

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = CEDice()(network(*batch), masks)
        loss.backward()

    step()  # kernels are chosen and workspaces are made
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
