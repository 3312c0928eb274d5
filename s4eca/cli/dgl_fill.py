"""`s4eca dgl fill`: the stages one by one, into the cache."""

import time

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from s4eca.build import build_pipeline, instantiate
from s4eca.cli.config import plain
from s4eca.cli.dgl_scenes import Scene, device_of, list_scenes, parse_shard
from s4eca.cli.entry import run_hydra
from s4eca.data.datamodule import ReferringDataModule
from s4eca.dgl_rsis.pipeline import Pipeline, noun_phrase
from s4eca.dgl_rsis.stages import STAGES
from s4eca.errors import S4ecaError


def fill_stages(given: DictConfig) -> None:
    """Runs stages over a split, each with a progress bar; see `conf/dgl_fill.yaml`.

    Raises:
        S4ecaError: no cache folder, an unknown stage, an impossible shard, or what the parts raise.
    """
    config = plain(given)
    if config["model"]["cache"] is None:
        raise S4ecaError("there is no folder to fill; give one with model.cache=FOLDER.")
    unknown = [stage for stage in config["stages"] if stage not in STAGES]
    if unknown or not config["stages"]:
        raise S4ecaError(f"stages={config['stages']} names no stage or an unknown one; choose of {', '.join(STAGES)}.")
    first, every = parse_shard(config["shard"])
    data = instantiate(config["data"], "data")
    expressions = isinstance(data, ReferringDataModule)
    pipeline = build_pipeline(config, data.name, expressions).to(device_of(config["accelerator"]))
    scenes = list_scenes(data, config["split"], pipeline.proposer.needs_truth)[first::every]
    stages = pipeline.stages
    start = time.perf_counter()
    for stage in config["stages"]:
        if stage == "texts":
            phrases = [pipeline.decoupler(text) for scene in scenes for text in scene.expressions]
            pipeline.bank()
            texts = list(dict.fromkeys(text for phrase in phrases for text in (phrase.text, noun_phrase(phrase))))
            blocks = [texts[place : place + 256] for place in range(0, len(texts), 256)]
            for block in track(blocks, "texts", console=Console(stderr=True)):
                stages.texts(block)
            continue
        for scene in track(scenes, stage, console=Console(stderr=True)):
            run_stage(pipeline, stage, scene)
    made = {name: len(stages.seconds[name]) for name in STAGES}
    for name in config["stages"]:
        print(f"{name}: {made[name]} made, {stages.reused[name]} read")
    print(f"{len(scenes)} images in {time.perf_counter() - start:.1f} s, shard {config['shard']} of {config['split']}")


def run_stage(pipeline: Pipeline, stage: str, scene: Scene) -> None:
    """Runs one stage on one image."""
    view = scene.read()
    if stage == "proposals":
        pipeline.stages.proposals(view)
    elif stage == "regions":
        pipeline.stages.regions(view)
    elif scene.expressions:
        pipeline.stages.maps(view, [pipeline.decoupler(text) for text in scene.expressions])


def main() -> None:
    """Entry point of `s4eca dgl fill`."""
    run_hydra(fill_stages, "dgl_fill")
