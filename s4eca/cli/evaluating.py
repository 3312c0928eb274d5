"""One evaluation, whatever makes the masks: a trained network or the training-free method."""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from rich.console import Console

from s4eca.build import Config, build_loggers, build_trainer
from s4eca.data.datamodule import ReferringDataModule
from s4eca.errors import S4ecaError
from s4eca.evaluation.about import FOR_PROGRAMS
from s4eca.evaluation.page.build import write_page
from s4eca.evaluation.page.panels import Panel, choose_panels, save_panels
from s4eca.evaluation.predictions import FORMATS, decode, open_writer, prediction_path
from s4eca.evaluation.report import metrics_table, write_metrics
from s4eca.evaluation.results import build_evaluation, write_samples
from s4eca.evaluation.shuffle import shuffle_expressions
from s4eca.evaluation.summary import summarise_evaluation
from s4eca.files import make_folder
from s4eca.lit.agreement import failing_as_one
from s4eca.lit.collecting import CollectPredictions
from s4eca.lit.scoring import ScoringModule
from s4eca.lit.wandb_report import send_evaluation


@dataclass(frozen=True)
class Options:
    """What an evaluation does beside scoring.

    Attributes:
        split: `train`, `val` or `test`.
        pictures: how many of the best, of the median and of the worst samples are drawn.
        predictions: format in which all masks are exported (`rle`, `png` or `npz`), None for no export.
        bootstrap: replicates of the intervals, 0 for none.
        shuffled: a seed, to give every image another sample's expression; None for the real ones.
    """

    split: str = "test"
    pictures: int = 6
    predictions: str | None = None
    bootstrap: int = 2000
    shuffled: int | None = None

    def __post_init__(self) -> None:
        if self.predictions is not None and self.predictions not in FORMATS:
            raise S4ecaError(f"predictions={self.predictions} is no format; choose one of {', '.join(FORMATS)}.")
        for name in ("pictures", "bootstrap"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise S4ecaError(f"{name}={value} cannot be; give a whole number from 0 up, 0 switches it off.")
        if self.shuffled is not None and (type(self.shuffled) is not int or self.shuffled < 0):
            raise S4ecaError(f"seed={self.shuffled} cannot be; give a whole number from 0 up.")


def open_split(data: ReferringDataModule, options: Options) -> None:
    """Reads the split that is evaluated; its expressions are shuffled where that is asked for."""
    data.prepare_data()
    data.evaluated = options.split
    references = data.references(options.split)
    if options.shuffled is not None:
        data.replace(options.split, shuffle_expressions(references, options.shuffled))


def run_evaluation(
    config: Config,
    data: ReferringDataModule,
    module: ScoringModule,
    folder: Path,
    options: Options,
    about: Callable[[], dict[str, Any]],
    explain: Callable[[int], Mapping[str, Image.Image]] | None = None,
    heading: str = "",
) -> dict[str, Any]:
    """Runs a split through a module and writes what was measured.

    The folder gets `report.html`, `metrics.json`, `metrics.csv`, `samples.parquet`, `pictures/` and, where asked for,
    the predictions; W&B gets the same where its logger is on.

    Args:
        config: for trainer and loggers.
        data: with a tokenizer, its split opened.
        module: ready to be tested.
        folder: where the results go.
        options: split and extras.
        about: what the numbers belong to; asked when the test is through.
        explain: returns pictures of how the mask of a sample was found, by its position in the split.
        heading: what the printed table is headed with, beside data and split.

    Returns:
        The content of `metrics.json`.

    Raises:
        S4ecaError: anything the user can mend.
    """
    make_folder(folder)
    loggers = build_loggers(config, folder)
    collected = CollectPredictions()
    trainer = build_trainer(config, folder, [collected], loggers)
    with ExitStack() as stack:
        writer = None
        if options.predictions is not None and trainer.is_global_zero:
            writer = stack.enter_context(open_writer(folder, options.predictions))
        with failing_as_one(trainer, folder):
            trainer.test(module, datamodule=data, verbose=False)
        references = data.references(options.split)
        evaluation = build_evaluation(about(), references, module.rows, module.sizes)
        summary = summarise_evaluation(evaluation, replicates=options.bootstrap)
        if not trainer.is_global_zero:
            return summary
        if writer is not None:
            for reference in references:
                writer.add(reference.id, decode(collected.masks[reference.id]))
    module.to(trainer.strategy.root_device)  # the test has moved it off, and `explain` runs it once more
    panels = [
        Panel.read(
            choice,
            references[choice.position],
            decode(collected.masks[references[choice.position].id]),
            explain(choice.position) if explain is not None else None,
            data.depth,
        )
        for choice in choose_panels(evaluation, next(iter(evaluation.rows)), options.pictures)
    ]
    _remove_predictions(folder, keep=writer.path if writer is not None else None)
    files = [*write_metrics(folder, summary), write_samples(folder, evaluation)]
    files.append(write_page(folder, evaluation, summary, panels))
    files += [writer.path] if writer is not None else []
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            made_by = {key: value for key, value in evaluation.about.items() if key not in FOR_PROGRAMS}
            logger.log_hyperparams({f"{data.name}/{options.split}": made_by})
            send_evaluation(logger, evaluation, summary, panels, files)
            logger.experiment.finish()  # the next evaluation of a multirun has a run of its own
    console = Console(soft_wrap=True)
    shuffled = ", expressions shuffled" if options.shuffled is not None else ""
    heading = f"{data.name}, {options.split}{shuffled}" + (f": {heading}" if heading else "")
    console.print(metrics_table(summary, heading))
    for path in [*files, *save_panels(folder / "pictures", panels)]:
        print(os.path.relpath(path))
    return summary


def _remove_predictions(folder: Path, keep: Path | None) -> None:
    """Removes the masks that an earlier evaluation has left in the folder, which would pass for those of this one."""
    for form in FORMATS:
        path = prediction_path(folder, form)
        if path == keep:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
