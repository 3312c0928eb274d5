"""A profile of tiny trainings: sleeping parts, whose time is known beforehand, show where seconds are charged."""

import gzip
import json
import time
from functools import partial

import pytest
import torch

from s4eca.cost import macs, saved_bytes
from s4eca.errors import S4ecaError
from s4eca.features import plan_features
from s4eca.fusion.film import FiLM
from s4eca.fusion.pwam import PWAM
from s4eca.lit.referring import ReferringModule
from s4eca.losses import BCEDice
from s4eca.parameters import count_parameters
from s4eca.profiling import Profiling
from s4eca.profiling.parts import (
    BACKWARD,
    CACHE,
    DECODER,
    FUSION,
    LOADER,
    LOSS,
    METHOD,
    RECOMPUTED,
    TEXT,
    TRANSFER,
    VISION,
)
from s4eca.tuning import Frozen, LoRA
from tiny import tiny_inputs, tiny_segmenter
from toy import fit, toy_data, toy_method, toy_module, toy_trainer

NAP = 0.03  # seconds
MAX_TOKENS = 22  # of the drawn scenes
# the pyramid of a batch of four
GRIDS = [(4, 16, 16, 16), (4, 8, 8, 32), (4, 4, 4, 64), (4, 2, 2, 128)]


def profiled(folder, module=None, data=None, steps=2, trace=None, plan=False, **options):
    callback = Profiling(steps, trace, warm_up=0, plain=1)
    trainer = toy_trainer(folder, callback, max_epochs=10, limit_val_batches=0, **options)
    module, data = module or toy_module(), data or toy_data(folder / "data")
    if plan:
        plan_features(module.features, data, trainer)
    fit(module, data, trainer)
    return callback.report


def with_network(**options):
    module = toy_module()
    method = options.pop("method", None) or toy_method()
    module.segmenter = tiny_segmenter(method, options.pop("fusion", None), **options)
    return module


class Sleepy:
    """Takes its time, and then does what it would have done."""

    def __init__(self, call):
        self.call = call

    def __call__(self, *arguments):
        time.sleep(NAP)
        return self.call(*arguments)


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory):
    """A profile of a network whose decoder, method and loader sleep."""
    folder = tmp_path_factory.mktemp("sleepy")
    module, data = toy_module(), toy_data(folder / "data")
    method, decoder = module.segmenter.method, module.segmenter.decoder
    decoder.features = Sleepy(decoder.features)
    tap = method.tap

    def sleepy_tap(step, site, *arguments):
        if step.index == 0 and site == "in":  # once in each tower
            time.sleep(NAP)
        return tap(step, site, *arguments)

    method.tap = sleepy_tap
    loader = data.train_dataloader()
    loader.collate_fn = Sleepy(loader.collate_fn)
    data.train_dataloader = lambda: loader
    return module, profiled(folder, module, data, trace=folder / "trace.json.gz"), folder


