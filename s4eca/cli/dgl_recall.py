"""`s4eca dgl recall`: the ceiling of a proposer."""

import dataclasses
import json
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from s4eca.build import build_data, build_model, open_weights
from s4eca.cli.config import plain
from s4eca.cli.dgl_scenes import device_of
from s4eca.cli.entry import run_hydra
from s4eca.dgl_rsis.proposals.recall import Recall, best_iou
from s4eca.dgl_rsis.stages import Stages
from s4eca.evaluation.report import dump_metrics
from s4eca.lit.dgl_rsis import look


def measure_recall(given: DictConfig) -> float:
    """Prints and writes the recall of a proposer; see `conf/dgl_recall.yaml`."""
    config = plain(given)
    data = build_data(config)
    proposer = build_model(config["proposer"], "proposer", open_weights(config)).to(device_of(config["accelerator"]))
    stages = Stages(proposer, cache=config["cache"])
    data.prepare_data()
    dataset = data.dataset(config["split"], train=False)
    ious, areas, counts = [], [], []
    for place in track(range(len(dataset)), "proposals", console=Console(stderr=True)):
        sample = dataset[place]
        assert sample.original_mask is not None
        truth = sample.mask.numpy()
        proposals = stages.proposals(look(sample.image, dataset.references[place].image.stem, sample.mask))
        counts.append(len(proposals))
        if truth.any():
            ious.append(best_iou(proposals, truth))
            areas.append(int(sample.original_mask.sum()))
    found = Recall.of(ious, areas, counts)
    table = Table(title=f"{data.name}, {config['split']}: best proposal of each target", title_justify="left")
    for name, value in dataclasses.asdict(found).items():
        table.add_row(name, json.dumps(value))
    Console(soft_wrap=True).print(table)
    if config["out"] is not None:
        dump_metrics(Path(config["out"]), dataclasses.asdict(found))
    return found.mean_best_iou


def main() -> None:
    """Entry point of `s4eca dgl recall`."""
    run_hydra(measure_recall, "dgl_recall")
