"""Measures where the training-free method's time goes, by stage, in one run.

    python benchmarks/dgl_rsis.py --preset tiny                     # tiny random models on drawn scenes, for CI
    python benchmarks/dgl_rsis.py --preset base --images 5 --out dgl_rsis.json \
        data=rrsis_d data.root=PATH                                 # ViT-B/16 and BLIP-base, random weights

Further arguments are Hydra overrides of `conf/dgl_fill.yaml`. Nothing is read from a cache. The variants take turns
image by image, so that whatever else the machine does falls on all of them. Weights are random at full size: they cost
as much as trained ones.
"""

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from s4eca.build import build_pipeline, instantiate
from s4eca.cli.config import conf_dir, plain
from s4eca.cli.dgl_scenes import device_of, list_scenes
from s4eca.dgl_rsis.pipeline import Pipeline
from turns import quartiles

PRESETS = {
    "tiny": ["model=dgl_rsis_tiny", "data=synthetic", "data.train=1", "data.val=1", "data.test=8"],
    "base": [
        "model=dgl_rsis",
        "clip.weights=random",
        "+clip.options.vision_config.patch_size=16",
        "grounding.blip.weights=random",
    ],
}

VARIANTS = {
    "crops": [],
    "without tight crop": ["model.regions.beta=1.0"],
    "single pass": ["model.regions.mode=single_pass"],
    "map by CLIP": ["grounding=clip"],
}

STAGES = ("proposals", "regions", "texts", "maps", "selection")


def measure(pipelines: dict[str, Pipeline], scenes: list[Any]) -> dict[str, dict[str, list[float]]]:
    """Returns the seconds of each stage and image, by variant; of texts, maps and selection for one expression."""
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in pipelines}
    for pipeline in pipelines.values():
        pipeline.bank()  # once per dataset, not per image
        pipeline.stages.seconds.clear()
    for scene in scenes:
        view = scene.read()
        for name, pipeline in pipelines.items():
            (evidence,) = pipeline.evidence(view, scene.expressions[:1])
            start = time.perf_counter()
            pipeline.selector.select(evidence)
            seconds[name]["selection"].append(time.perf_counter() - start)
            for stage, values in pipeline.stages.seconds.items():
                seconds[name][stage].append(sum(values))
            pipeline.stages.seconds.clear()
    return seconds


def summarise(seconds: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Returns a row per variant and stage: median and quartiles of seconds, and the share of the variant's medians."""
    rows = []
    for name, stages in seconds.items():
        whole = sum(statistics.median(stages[stage]) for stage in STAGES)
        for stage in STAGES:
            values = stages[stage]
            low, middle, high = quartiles(values)
            share = statistics.median(values) / whole
            rows.append({"variant": name, "stage": stage, "median": middle, "q1": low, "q3": high, "share": share})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as Markdown."""
    lines = ["| variant | stage | s per image | share |", "| --- | --- | ---: | ---: |"]
    for row in rows:
        spread = f"{row['median']:.3g} ({row['q1']:.3g}-{row['q3']:.3g})"
        lines.append(f"| {row['variant']} | {row['stage']} | {spread} | {100 * row['share']:.1f} % |")
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--only", help=f"of {','.join(VARIANTS)}", type=lambda text: text.split(","))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--split", default="test")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; torch's own choice if not given")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="file for the numbers, JSON")
    parser.add_argument("overrides", nargs="*", help="of the config, for example data=rrsis_d data.root=PATH")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.only or []) - VARIANTS.keys())
    if unknown:
        parser.error(f"--only {','.join(unknown)} is none of {', '.join(VARIANTS)}")
    if options.images < 1:
        parser.error(f"--images {options.images} is less than 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes."""
    options = parse(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    pipelines, counts = {}, []
    scenes: list[Any] = []
    for name in options.only or VARIANTS:
        overrides = [*PRESETS[options.preset], *VARIANTS[name], *options.overrides]
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            config = plain(compose("dgl_fill", overrides=overrides))
        data = instantiate(config["data"], "data")
        scenes = scenes or list_scenes(data, options.split, by_sample=False)[: options.images]
        pipelines[name] = build_pipeline(config, data.name).to(device_of(options.device))
    seconds = measure(pipelines, scenes)
    first = next(iter(pipelines.values()))
    counts = [len(first.stages.proposals(scene.read())) for scene in scenes]
    rows = summarise(seconds)
    print(table(rows))
    print(f"\n{len(scenes)} images, {statistics.mean(counts):.0f} proposals each, one expression each")
    if options.out is not None:
        about = {
            "preset": options.preset,
            "overrides": options.overrides,
            "images": len(scenes),
            "proposals": counts,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "device": options.device,
            "torch": torch.__version__,
        }
        options.out.write_text(json.dumps({"about": about, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
