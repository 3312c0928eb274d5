"""Equal expressions and images of a batch through the towers once, for every method: `model.segmenter.encode_once`."""

import pytest
import torch

from s4eca.errors import S4ecaError
from s4eca.sharing import Rows, Shared
from tiny import shake, tiny_inputs
from tuning.methods import FULL_PROMISES
from tuning.test_contract import build

# samples 0, 2 and 3 have one image, samples 0, 1 and 3 one expression
IMAGES, WORDS = [0, 1, 0, 0], [0, 0, 1, 0]
SHARED = Shared(
    words=Rows(torch.tensor([0, 2]), torch.tensor(WORDS)), images=Rows(torch.tensor([0, 1]), torch.tensor(IMAGES))
)
DROPS = {
    "s4eca_dropout": "method.text_adapters.1.dropout",
    "mona": "method.adapters.0.mid.dropout",
    "full": "text.model.embeddings.dropout",
    "full_lavt": "text.model.encoder.layer.0",
}
SETTINGS = [*FULL_PROMISES, "s4eca_late", "s4eca_no_language", "s4eca_text_only"]


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image, ids, mask = tiny_inputs()
    return image[IMAGES], ids[WORDS], mask[WORDS]


def rows_seen(network) -> dict[str, list[int]]:
    """Notes how many rows each step of a tower is given."""
    seen: dict[str, list[int]] = {}
    for tower in (network.text, network.vision):
        counts = seen.setdefault(tower.kind, [])

        def spy(index, state, tap, original=tower.step, counts=counts):
            counts.append(len(state.hidden))
            return original(index, state, tap)

        tower.step = spy
    return seen


@pytest.mark.parametrize("name", SETTINGS)
def test_words_change_nothing_before_the_step_that_the_method_names(name):
    network = build(name).eval()
    shake(network)
    image, ids, mask = tiny_inputs(batch=1)
    outputs: list[list[torch.Tensor]] = []
    original = network.vision.step
    for words in (ids, ids.flip(1)):
        grids: list[torch.Tensor] = []

        def note(index, state, tap, grids=grids):
            state = original(index, state, tap)
            grids.append(state.hidden)
            return state

        network.vision.step = note
        with torch.no_grad():
            network.runner(image, words, mask)
        outputs.append(grids)
    enters = network.method.language_enters(network.vision)
    equal = [torch.equal(one, other) for one, other in zip(*outputs, strict=True)]
    assert equal == [step < enters for step in range(len(network.vision.steps))]


def close(got: torch.Tensor, expected: torch.Tensor, bound: float) -> bool:
    return bool((got - expected).abs().max() <= bound * expected.abs().max())


@pytest.mark.parametrize("name", SETTINGS)
def test_different_rows_alone_are_walked_until_words_and_pixels_meet_and_last_bits_change_at_most(name):
    """In the logits a little more than in the towers: PWAM's instance norms see four places in the last stage."""
    network = build(name).eval()
    shake(network)
    with torch.no_grad():
        walked = [network.runner(*inputs(), shared=shared) for shared in (None, SHARED)]
    results = []
    seen = rows_seen(network)
    for shared in (None, SHARED):
        network.zero_grad()
        seen["text"].clear()
        seen["vision"].clear()
        logits = network(*inputs(), shared=shared)
        (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).mean().backward()
        gradients = {key: value.grad.clone() for key, value in network.named_parameters() if value.grad is not None}
        results.append((logits.detach(), gradients))
    (expected, wanted), (logits, gradients) = results
    for one, other in zip([walked[1].words, *walked[1].pyramid], [walked[0].words, *walked[0].pyramid], strict=True):
        assert close(one, other, 2e-6)
    assert close(logits, expected, 1e-5)
    assert gradients.keys() == wanted.keys()
    largest = max(value.abs().max() for value in wanted.values())
    for key, value in gradients.items():
        assert (value - wanted[key]).abs().max() <= 1e-4 * largest, key
    depth = len(network.vision.steps)
    enters = network.method.language_enters(network.vision)
    once = min(enters, 2) if network.fusion.feedback else enters  # after the first stage's two blocks
    assert seen["vision"] == [2] * once + [4] * (depth - once)
    # the towers meet before the first text layer, at the first bridge, or after the last one
    bridged = 0 if name == "cola" else network.method.places[0][0] + 1 if name == "etris" else 4
    assert seen["text"] == [2] * bridged + [4] * (4 - bridged)


