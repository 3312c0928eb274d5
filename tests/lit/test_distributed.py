"""What several processes exchange; the processes of these tests are forked, so that nothing is imported anew."""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
import torch._dynamo  # FSDP's hooks import it: here, once
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from lightning import Callback
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from forked import in_two
from s4eca.decoders.lavt import LAVTDecoder
from s4eca.errors import S4ecaError
from s4eca.lit import EMA, RandomState, ReferringModule, distributed
from s4eca.lit.distributed import DDP, Launcher, frozen_names, running_statistics
from s4eca.lit.last_step import LastStep
from s4eca.lit.sharded import FSDP, shard
from s4eca.losses import BCEDice
from s4eca.segmenter import ReferringSegmenter
from s4eca.stopping import StopSignals
from tiny import shake, tiny_inputs, tiny_segmenter, tiny_text, tiny_vision
from toy import every_step, fit, toy_data, toy_method, toy_module, toy_trainer
from tuning.methods import FULL_PROMISES, METHODS


@pytest.mark.parametrize("name", METHODS)
def test_everything_learned_takes_part_in_every_step(name):
    """So that DDP never has to look for parameters without a gradient, from the first step on."""
    case = METHODS[name]
    network = tiny_segmenter(case.method(), case.fusion).train()
    network(*tiny_inputs(batch=1)).square().mean().backward()
    assert [key for key, value in network.named_parameters() if value.requires_grad and value.grad is None] == []


def test_only_frozen_tower_weights_and_buffers_stay_unsent():
    case = METHODS["bitfit"]  # learned and frozen weights side by side in the towers' layers
    module = ReferringModule(tiny_segmenter(case.method(), case.fusion), BCEDice())
    unsent, learned = set(frozen_names(module)), set(module.segmenter.learned_state())
    everything = {*dict(module.named_parameters()), *dict(module.named_buffers())}
    assert {name for name in everything if name.removeprefix("segmenter.") not in learned} == unsent
    assert "segmenter.vision.model.layers.0.blocks.0.attn.qkv.weight" in unsent
    assert "segmenter.vision.model.layers.0.blocks.0.attn.qkv.bias" not in unsent


def lavt_module() -> ReferringModule:
    torch.manual_seed(0)
    decoder = partial(LAVTDecoder, factor=16)
    return ReferringModule(
        ReferringSegmenter(tiny_text(), tiny_vision(), toy_method(0.0), decoder), BCEDice(), lr=1e-3, warmup_steps=0
    )


class Watch(Callback):
    """Notes what a process is about to draw from, batch by batch, and what it has in the end."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.seeds.append(torch.initial_seed())


class AskedToStop(Callback):
    """A signal to this process as a batch is about to begin; counts batches, and what is sent to all meanwhile."""

    def __init__(self, signals: StopSignals, at: int | None) -> None:
        self.signals, self.at, self.batches, self.broadcasts = signals, at, 0, 0
        self.broadcast = dist.broadcast

    def on_train_start(self, trainer, pl_module):
        def counted(*arguments, **options):
            self.broadcasts += 1
            return self.broadcast(*arguments, **options)

        dist.broadcast = counted

    def on_exception(self, trainer, pl_module, exception):
        dist.broadcast = self.broadcast

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.at:
            self.signals.asked = signal.SIGTERM

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches += 1


def run(strategy: DDP | str, folder: Path, steps: int, *callbacks: Callback, resume=None, module=None, **options):
    """Trains on global batches of four, and validates an odd number of batches at steps 2 and 4."""
    devices = 1 if isinstance(strategy, str) else 2
    lightning.seed_everything(3, verbose=False)
    module = module or toy_module(method=toy_method(0.0), lr=1e-3)
    data = toy_data(folder.parent / "data", batch_size=4 // devices, eval_batch_size=2)
    trainer = toy_trainer(
        folder, *callbacks, RandomState(), every_step(folder, 2), max_epochs=-1, max_steps=steps, val_check_interval=2,
        gradient_clip_val=0.1, strategy=strategy, devices=devices, **options,
    )  # fmt: skip
    fit(module, data, trainer, resume)
    return module, trainer


def step(folder: Path, number: int) -> Path:
    return folder / "checkpoints" / f"step={number}.ckpt"


def in_two_processes(rank: int, port: int, root: Path) -> None:
    """All that the tests below look at, in one pair of processes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    notes: dict[str, object] = {}

    watch, again = Watch(), Watch()
    module, _ = run(DDP(), root / "ddp", 4, watch)
    notes["scores"] = module.scores["lavt"]["mIoU"]
    run(DDP(), root / "ddp_resumed", 4, again, resume=step(root / "ddp", 2))
    notes["seeds"], notes["seeds_resumed"] = watch.seeds, again.seeds

    signals = StopSignals()
    stops = AskedToStop(signals, at=2 if rank == 1 else None)
    last = root / "ddp_stopped" / "checkpoints" / "last.ckpt"
    with pytest.raises(SIGTERMException):
        run(DDP(), root / "ddp_stopped", 4, stops, LastStep(last, signals))
    notes["batches"], notes["broadcasts"] = stops.batches, stops.broadcasts
    run(DDP(), root / "ddp_gone_on", 4, resume=last)

    module, _ = run(DDP(), root / "lavt", 1, module=lavt_module(), limit_val_batches=0)
    notes["statistics"] = torch.cat(running_statistics(module)).tolist()

    module, _ = run(FSDP(), root / "fsdp", 4, EMA(0.5))
    parts = {name: value for name, value in module.named_parameters() if isinstance(value, DTensor)}
    notes["whole"] = [name for name, value in module.named_parameters() if name not in parts]
    notes["here"] = sum(value.to_local().numel() for value in parts.values())
    notes["all"] = sum(value.numel() for value in parts.values())
    run(FSDP(), root / "fsdp_resumed", 4, EMA(0.5), resume=step(root / "fsdp", 2))
    notes["scores_fsdp"] = module.scores["lavt"]["mIoU"]

    for name, strategy, options, other in (
        ("weights", DDP(), {}, {"vision_seed": rank}),
        ("precision", FSDP(), {"precision": "64-true"}, {}),
    ):
        with pytest.raises(S4ecaError) as error:
            run(strategy, root / name, 1, module=toy_module(**other), **options)
        notes[name] = str(error.value)
    (root / f"{rank}.json").write_text(json.dumps(notes))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, list[dict]]:
    root = tmp_path_factory.mktemp("both")
    toy_data(root / "data")  # drawn once
    in_two(in_two_processes, root)
    return root, [json.loads((root / f"{rank}.json").read_text()) for rank in range(2)]


