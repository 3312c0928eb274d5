"""`s4eca score`: masks that any codebase has made, scored as our own are."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from s4eca.errors import S4ecaError


def score(
    context: typer.Context,
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="folder of ID.png, .npz archive, or .json of COCO RLEs by id")
    ],
    out: Annotated[Path | None, typer.Option(help="file for the scores, as JSON")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="folder for metrics.json, metrics.csv and samples.parquet")
    ] = None,
) -> None:
    """Score predictions: s4eca score PREDICTIONS data=NAME data.root=PATH data.split=test --out FILE.json.

    Further KEY=VALUE (at, image_size, bootstrap, name, seed, made_by.vision, any key of the data) are those of
    conf/score.yaml.
    """
    path, overrides = sort_arguments([str(predictions), *context.args])
    score_predictions(path, overrides, out, folder)


def sort_arguments(given: Sequence[str]) -> tuple[Path, list[str]]:
    """Tells the predictions from the overrides, in whatever order they were given.

    A path may hold a `=`, as the folders of sweeps do; it is told from an override by being there.

    Raises:
        S4ecaError: an option that does not exist, or not exactly one path.
    """
    options = [item for item in given if item.startswith("-")]
    if options:
        raise S4ecaError(f"There is no option {options[0]}: give --out, --folder and KEY=VALUE.")
    paths = [item for item in given if "=" not in item or Path(item).exists()]
    if len(paths) != 1:
        raise S4ecaError(
            f"One path of predictions is needed and {len(paths)} were given ({', '.join(paths) or 'only KEY=VALUE'}):"
            " s4eca score PREDICTIONS data=NAME data.root=PATH --out FILE.json."
        )
    return Path(paths[0]), [item for item in given if item is not paths[0]]


def score_predictions(
    predictions: Path, overrides: Sequence[str], out: Path | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Scores predictions, prints the table and writes what was asked for.

    Args:
        predictions: see `read_predictions`.
        overrides: of `conf/score.yaml`, as KEY=VALUE.
        out: file for the content of `metrics.json`.
        folder: for `metrics.json`, `metrics.csv` and `samples.parquet`, which `s4eca compare` and `s4eca table` read.

    Returns:
        The content of `metrics.json`.

    Raises:
        S4ecaError: anything the user can mend, before the first mask is decoded wherever it can be known by then.
    """
    from rich.console import Console

    from s4eca.build import build_data
    from s4eca.evaluation.predictions import read_predictions
    from s4eca.evaluation.report import dump_metrics, metrics_table, write_metrics
    from s4eca.evaluation.results import build_evaluation, write_samples
    from s4eca.evaluation.score import notes
    from s4eca.evaluation.score import score as count
    from s4eca.evaluation.summary import summarise_evaluation
    from s4eca.files import check_writable, hash_files, make_folder

    config, split, seed = compose(overrides)
    if out is not None:
        check_writable(out)
    if folder is not None:
        make_folder(folder)
    with read_predictions(predictions) as masks:
        data = build_data(config)
        data.prepare_data()
        references = data.references(split)
        data.check_targets(split)
        image_size, at = config["image_size"], config["at"]
        rows, sizes = count(masks, references, image_size, at, progress=True)
        about = {
            "name": config["name"] or (out.stem if out else (folder or predictions).name),
            "dataset": data.name,
            "split": split,
            "data": data.fingerprint((split,))[split],
            "image_size": image_size,
            "seed": seed,
            **stated(config),
            "predictions": predictions.name,
            "predictions_sha256": hash_files(predictions),
            "format": masks.format,
            "at": at,
            "notes": notes(at, image_size),
        }
    evaluation = build_evaluation(about, references, rows, sizes)
    summary = summarise_evaluation(evaluation, replicates=config["bootstrap"])
    files: list[Path] = []
    if out is not None:
        dump_metrics(out, summary)
        files.append(out)
    if folder is not None:
        files += [*write_metrics(folder, summary), write_samples(folder, evaluation)]
    console = Console(soft_wrap=True)
    console.print(metrics_table(summary, f"{predictions.name} on {data.name}, {split}"))
    for file in files:
        print(os.path.relpath(file))
    return summary


def stated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is said about the model that made the predictions; its weights are not known here."""
    said = {key: str(value) for key, value in config["made_by"].items() if value is not None}
    backbones = {tower: {"name": said.pop(tower)} for tower in ("vision", "text") if tower in said}
    return said | ({"backbones": backbones} if backbones else {})


def compose(overrides: Sequence[str]) -> tuple[dict[str, Any], str, int | None]:
    """Composes `conf/score.yaml` into plain values.

    Returns:
        The config, the split, and the seed of the predictions' training where it is known; the data are read with
        seed 0, on which nothing here depends.

    Raises:
        S4ecaError: an override that does not fit the config, or a value that cannot be.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from s4eca.cli.config import conf_dir, plain
    from s4eca.overrides import check_overrides, composing_reason

    check_overrides(overrides)

    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            config = compose("score", overrides=list(overrides))
        seed = config.seed
        if seed is None:
            config.seed = 0
        content = plain(config)
    except (HydraException, OmegaConfBaseException) as error:
        reason = composing_reason(error)
        raise S4ecaError(f"The config of the scoring cannot be composed, {reason}: see conf/score.yaml.") from error
    if "_target_" not in content["data"]:
        raise S4ecaError("data=checkpoint belongs to eval.py: name the dataset that holds the truth, as data=rrsis_d.")
    split = content["data"].pop("split")
    for key, lowest in (("image_size", 1), ("bootstrap", 0)):
        if type(content[key]) is not int or content[key] < lowest:
            raise S4ecaError(f"{key}={content[key]} cannot be: give a whole number from {lowest} up.")
    if seed is not None and type(seed) is not int:
        raise S4ecaError(f"seed={seed} cannot be: give a whole number.")
    return content, split, seed
