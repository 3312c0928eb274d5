"""`s4eca dgl sweep`: many settings of the selector on cached stages."""

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from s4eca.build import build_data, build_pipeline
from s4eca.cli.config import plain
from s4eca.cli.dgl_scenes import device_of
from s4eca.cli.entry import run_hydra
from s4eca.dgl_rsis.parts import Evidence
from s4eca.dgl_rsis.sweep import combine, try_all
from s4eca.errors import S4ecaError
from s4eca.files import write_text
from s4eca.lit.dgl_rsis import look


def sweep_settings(given: DictConfig) -> float:
    """Tries settings of the selector on evidence out of the cache; see `conf/dgl_sweep.yaml`.

    Raises:
        S4ecaError: the test split, a setting that the selector does not have, or what the parts raise.
    """
    config = plain(given)
    if config["split"] not in ("train", "val"):
        raise S4ecaError(f"split={config['split']}: settings are chosen on val or train, never on what is reported.")
    data = build_data(config)
    pipeline = build_pipeline(config, data.name).to(device_of(config["accelerator"]))
    combinations = combine(config["space"], pipeline.selector)
    data.prepare_data()
    dataset = data.dataset(config["split"], train=False)
    seconds = [0.0]

    def samples() -> Iterator[tuple[Evidence, np.ndarray]]:
        for place in track(range(len(dataset)), "samples", console=Console(stderr=True)):
            start = time.perf_counter()
            sample = dataset[place]
            view = look(sample.image, dataset.references[place].image.stem, sample.mask)
            (evidence,) = pipeline.evidence(view, [sample.expression])
            seconds[0] += time.perf_counter() - start
            yield evidence, sample.mask.numpy()

    start = time.perf_counter()
    trials = try_all(combinations, samples())
    selecting = time.perf_counter() - start - seconds[0]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*config["space"], "mIoU", "oIoU", "fallbacks"])
    writer.writerows([*trial.settings.values(), trial.miou, trial.oiou, trial.fallbacks] for trial in trials)
    write_text(Path(config["out"]), stream.getvalue())
    title = f"{data.name}, {config['split']}: {config['model']['title']}, the best of {len(trials)} settings"
    table = Table(title=title, title_justify="left")
    for name in (*config["space"], "mIoU", "oIoU"):
        table.add_column(name, justify="right")
    for trial in trials[:10]:
        table.add_row(*map(str, trial.settings.values()), f"{100 * trial.miou:.2f}", f"{100 * trial.oiou:.2f}")
    Console(soft_wrap=True).print(table)
    print(
        f"{len(trials)} settings on {len(dataset)} samples: {seconds[0]:.1f} s for evidence, {selecting:.1f} s for them"
    )
    chosen = " ".join(f"selector.{name}={value}" for name, value in trials[0].settings.items())
    print(f"all of them: {config['out']}\nthe best: {chosen}")
    return trials[0].miou


def main() -> None:
    """Entry point of `s4eca dgl sweep`."""
    run_hydra(sweep_settings, "dgl_sweep")