def learned(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def far(one: Path, other: Path) -> float:
    first, second = learned(one), learned(other)
    assert first.keys() == second.keys()
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


def test_one_process_and_two_learn_the_same(both, tmp_path):
    root, notes = both
    module, _ = run("auto", tmp_path / "one", 4)
    assert far(step(tmp_path / "one", 4), step(root / "ddp", 4)) < 1e-6
    assert far(step(tmp_path / "one", 2), step(root / "ddp", 4)) > 1e-4, "steps that would show"
    assert [note["scores"] for note in notes] == pytest.approx([module.scores["lavt"]["mIoU"]] * 2, abs=1e-6)


def test_resumed_processes_go_on_with_the_same_bits(both):
    root, _ = both
    assert far(step(root / "ddp", 4), step(root / "ddp_resumed", 4)) == 0
    assert far(step(root / "fsdp", 4), step(root / "fsdp_resumed", 4)) == 0


def test_all_stop_after_the_same_batch_where_one_is_asked_to(both):
    root, notes = both
    assert [note["batches"] for note in notes] == [3, 3], "the batch that had begun, and no other"
    assert torch.load(root / "ddp_stopped" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert far(step(root / "ddp", 4), step(root / "ddp_gone_on", 4)) == 0
    assert [note["broadcasts"] for note in notes] == [0, 0], "nothing is asked of the GPUs that would be waited for"


def test_each_process_draws_its_own_numbers_batch_by_batch(both):
    _, (first, second) = both
    assert len(set(first["seeds"])) == 1, "one stream, as in a single process"
    assert len({*second["seeds"], *first["seeds"]}) == 5
    assert second["seeds_resumed"] == second["seeds"][2:]


def test_running_statistics_are_those_of_the_global_batch(both, tmp_path):
    _, notes = both
    module, _ = run("auto", tmp_path / "lavt", 1, module=lavt_module(), limit_val_batches=0)
    means = running_statistics(module)[0]
    for note in notes:
        assert note["statistics"] == notes[0]["statistics"]
        # the mean of two halves' means is the mean; nothing before the first norm depends on statistics
        assert note["statistics"][: len(means)] == pytest.approx(means.tolist(), abs=1e-6)


def test_in_parts_the_same_is_learned_and_saved(both, tmp_path):
    root, _ = both
    run("auto", tmp_path / "one", 4, EMA(0.5))
    one, parts = (torch.load(step(folder, 4), weights_only=True) for folder in (tmp_path / "one", root / "fsdp"))
    assert far(step(tmp_path / "one", 4), step(root / "fsdp", 4)) < 1e-6
    for name, value in one["raw_state_dict"].items():
        assert torch.allclose(value, parts["raw_state_dict"][name], rtol=0, atol=1e-6), name
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (one, parts)]
    assert states[0].keys() == states[1].keys()
    for number, values in states[0].items():
        for name, value in values.items():
            assert torch.allclose(value, states[1][number][name], rtol=0, atol=1e-6), (number, name)


def test_every_weight_is_in_parts_of_half_its_size(both):
    _, notes = both
    assert [note["whole"] for note in notes] == [[], []]
    assert notes[0]["here"] + notes[1]["here"] == notes[0]["all"]
    assert notes[0]["here"] == pytest.approx(notes[0]["all"] / 2, rel=0.02)


def test_what_does_not_fit_is_said_by_every_process(both):
    _, notes = both
    for note in notes:
        assert note["weights"].startswith("process 1 has read other vision weights for swin_tiny")
        assert "give all machines the same file by vision.weights=PATH" in note["weights"]
        assert "trainer.precision=64-true" in note["precision"]


def test_the_other_processes_are_started_by_the_same_command(monkeypatch, tmp_path):
    """`s4eca train` changes `sys.argv`, which Lightning would start anew."""
    started = []
    monkeypatch.setattr(sys, "orig_argv", ["python", "/bin/s4eca", "train", "trainer=ddp", "seed=1"])
    monkeypatch.setattr(sys, "argv", ["s4eca train", "trainer=ddp", "seed=1"])
    monkeypatch.setattr("subprocess.Popen", lambda command, env: started.append((command, env["LOCAL_RANK"])))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(HydraConfig, "initialized", staticmethod(lambda: True))
    run_dir = SimpleNamespace(run=SimpleNamespace(dir="outputs/a=b/10-00-00"))
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: run_dir))
    Launcher(LightningEnvironment(), 3, 1)._call_children_scripts()
    command = [sys.executable, "/bin/s4eca", "train", "trainer=ddp", "seed=1", 'hydra.run.dir="outputs/a=b/10-00-00"']
    assert started == [(command, "1"), (command, "2")]


