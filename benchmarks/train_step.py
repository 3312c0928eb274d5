"""Measures a training step: what each fast switch brings, and what S4ECA saves beside full fine-tuning.

    python benchmarks/train_step.py                                          # small random towers, for CI
    python benchmarks/train_step.py --preset base --speed exact --rounds 10  # Swin-B, BERT-base, 480 pixels, on a CPU
    python benchmarks/train_step.py --preset base --device cuda --batch-size 8 --rounds 30 --largest \
        --out benchmarks/results/train_step_gpu.json                         # the same on a GPU

A step is what `s4eca train` does with a batch: moved to the device, forward, loss, backward, clipping, AdamW, gradients
dropped. Batches are drawn scenes held in memory, so that no loader is timed; towers have random weights, which cost as
much as trained ones. Two tables are printed:

- switches of S4ECA's step: `plain` is fp32 with every switch off, each row switches one thing on, `default` is what
  `trainer=gpu` takes. `tower_dtype` needs autocast and has it.
- methods beside full fine-tuning, all with the settings of `--speed`, at equal batch and, with `--largest`, at the
  largest batch that fits on the GPU.

Rows take turns step by step; a ratio is images/s over the reference's of the same round. Peak memory is the GPU
allocator's; on a CPU it is counted by following what operators make (see `s4eca/cost.py`).
"""

import argparse
import gc
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from presets import PRESETS, compose_preset
from s4eca.build import build_data, build_module
from s4eca.cost import peak_bytes
from s4eca.data.references import Batch
from s4eca.errors import S4ecaError
from s4eca.lit.optimizer import build_adamw, clip, total_norm
from s4eca.lit.referring import ReferringModule
from s4eca.matmul import use_matmul_precision
from turns import machine, markdown, take_turns, write_rows

PLAIN, FULL = "plain", "full"
OFF = [
    *("speed=exact", "model.fused_optimizer=false"),
    *("model.segmenter.channels_last=false", "model.segmenter.encode_once=false"),
]
BF16 = "trainer.precision=bf16-mixed"

SWITCHES: dict[str, list[str]] = {
    PLAIN: OFF,
    "TF32": [*OFF, "matmul_precision=high"],
    "bf16 autocast": [*OFF, BF16],
    "tower_dtype": [*OFF, BF16, "model.segmenter.tower_dtype=bf16"],
    "attention": [*OFF, "vision.attention=sdpa"],
    "channels_last": [*OFF, "model.segmenter.channels_last=true"],
    "encode_once": [*OFF, "model.segmenter.encode_once=true"],
    "fused_optimizer": [*OFF, "model.fused_optimizer=true"],
    "compile": [*OFF, "model.segmenter.compile=block"],
    "default, not compiled": ["speed=fast", "model.segmenter.compile=none"],
    "default": ["speed=fast"],
}

PWAM = "fusion=pwam"  # full fine-tuning brings no language into the image by itself
BLOCK = "model.segmenter.grad_checkpointing=block"
NOT_FROZEN = "model.segmenter.tower_dtype=fp32"
METHODS: dict[str, list[str]] = {
    FULL: ["tuning=full", PWAM, NOT_FROZEN],
    "full-block": ["tuning=full", PWAM, NOT_FROZEN, BLOCK],
    "s4eca": ["tuning=s4eca"],
    "s4eca-block": ["tuning=s4eca", BLOCK],
    "s4eca-stage3": ["tuning=s4eca", "model.segmenter.start_stage=3"],
    # nothing of its walk through the towers has a graph to compile
    "s4eca-side": ["tuning=s4eca", "model.segmenter.placement=side", "model.segmenter.compile=none"],
}

BATCHES = 4  # different ones, which take turns


