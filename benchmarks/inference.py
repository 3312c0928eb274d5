"""Measures inference: what the decoder costs, what larger batches bring, and what expressions of an image share.

    python benchmarks/inference.py                                         # small random towers, for CI
    python benchmarks/inference.py --preset base --rounds 5                # Swin-B, BERT-base, 480 pixels, on a CPU
    python benchmarks/inference.py --preset base --device cuda --precision bf16 --batch-size 32 --rounds 30 \
        --out benchmarks/results/inference_gpu.json                        # the same on a GPU

A pass is what `eval.py` does with a batch that is on the device: towers, method, fusion and decoder, in inference mode,
up to the logits; towers have random weights, which cost as much as trained ones. Three tables are printed:

- decoders of S4ECA, `fpn` beside `lavt`, with the multiply-accumulates of one image with one expression.
- batches of several images, one expression each, beside one image after the other.
- expressions of one image, walked once where language has no part in it yet, beside each walked by itself: S4ECA from
  the first stage on, from stage 3 on and at the side, and frozen towers with `fusion=pwam`.

Rows take turns pass by pass; a ratio is samples/s over the reference's of the same round.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from presets import PRESETS, compose_preset
from s4eca.build import build_module
from s4eca.cost import macs
from s4eca.segmenter import ReferringSegmenter
from s4eca.sharing import Shared, find_shared
from turns import machine, markdown, take_turns, write_rows

DECODERS = {name: ["tuning=s4eca", f"decoder={name}"] for name in ("lavt", "fpn")}
SHARING = {
    "s4eca": ["tuning=s4eca"],
    "s4eca from stage 3": ["tuning=s4eca", "model.segmenter.start_stage=3"],
    "s4eca at the side": ["tuning=s4eca", "model.segmenter.placement=side"],
    "frozen, pwam": ["tuning=frozen", "fusion=pwam"],
}
FROZEN_BF16 = "model.segmenter.tower_dtype=bf16"
WORDS = 20  # of an expression


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        samples_per_s: expressions in a second.
        speedup: lower quartile, median and upper quartile of samples/s over the reference's of the same round.
        macs: multiply-accumulates of one sample; None where they are not counted.
    """

    name: str
    samples_per_s: float
    speedup: tuple[float, float, float]
    macs: int | None = None


@dataclass(frozen=True)
class Samples:
    """A batch on its device; shapes are those of `Batch`."""

    image: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    shared: Shared | None


@dataclass(frozen=True)
class Bench:
    """What all passes of a run have in common."""

    preset: str
    batch_size: int
    rounds: int
    seed: int
    device: torch.device
    bf16: bool

    def network(self, overrides: list[str]) -> ReferringSegmenter:
        """Builds a network from the repository's configs, ready to be evaluated."""
        config = compose_preset(self.preset, [*overrides, *([FROZEN_BF16] if self.bf16 else [])])
        torch.manual_seed(self.seed)
        return build_module(config).segmenter.to(self.device).eval()

    def samples(self, images: int, each: int, at_a_time: int, once: bool = False) -> list[Samples]:
        """Draws images, each with its own expressions, one image after the other.

        Args:
            images: of them, all different.
            each: expressions of an image, all different.
            at_a_time: samples in a batch.
            once: what the samples of a batch have in common is said with it.
        """
        generator = torch.Generator().manual_seed(self.seed)
        side = PRESETS[self.preset].image_size
        pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, generator=generator)
        words = torch.randint(5, 256, (images * each, WORDS), generator=generator)
        owner = torch.arange(images).repeat_interleave(each)
        drawn = []
        for places in torch.arange(images * each).split(at_a_time):
            image, ids = pixels[owner[places]], words[places]
            shared = find_shared([*map(tuple, ids.tolist())], owner[places].tolist(), [*image]) if once else None
            on_device = shared and shared.map(lambda rows: rows.to(self.device))
            image, ids = image.to(self.device), ids.to(self.device)
            drawn.append(Samples(image, ids, torch.ones_like(ids), on_device))
        return drawn

    def forward(self, network: ReferringSegmenter, drawn: list[Samples]) -> Callable[[], None]:
        """Returns the pass of batches through a network, whose logits are dropped."""

        @torch.inference_mode()
        def forward() -> None:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                for batch in drawn:
                    network(batch.image, batch.input_ids, batch.attention_mask, shared=batch.shared)

        return forward

    def compare(self, passes: dict[str, Callable[[], None]], reference: str, samples: int) -> dict[str, Row]:
        """Lets passes over equally many samples take turns."""
        rows = {}
        for name, seconds in take_turns(passes, self.rounds, reference, self.device).items():
            rows[name] = Row(name, samples / seconds.median, seconds.speedup)
        return rows