@pytest.mark.parametrize("name", [*DROPS, "s4eca", "lora", "etris", "detris"])
def test_in_training_it_is_exact_too_or_refused_where_something_is_dropped_out(name):
    if name in DROPS:
        with pytest.raises(S4ecaError, match=rf"encode_once=true walks .* in training {DROPS[name]}.* would drop the"):
            build(name, encode_once=True)
        return
    network = build(name, encode_once=True)
    modes = [module.training for module in network.modules()]
    assert modes == [module.training for module in build(name).modules()], "the check leaves modes alone"
    network.train()
    shake(network)
    results = []
    for shared in (None, SHARED):
        torch.manual_seed(3)  # dropout behind the towers' meeting
        results.append(network(*inputs(), shared=shared).detach())
    assert close(results[1], results[0], 1e-5)
    seen = rows_seen(network)
    network(*inputs(), shared=SHARED)
    assert seen["text"][0] == 2


@pytest.mark.parametrize(("name", "recomputed"), [("s4eca_late", "stage"), ("etris", "block")])
def test_sharing_goes_together_with_recomputation(name, recomputed):
    plain, again = build(name), build(name, grad_checkpointing=recomputed, encode_once=True)
    results = []
    for network, shared in ((plain, None), (again, SHARED)):
        network.eval()
        network.encode_once = True
        torch.manual_seed(0)
        shake(network)
        network(*inputs(), shared=shared).square().mean().backward()
        results.append({key: value.grad for key, value in network.named_parameters() if value.grad is not None})
    assert results[0].keys() == results[1].keys()
    largest = max(value.abs().max() for value in results[0].values())
    for key, value in results[1].items():
        assert (value - results[0][key]).abs().max() <= 1e-5 * largest, key


@pytest.mark.parametrize("name", ["s4eca", "frozen"])
def test_at_the_side_whole_towers_are_walked_once(name):
    network = build(name, placement="side").eval()
    shake(network)
    seen = rows_seen(network)
    with torch.no_grad():
        expected = network(*inputs())
        seen["text"].clear()
        seen["vision"].clear()
        logits = network(*inputs(), shared=SHARED)
    assert (seen["text"], seen["vision"]) == ([2] * 4, [2] * 9)
    assert close(logits, expected, 1e-5)


@pytest.mark.parametrize(
    ("encode_once", "training", "rows"), [(None, True, 4), (None, False, 2), (True, True, 2), (False, False, 4)]
)
def test_null_shares_in_evaluation_alone(encode_once, training, rows):
    network = build("s4eca", encode_once=encode_once).train(training)
    seen = rows_seen(network)
    with torch.no_grad():
        network(*inputs(), shared=SHARED)
    assert seen["text"] == [rows] * 4


def test_compiled_blocks_would_see_another_shape_in_every_batch():
    with pytest.raises(S4ecaError, match=r"encode_once=true walks another number of rows.*compile=none, or encode_onc"):
        build("s4eca", encode_once=True, compile="eager")
    network = build("s4eca", compile="eager").eval()
    network.runner.compiled, network.runner._take = True, network.runner._step  # what a compiled walk is asked
    seen = rows_seen(network)
    with torch.no_grad():
        network(*inputs(), shared=SHARED)
    assert seen["text"] == [4] * 4


@pytest.mark.parametrize("value", ["yes", 1])
def test_other_settings_are_refused(value):
    with pytest.raises(S4ecaError, match=rf"encode_once={value} is neither true nor false nor null"):
        build("s4eca", encode_once=value)
