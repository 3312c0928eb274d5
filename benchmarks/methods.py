"""Measures what every tuning method costs, on the same batch in one run.

    python benchmarks/methods.py --preset tiny --rounds 3          # small random towers, for CI
    python benchmarks/methods.py --preset base --out methods.json  # Swin-B and BERT-base at 480 pixels, random weights
    python benchmarks/methods.py --preset base --rounds 0 --only s4eca,lora  # counts alone, no times

A step is forward, loss, backward, AdamW and gradients dropped, in train mode. Bytes and multiply-accumulates are
counted, see `s4eca/cost.py`. Seconds are measured: the methods take turns step by step, so that whatever else the
machine does falls on all of them, and a ratio is to full fine-tuning's step of the same round. As not all networks fit
into memory at once, they come in groups, and full fine-tuning takes its turn in every group. A method that refuses to
be built is shown with what it says.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import MissingConfigException
from torch.optim import AdamW

from presets import PRESETS, compose_preset
from s4eca.build import build_module
from s4eca.cost import Cost, TrainingStep, measure
from s4eca.errors import S4ecaError
from s4eca.lit.optimizer import parameter_groups
from turns import Seconds, machine, markdown, take_turns, times

REFERENCE = "full"
WORDS = 20

WIDTH = {"tiny": "decoder.width=16", "base": "decoder.width=256"}  # not the default, but that of the tables
GROUP = {"tiny": 30, "base": 4}  # networks in memory beside the reference

NONE, PWAM = "fusion=none", "fusion=pwam"
BLOCK, SIDE = "model.segmenter.grad_checkpointing=block", "model.segmenter.placement=side"

# S4ECA brings the language itself; with pwam it is comparable with the others
ROWS: dict[str, list[str]] = {
    "full": ["tuning=full", PWAM],
    "full-block": ["tuning=full", PWAM, BLOCK],
    "frozen": ["tuning=frozen", PWAM],
    "s4eca": ["tuning=s4eca", NONE],
    "s4eca+pwam": ["tuning=s4eca", PWAM],
    "s4eca-block": ["tuning=s4eca", NONE, BLOCK],
    "s4eca-stage": ["tuning=s4eca", NONE, "model.segmenter.grad_checkpointing=stage"],
    "s4eca-stage3": ["tuning=s4eca", NONE, "model.segmenter.start_stage=3"],
    "s4eca-side": ["tuning=s4eca", NONE, SIDE],
    "s4eca-side+pwam": ["tuning=s4eca", PWAM, SIDE],
    "s4eca-cached": ["tuning=s4eca", NONE, SIDE],
    "s4eca-cached+pwam": ["tuning=s4eca", PWAM, SIDE],
    **{
        name: [f"tuning={name}", PWAM]
        for name in ("lora", "lora_all", "houlsby", "adaptformer", "mona", "bitfit", "norm", "prompt")
    },
    **{name: [f"tuning={name}", PWAM] for name in ("etris", "detris", "cola")},
}


@dataclass(frozen=True)
class Row:
    """One method: what it costs, or why it is refused."""

    name: str
    overrides: list[str]
    cost: Cost | None = None
    seconds: Seconds | None = None
    refused: str | None = None


def build(name: str, options: argparse.Namespace) -> TrainingStep:
    """Builds a row's network from the repository's configs, with the batch that all rows share.

    Raises:
        S4ecaError: the method cannot be had in this way.
    """
    try:
        config = compose_preset(options.preset, [WIDTH[options.preset], *ROWS[name]])
    except MissingConfigException as error:
        raise S4ecaError(str(error).splitlines()[0]) from error
    torch.manual_seed(options.seed)
    module = build_module(config).to(options.device).train()
    generator = torch.Generator().manual_seed(options.seed)
    side, batch = PRESETS[options.preset].image_size, options.batch_size
    image = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)
    ids = torch.randint(5, 256, (batch, WORDS), generator=generator)
    masks = torch.zeros(batch, side, side, dtype=torch.bool)
    masks[:, side // 4 : side // 2, side // 4 : side // 2] = True
    image, ids, masks = (tensor.to(options.device) for tensor in (image, ids, masks))
    attention = torch.ones_like(ids)
    optimizer = AdamW(parameter_groups(module.segmenter, module.weight_decay), lr=module.lr)
    # what a cache would hold; reading it from disk is no part of the step
    encoded = module.segmenter.runner.encode(image, ids, attention) if "-cached" in name else None
    return TrainingStep(module.segmenter, module.loss, optimizer, image, ids, attention, masks, encoded)


def run(names: list[str], options: argparse.Namespace) -> list[Row]:
    """Measures the rows, group by group beside the reference."""
    reference = build(REFERENCE, options)
    costs: dict[str, Cost] = {REFERENCE: measure(reference)}
    rows: dict[str, Row] = {}
    others = [name for name in names if name != REFERENCE]
    size = GROUP[options.preset]
    for first in range(0, max(len(others), 1), size):
        steps = {REFERENCE: reference}
        for name in others[first : first + size]:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                steps[name] = build(name, options)
            except S4ecaError as error:
                rows[name] = Row(name, ROWS[name], refused=str(error))
                continue
            costs[name] = measure(steps[name])
            if options.rounds == 0:
                rows[name] = Row(name, ROWS[name], costs[name])
                del steps[name]
        timed = take_turns(steps, options.rounds, REFERENCE, options.device) if options.rounds else {}
        for name in steps:
            # the reference's own seconds are those beside the first group
            rows.setdefault(name, Row(name, ROWS[name], costs[name], timed.get(name)))
    return [rows[name] for name in names]


def tables(rows: list[Row]) -> str:
    """Returns the rows as two Markdown tables and the refusals below; MiB and GiB are binary, shares are of full's."""
    shown = [(row, row.cost) for row in rows if row.cost is not None]
    reference = next(cost for row, cost in shown if row.name == REFERENCE)
    sizes, costs = [], []
    for row, cost in shown:
        sizes.append(
            [
                row.name,
                f"{cost.method / 1e6:.3f} M",
                f"{cost.head / 1e6:.3f} M",
                f"{cost.percent:.2f} %",
                _mib(cost.file.method),
                _mib(cost.file.head),
                f"{_mib(cost.state.method)} ({_share(cost.state.method, reference.state.method)})",
                _mib(cost.state.head),
            ]
        )
        walk, whole = cost.saved.towers_and_method, cost.saved.step
        costs.append(
            [
                row.name,
                _giga(cost.forward_macs),
                f"{_giga(cost.step_macs)} ({cost.step_macs / reference.step_macs:.2f})",
                f"{_mib(walk)} ({_share(walk, reference.saved.towers_and_method)})",
                f"{_mib(whole)} ({_share(whole, reference.saved.step)})",
                _mib(cost.peak),
                *times(row.seconds),
            ]
        )
    size_names = ["method", "learned", "head", "of towers", "file MiB", "head file MiB", "state MiB", "head state MiB"]
    cost_names = ["method", "fwd GMACs", "fwd+bwd GMACs", "saved MiB, towers and method", "saved MiB, whole step"]
    cost_names += ["peak MiB", "s/step", "ratio"]
    refused = [f"{row.name}: refused: {row.refused}" for row in rows if row.refused is not None]
    return "\n\n".join([markdown(size_names, sizes), markdown(cost_names, costs), *refused])


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def _giga(count: int) -> str:
    return f"{count / 1e9:.3g}" if count < 1e11 else f"{count / 1e9:.0f}"