def decoders(bench: Bench) -> list[Row]:
    """Measures the decoders at one batch size."""
    networks = {name: bench.network(overrides) for name, overrides in DECODERS.items()}
    drawn = bench.samples(bench.batch_size, 1, bench.batch_size)
    rows = bench.compare({name: bench.forward(networks[name], drawn) for name in DECODERS}, "lavt", bench.batch_size)
    one = bench.samples(1, 1, 1)[0]
    with torch.autocast(bench.device.type, torch.bfloat16, enabled=bench.bf16):
        counted = {
            name: macs(partial(network, one.image, one.input_ids, one.attention_mask))
            for name, network in networks.items()
        }
    return [replace(rows[name], macs=counted[name]) for name in DECODERS]


def batches(bench: Bench) -> list[Row]:
    """Measures the same images in batches of several sizes, up to `batch_size`."""
    network, images = bench.network(DECODERS["fpn"]), bench.batch_size
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size < images] + [images]
    passes = {f"{size} at a time": bench.forward(network, bench.samples(images, 1, size)) for size in sizes}
    return list(bench.compare(passes, "1 at a time", images).values())


def sharing(bench: Bench) -> list[Row]:
    """Measures a batch of expressions of one image, each walked by itself and all together."""
    rows = []
    for name, overrides in SHARING.items():
        network, each = bench.network(overrides), bench.batch_size
        by_itself, together = f"{name}, each", f"{name}, once"
        passes = {
            by_itself: bench.forward(network, bench.samples(1, each, each)),
            together: bench.forward(network, bench.samples(1, each, each, once=True)),
        }
        rows += bench.compare(passes, by_itself, each).values()
    return rows


def table(rows: list[Row]) -> str:
    """Returns rows as a Markdown table."""
    counted = [row for row in rows if row.macs is not None]
    names = ["pass", "samples/s", "ratio", *(["GMACs", "of lavt's"] if counted else [])]
    lines = []
    for row in rows:
        low, middle, high = row.speedup
        line = [row.name, f"{row.samples_per_s:.3g}", f"{middle:.2f} ({low:.2f}-{high:.2f})"]
        if row.macs is not None and counted[0].macs is not None:
            line += [f"{row.macs / 1e9:.3g}", f"{row.macs / counted[0].macs:.3f}"]
        lines.append(line)
    return markdown(names, lines)


TABLES = {"decoders": decoders, "batches": batches, "sharing": sharing}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--only", choices=TABLES, nargs="+", default=list(TABLES), help="tables to measure")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5, help="timed passes of every row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast, frozen in bf16")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; torch's own choice if not given")
    parser.add_argument("--out", type=Path, help="file for the numbers, JSON")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds} is less than 1")
    if options.batch_size < 2:
        parser.error(f"--batch-size {options.batch_size} leaves nothing to share: give 2 or more")
    return options


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what the numbers were measured with."""
    command = ["python", "benchmarks/inference.py", "--preset", options.preset]
    command += ["--batch-size", str(options.batch_size), "--rounds", str(options.rounds), "--seed", str(options.seed)]
    command += ["--device", options.device, "--precision", options.precision]
    command += [] if options.only == list(TABLES) else ["--only", *options.only]
    return {
        "command": " ".join(command),
        **machine(options.device),
        "image_size": PRESETS[options.preset].image_size,
        "words": WORDS,
        "batch_size": options.batch_size,
        "precision": options.precision,
        "seed": options.seed,
        "rounds": options.rounds,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes."""
    options = parse(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    bench = Bench(
        *(options.preset, options.batch_size, options.rounds, options.seed),
        *(torch.device(options.device), options.precision == "bf16"),
    )
    results = {}
    for title in options.only:
        print(f"{title} ...", file=sys.stderr, flush=True)
        results[title] = TABLES[title](bench)
        print(f"\n{title}\n\n{table(results[title])}", flush=True)
    if options.out is not None:
        write_rows(options.out, about(options), results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