def test_another_number_of_processes_than_torchrun_has_started_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(S4ecaError, match=r"trainer\.devices=2 and trainer\.num_nodes=1 do not fit the 4 processes"):
        Launcher(TorchElasticEnvironment(), 2, 1).launch(print)


def gradients(network: ReferringSegmenter, precision: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = network(*tiny_inputs()).square().mean()
    loss.backward()
    held = [value.grad for value in network.parameters() if value.requires_grad]
    return [loss.detach(), *(value.full_tensor() if isinstance(value, DTensor) else value for value in held)]


def compare_in_parts(rank: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    cases = [(name, {}) for name in FULL_PROMISES]
    cases += [("s4eca", {"vision": name}) for name in ("swinv2", "convnext", "vit", "dinov3")]
    cases += [("s4eca", {"text": name}) for name in ("roberta", "distilbert", "clip")]
    cases += [(name, {"grad_checkpointing": part}) for name in ("s4eca", "lora") for part in ("block", "stage")]
    cases += [(name, {"tower_dtype": "bf16"}) for name in ("s4eca", "bitfit", "lora")]
    cases += [("s4eca", {"placement": "side"}), ("s4eca", {"start_stage": 3})]
    for name, options in cases:
        networks = []
        for _ in range(2):
            torch.manual_seed(0)
            networks.append(tiny_segmenter(METHODS[name].method(), METHODS[name].fusion, **options).train())
            shake(networks[-1])
        shard(networks[1], mesh)
        precision = torch.bfloat16 if options.get("tower_dtype") == "bf16" else torch.float32
        whole, parts = (torch.cat([value.flatten() for value in gradients(it, precision)]) for it in networks)
        assert (whole - parts).norm() <= 1e-5 * whole.norm(), (name, options)
    dist.destroy_process_group()


@pytest.mark.slow
def test_every_method_and_tower_has_the_same_gradients_in_parts():
    in_two(compare_in_parts)


def test_the_first_process_has_time_to_save_when_another_ends_before_it(monkeypatch):
    done = []
    monkeypatch.setattr(distributed.time, "sleep", lambda seconds: done.append(seconds))
    monkeypatch.setattr(os, "kill", lambda pid, number: done.append((pid, number)))
    ended = SimpleNamespace(poll=lambda: 143, returncode=143, pid=7, send_signal=lambda number: None)
    assert distributed.Observer(41, [ended])._run(), "it has nothing left to look at"
    assert done == [distributed.PATIENCE, (41, signal.SIGKILL)]