@dataclass
class Step:
    """A training step as a run takes it, over batches that wait on the host.

    Attributes:
        module: network, loss and settings, on its device.
        batches: endless.
        autocast: whether forward pass and loss run in bf16 where that is safe.
        products: precision of fp32 matrix products, which is the process's: set before each step.
    """

    module: ReferringModule
    batches: Iterator[Batch]
    autocast: bool
    products: str
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        module = self.module
        self.optimizer = build_adamw(module.segmenter, module.lr, module.weight_decay, module.fused_optimizer)

    def __call__(self) -> None:
        """Takes it."""
        use_matmul_precision(self.products)
        device = self.module.device
        batch = next(self.batches).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            loss = self.module.loss(self.module(batch), batch.mask)
        loss.backward()
        held = [parameter.grad for group in self.optimizer.param_groups for parameter in group["params"]]
        clip(self.optimizer, total_norm([gradient for gradient in held if gradient is not None]), 1.0, None)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def resident(self) -> list[Tensor]:
        """Returns what stays on the device from step to step."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        return [
            *self.module.parameters(),
            *self.module.buffers(),
            *(value for value in states if torch.is_tensor(value)),
        ]


@dataclass(frozen=True)
class Row:
    """One line of a table: what was measured, or why it was refused.

    Attributes:
        images_per_s: at the batch size of all.
        speedup: lower quartile, median and upper quartile of images/s over the reference's of the same round.
        peak: bytes, parameters and optimiser state included.
        largest: most samples that fit into a batch; None where that was not tried.
        largest_images_per_s: at that batch.
        refused: why it cannot be had.
    """

    name: str
    overrides: list[str]
    images_per_s: float | None = None
    speedup: tuple[float, float, float] | None = None
    peak: int | None = None
    largest: int | None = None
    largest_images_per_s: float | None = None
    refused: str | None = None


def build(overrides: list[str], options: argparse.Namespace) -> Step:
    """Builds a row's step from the repository's configs.

    Raises:
        S4ecaError: settings that cannot be had together.
    """
    size = options.batch_size
    cuda = torch.device(options.device).type == "cuda"
    data = ["data=synthetic", f"data.root={options.scenes}", "data.num_workers=0", f"data.batch_size={size}"]
    data += [f"data.train={BATCHES * size}", "data.val=1", "data.test=1"]
    config = compose_preset(options.preset, [*data, *overrides, f"data.pin_memory={cuda}"])
    torch.manual_seed(options.seed)
    module = build_module(config).to(options.device).train()
    source = build_data(config)
    source.tokenizer = module.segmenter.text.load_tokenizer()
    source.prepare_data()
    batches = list(source.train_dataloader())[:BATCHES]
    return Step(module, cycle(batches), config["trainer"]["precision"] == "bf16-mixed", config["matmul_precision"])


def compare(table: dict[str, list[str]], reference: str, common: list[str], options: argparse.Namespace) -> list[Row]:
    """Measures the rows of one table side by side."""
    steps: dict[str, Step] = {}
    rows: dict[str, Row] = {}
    for name, own in table.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            steps[name] = build([*common, *own], options)
        except S4ecaError as error:
            rows[name] = Row(name, own, refused=str(error))
    device = torch.device(options.device)
    for name, seconds in take_turns(steps, options.rounds, reference, device).items():
        peak = peak_bytes(steps[name], steps[name].resident(), device)
        rows[name] = Row(name, table[name], options.batch_size / seconds.median, seconds.speedup, peak)
    for name in list(steps) if options.largest else []:
        steps.clear()  # alone on the GPU
        gc.collect()
        torch.cuda.empty_cache()
        rows[name] = _with_largest(rows[name], build([*common, *table[name]], options), options)
    return [rows[name] for name in table]


def _with_largest(row: Row, step: Step, options: argparse.Namespace) -> Row:
    """Looks for the most samples that fit by doubling and halving the distance, and times a few steps of that many."""
    single = next(step.batches)
    fits, fails = 0, None
    while fails is None or fails - fits > max(1, fits // 16):
        tried = max(2 * fits, options.batch_size) if fails is None else (fits + fails) // 2
        step.batches = cycle([repeat(single, tried)])
        try:
            step()
            fits = tried
        except torch.OutOfMemoryError:
            fails = tried
        step.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
    step.batches = cycle([repeat(single, fits)])
    seconds = take_turns({row.name: step}, max(options.rounds // 3, 1), row.name, options.device)[row.name]
    return Row(**{**vars(row), "largest": fits, "largest_images_per_s": fits / seconds.median})


def repeat(batch: Batch, size: int) -> Batch:
    """Returns a batch of `size` samples, those of another one over and over, none of them encoded together."""
    times = -(-size // len(batch))
    values = {}
    for item in fields(batch):
        value = getattr(batch, item.name)
        if isinstance(value, Tensor):
            value = torch.cat([value] * times)[:size]
            value = value.pin_memory() if torch.cuda.is_available() else value
        elif isinstance(value, list):
            value = (value * times)[:size]
        values[item.name] = value
    return Batch(**{**values, "shared": None})


def table(rows: list[Row], reference: str) -> str:
    """Returns the rows as a Markdown table and the refusals below."""
    base = next(row for row in rows if row.name == reference)
    lines = []
    for row in rows:
        if row.speedup is None or row.images_per_s is None or row.peak is None or base.peak is None:
            continue
        low, middle, high = row.speedup
        share = f"{row.peak / 2**20:.0f} ({100 * row.peak / base.peak:.0f} %)"
        largest = "-" if row.largest is None else str(row.largest)
        faster = "-"
        if row.largest_images_per_s is not None and base.largest_images_per_s is not None:
            faster = f"{row.largest_images_per_s:.3g} ({row.largest_images_per_s / base.largest_images_per_s:.2f})"
        lines.append(
            [row.name, f"{row.images_per_s:.3g}", f"{middle:.2f} ({low:.2f}-{high:.2f})", share, largest, faster]
        )
    names = ["step", "images/s", "ratio", "peak MiB", "largest batch", "images/s there (ratio)"]
    refused = [f"{row.name}: refused: {row.refused}" for row in rows if row.refused is not None]
    return "\n\n".join([markdown(names, lines), *refused])


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what the numbers were measured with."""
    command = ["python", "benchmarks/train_step.py", "--preset", options.preset, "--speed", options.speed]
    command += ["--batch-size", str(options.batch_size), "--rounds", str(options.rounds), "--seed", str(options.seed)]
    command += ["--device", options.device]
    for name in ("only", "without"):
        if getattr(options, name):
            command += [f"--{name}", ",".join(getattr(options, name))]
    command += ["--largest"] if options.largest else []
    return {
        "command": " ".join(command),
        **machine(options.device),
        "image_size": PRESETS[options.preset].image_size,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "rounds": options.rounds,
        "speed": options.speed,
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    names = {**SWITCHES, **METHODS}

    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--speed", choices=("exact", "fast"), default="fast", help="settings of the methods' table")
    parser.add_argument("--only", type=listed, help="rows to measure, beside plain and full")
    parser.add_argument("--without", type=listed, help="rows to leave out")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of every row")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; torch's own choice if not given")
    parser.add_argument("--largest", action="store_true", help="look for the largest batch that fits on the GPU")
    parser.add_argument("--out", type=Path, help="file for the numbers, JSON")
    options = parser.parse_args(arguments)
    for name in ("only", "without"):
        unknown = sorted(set(getattr(options, name) or []) - names.keys())
        if unknown:
            parser.error(f"--{name} {','.join(unknown)} is none of {'; '.join(names)}")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds} is less than 1")
    if options.largest and torch.device(options.device).type != "cuda":
        parser.error("--largest needs --device cuda: on a CPU a batch that does not fit is no error but swapping")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes."""
    options = parse(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    results = {}
    with tempfile.TemporaryDirectory() as options.scenes:
        for title, rows, reference, common in (
            ("switches", SWITCHES, PLAIN, ["tuning=s4eca"]),
            ("methods", METHODS, FULL, [f"speed={options.speed}"]),
        ):
            chosen = {
                name: own
                for name, own in rows.items()
                if name == reference
                or ((not options.only or name in options.only) and name not in (options.without or []))
            }
            results[title] = compare(chosen, reference, common, options)
            print(f"\n{title}\n\n{table(results[title], reference)}", flush=True)
    if options.out is not None:
        write_rows(options.out, about(options), results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