def median(report, part):
    return sorted(step.get(part, 0.0) for step in report.seconds)[len(report.seconds) // 2]


def test_the_parts_sum_to_the_step(sleepy):
    _, report, _ = sleepy
    assert len(report.seconds) == len(report.wall_seconds) == 2
    # the wall clock was read at the same places by another call
    assert report.step_seconds == pytest.approx(report.wall_seconds, rel=0.02, abs=2e-3)
    assert sum(map(report.share, report.parts())) == pytest.approx(1)
    assert report.samples_per_second == pytest.approx(4 / (sum(report.step_seconds) / 2))


def test_what_sleeps_is_charged_for_it(sleepy):
    _, report, _ = sleepy
    naps = {DECODER: 1, LOADER: 1, METHOD: 2}
    for part in report.parts():
        shortest = min(step.get(part, 0.0) for step in report.seconds)
        assert shortest >= naps.get(part, 0) * NAP, part
    for part in (TEXT, FUSION, LOSS, TRANSFER):  # milliseconds of work
        assert min(step.get(part, 0.0) for step in report.seconds) < NAP, part
    assert sum(naps.values()) * NAP < min(report.plain_seconds)


def test_nothing_is_left_in_the_network(sleepy):
    module, _, _ = sleepy
    segmenter = module.segmenter
    assert isinstance(segmenter.decoder.features, Sleepy)
    for part in (segmenter, segmenter.fusion, segmenter.text, segmenter.vision, module.loss, *segmenter.norms):
        assert not {"forward", "stage", "begin", "step", "end", "tap"} & vars(part).keys()
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def test_bytes_and_products_are_those_of_a_step(sleepy):
    _, report, _ = sleepy
    module = toy_module().train()
    image, ids, mask = tiny_inputs(batch=4, length=MAX_TOKENS)
    masks = torch.zeros(image[:, 0].shape, dtype=torch.bool)
    forward = lambda: module.loss(module.segmenter(image, ids, mask), masks)  # noqa: E731
    saved = saved_bytes(module.segmenter, forward, (image, ids, mask, masks))
    assert sum(report.kept.values()) == saved.step
    assert sum(report.kept[part] for part in (TEXT, VISION, METHOD)) == saved.towers_and_method
    assert sum(count for part, count in report.macs.items() if part != BACKWARD) == macs(forward)
    assert sum(report.macs.values()) == macs(lambda: forward().backward())
    assert report.macs[DECODER] == macs(lambda: module.segmenter.decoder([torch.zeros(shape) for shape in GRIDS]))


def test_resident_bytes_are_those_of_the_parameters(sleepy):
    _, report, _ = sleepy
    counts = count_parameters(toy_module().segmenter)
    learned = {METHOD: counts["method"].learned, DECODER: counts["norms"].learned + counts["decoder"].learned}
    towers = {TEXT: counts["text tower"].total, VISION: counts["vision tower"].total}
    assert report.resident["parameters"] == {part: 4 * count for part, count in {**learned, **towers}.items()}
    assert report.resident["gradients"] == {part: 4 * count for part, count in learned.items()}
    tensors = sum(parameter.requires_grad for parameter in toy_module().segmenter.parameters())
    # two moments, and a step counter of four bytes for every tensor
    assert sum(report.resident["optimiser"].values()) == 8 * sum(learned.values()) + 4 * tensors


def test_peaks_grow_from_the_text_to_the_loss(sleepy):
    _, report, _ = sleepy
    assert 0 < report.peaks[TEXT] < report.peaks[VISION] <= report.peaks[LOSS]
    assert max(report.peaks.values()) >= sum(report.kept.values())


def test_the_trace_has_the_parts_as_ranges(sleepy):
    _, _, folder = sleepy
    with gzip.open(folder / "trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    naps = [event["dur"] for event in events if event.get("name") == DECODER and event.get("dur", 0) > 1e6 * NAP]
    assert len(naps) == 2, "one for each traced step, in microseconds"
    assert {TEXT, VISION, METHOD, LOADER, BACKWARD} <= {event.get("name") for event in events}


def test_the_page_has_a_row_for_every_part(sleepy):
    _, report, _ = sleepy
    page = report.markdown("profile of toy", "Do nothing.")
    first = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")]
    rows = ["part", *report.parts(), "step"]
    assert first == rows * 2
    assert RECOMPUTED not in rows
    assert "2 steps of batch 4, wall time, cpu" in page
    assert page.endswith("Do nothing.\n")
    assert json.loads(json.dumps(report.to_dict()))["parts"][DECODER]["share"] == report.share(DECODER)


def test_recomputed_blocks_have_a_row_of_their_own(sleepy, tmp_path):
    _, without, _ = sleepy
    report = profiled(tmp_path, with_network(grad_checkpointing="block"))
    assert RECOMPUTED in report.parts()
    assert report.macs[RECOMPUTED] == sum(report.macs.values()) - sum(without.macs.values()) > 0
    assert {**report.macs, RECOMPUTED: 0} == {**without.macs, RECOMPUTED: 0}
    assert median(report, RECOMPUTED) > 0
    towers = (TEXT, VISION, METHOD)
    assert sum(report.kept.get(part, 0) for part in towers) < sum(without.kept[part] for part in towers)


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiled_blocks_are_not_divided(sleepy, tmp_path, monkeypatch, compiles):
    _, eager, _ = sleepy
    if not compiles:  # the same calls, with blocks as they are
        monkeypatch.setattr(torch, "compile", lambda call, **_: call)
    # its dropout has no backward pass under this backend
    report = profiled(tmp_path, with_network(method=toy_method(dropout=0.0), compile="aot_eager"))
    assert report.compiled
    assert next(row for row in report.time_rows() if row[0] == METHOD)[1:4] == ["compiled", "", ""]
    assert median(report, METHOD) == 0 < median(report, VISION)
    assert "compiled together" in " ".join(report.sentences())
    assert report.macs == eager.macs, "counted in an eager step"
    assert not report.peaks


def test_at_the_side_the_cache_has_a_row(tmp_path):
    data = toy_data(tmp_path / "data")

    def run(folder):
        network = tiny_segmenter(Frozen(), FiLM, placement="side")
        module = ReferringModule(network, BCEDice(), warmup_steps=1, feature_cache=str(tmp_path / "cache"))
        return profiled(folder, module, data, plan=True)

    # the first epoch has six batches: the two that are measured, after five others, are one of each kind
    first, again = run(tmp_path / "first"), run(tmp_path / "again")
    assert (first.filling, again.filling) == (1, 0)
    assert "1 of 2 steps filled the feature cache" in " ".join(first.sentences())
    assert max(step[VISION] for step in first.seconds) > max(step[VISION] for step in again.seconds)
    assert median(again, CACHE) > median(again, VISION) + median(again, TEXT), "which only hand over"
    assert median(again, FUSION) > 0


def test_a_fusion_with_feedback_is_no_part_of_the_tower(tmp_path):
    module = with_network(method=LoRA(rank=2), fusion=partial(PWAM, feedback=True))
    report = profiled(tmp_path, module)
    assert median(report, FUSION) > 0
    assert report.macs[FUSION] > 0
    assert METHOD not in report.macs
    assert "tuning=lora learns inside the towers' layers" in " ".join(report.sentences())


def test_a_training_that_is_too_short_is_refused(tmp_path):
    with pytest.raises(S4ecaError, match=r"after 3 of 9 batches; lower steps"):
        profiled(tmp_path, max_steps=3)


@pytest.mark.parametrize("steps", [1, 0, 2.5, True])
def test_steps_that_cannot_be(steps):
    with pytest.raises(S4ecaError, match=f"steps={steps}"):
        Profiling(steps)


def test_a_step_that_fails_leaves_nothing_behind(tmp_path):
    module = toy_module()
    loss = module.loss.forward
    taken = []

    def breaks(*arguments):
        taken.append(1)
        if len(taken) == 3:  # while products are counted
            raise ValueError("broken")
        return loss(*arguments)

    module.loss.forward = breaks
    with pytest.raises(ValueError, match="broken"):
        profiled(tmp_path, module)
    assert module.loss.forward is breaks
    assert "step" not in vars(module.segmenter.vision)
    assert torch._C._len_torch_dispatch_stack() == 0


@pytest.mark.gpu
def test_device_time_sums_to_the_step_on_a_gpu(tmp_path):
    report = profiled(tmp_path, accelerator="gpu", precision="bf16-mixed", steps=4, trace=tmp_path / "trace.json.gz")
    assert report.gpu_peak > 0
    # the host waits for nothing within a step, so only the whole measurement agrees with its clock
    assert sum(report.step_seconds) == pytest.approx(sum(report.wall_seconds), rel=0.1)
    assert report.peaks[VISION] > 0
