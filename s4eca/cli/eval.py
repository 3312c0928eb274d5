"""Evaluation of a checkpoint: everything it needs but the base weights and the data is in the checkpoint."""

import os
from pathlib import Path
from typing import Any

import hydra
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from s4eca.build import Config, build_data, build_module, build_trainer
from s4eca.checkpoint import Checkpoint, load_learned, read_checkpoint
from s4eca.cli.config import conf_dir
from s4eca.cli.messages import guarded, show_warnings
from s4eca.data.references import Batch
from s4eca.evaluation.pictures import save_panels
from s4eca.evaluation.report import metrics_table, write_metrics
from s4eca.evaluation.shuffle import shuffle_expressions

Results = dict[str, dict[str, float]]


def evaluate(
    config: Config, split: str, folder: Path, checkpoint: Checkpoint, pictures: int = 8, shuffled: int | None = None
) -> Results:
    """Evaluates a checkpoint and writes `metrics.json`, `metrics.csv` and pictures.

    Args:
        config: resolved config to build data and network from.
        split: `train`, `val` or `test`.
        folder: where the results go.
        checkpoint: as `read_checkpoint` gives it.
        pictures: number of samples to draw.
        shuffled: a seed, to give every image another sample's expression; None for the real ones.

    Returns:
        Scores per protocol, as fractions.

    Raises:
        S4ecaError: anything the user can mend, before the first sample wherever it can be known by then.
    """
    data = build_data(config)
    data.prepare_data()
    references = data.references(split)
    if shuffled is not None:
        data.replace(split, shuffle_expressions(references, shuffled))
    data.tokenizer = checkpoint.tokenizer()
    module = build_module(config)
    load_learned(module.segmenter, checkpoint)
    drawn = Panels(folder / "pictures", pictures)
    trainer = build_trainer(config, folder, [drawn], [])
    trainer.test(module, data.evaluation_loader(split), verbose=False)
    scores = module.scores
    console = Console(soft_wrap=True)
    title = f"{data.name}, {split}" + (", expressions shuffled" if shuffled is not None else "")
    console.print(metrics_table(scores, title))
    for path in [*write_metrics(folder, scores), *drawn.paths]:
        console.print(os.path.relpath(path), highlight=False)
    return scores


class Panels(Callback):
    """Draws the first samples of an evaluation.

    Args:
        folder: where the pictures go.
        limit: number of samples.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.paths: list[Path] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws what is left to draw from this batch."""
        if len(self.paths) < self.limit:
            self.paths += save_panels(self.folder, batch, outputs, self.limit - len(self.paths))


def merge(trained: Config, given: DictConfig) -> Config:
    """Returns the config of an evaluation: the checkpoint's, changed where the command line says something.

    `data=NAME` replaces the data; single keys that are not null change single values.
    """
    merged = OmegaConf.create(trained)
    for key in ("data", "vision", "text", "trainer"):
        # unresolved: what a data config refers to, such as image_size, is the checkpoint's
        change = OmegaConf.to_container(given[key], resolve=False)
        assert isinstance(change, dict)
        if "_target_" in change:
            merged[key] = change
        else:
            for name, value in change.items():
                if value is not None:
                    merged[key][name] = value
    content = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


@guarded
def _task(given: DictConfig) -> float | None:
    checkpoint = read_checkpoint(given.ckpt)
    config = merge(checkpoint.config, given)
    shuffled = int(given.seed) if given.shuffle_expressions else None
    folder = Path(given.out) if given.out else default_folder(Path(given.ckpt), given.split, shuffled is not None)
    scores = evaluate(config, given.split, folder, checkpoint, given.pictures, shuffled)
    return scores[next(iter(scores))]["mIoU"]


def default_folder(ckpt: Path, split: str, shuffled: bool) -> Path:
    """Returns `RUN/eval/CHECKPOINT_SPLIT` beside the checkpoints of a run."""
    parent = ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent
    return parent / "eval" / f"{ckpt.stem}_{split}{'_shuffled' if shuffled else ''}"


def main() -> None:
    """Entry point of `eval.py` and `s4eca eval`."""
    show_warnings()
    hydra.main(version_base="1.3", config_path=conf_dir(), config_name="eval")(_task)()