def _share(one: int, whole: int) -> str:
    return f"{100 * one / whole:.1f} %"


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what the numbers were measured with."""
    command = ["python", "benchmarks/methods.py", "--preset", options.preset, "--rounds", str(options.rounds)]
    command += ["--batch-size", str(options.batch_size), "--seed", str(options.seed), "--device", options.device]
    if options.only:
        command += ["--only", ",".join(options.only)]
    return {
        "command": " ".join(command),
        **machine(options.device),
        "preset": options.preset,
        "image_size": PRESETS[options.preset].image_size,
        "words": WORDS,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "rounds": options.rounds,
        "precision": "32",
        "reference": REFERENCE,
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {','.join(ROWS)}; full is always in")
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of every method; 0 only counts")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; torch's own choice if not given")
    parser.add_argument("--out", type=Path, help="file for the numbers, JSON")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.only or []) - ROWS.keys())
    if unknown:
        parser.error(f"--only {','.join(unknown)} is none of {', '.join(ROWS)}")
    if options.rounds < 0:
        parser.error(f"--rounds {options.rounds} is less than 0")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes."""
    options = parse(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    names = [name for name in ROWS if not options.only or name in options.only or name == REFERENCE]
    rows = run(names, options)
    print(tables(rows))
    if options.out is not None:
        content = {"about": about(options), "rows": [asdict(row) for row in rows]}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
