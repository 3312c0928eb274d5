"""Scoring predictions that any codebase has made, by the rows that the evaluation of a checkpoint counts."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from s4eca.data.images import image_size as read_image_size
from s4eca.data.references import Reference
from s4eca.data.resize import fit_mask, resize_mask
from s4eca.data.targets import decode_target
from s4eca.errors import S4ecaError
from s4eca.evaluation.metrics import row
from s4eca.evaluation.predictions import MaskError, Predictions
from s4eca.wording import first

SIZES = ("original", "input")


def score(
    predictions: Predictions,
    references: Sequence[Reference],
    image_size: int,
    at: str = "original",
    progress: bool = False,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Compares masks with the truth, every reference of the split or none.

    Masks at the images' own sizes are scored under `original` and `detris` as they are, and under `lavt` after they
    were resized to the input size like the truth, with PIL's nearest. Masks at the input size are what codebases of
    the LAVT lineage compare, and are scored under `lavt` alone. Everything that can be known without decoding a mask is
    checked before the first one is decoded.

    Args:
        predictions: as `read_predictions` opens them; exactly one for each reference.
        references: the whole split, in the dataset's order.
        image_size: side of the model's input in pixels, where `lavt` compares.
        at: `original` for masks at the size of each image, `input` for image_size x image_size.
        progress: show a bar on a terminal.

    Returns:
        The rows (N, 6) int64 of each protocol and the samples' sizes (N, 4) int64, as `ReferringMetrics.gathered`
        returns them and `build_evaluation` takes them.

    Raises:
        S4ecaError: missing, unknown or repeated ids, masks of another size, masks that are damaged or not binary (the
            first of them and how many there are), or an image or a truth that cannot be read.
    """
    if at not in SIZES:
        raise S4ecaError(f"Predictions cannot be at={at}: choose one of {', '.join(SIZES)}.")
    if image_size < 1:
        raise S4ecaError(f"image_size={image_size} is no size: give the side of the model's input in pixels.")
    places = _check_ids(predictions, references)
    image_sizes = _image_sizes(references)
    expected = image_sizes if at == "original" else [(image_size, image_size)] * len(references)
    _check_sizes(predictions, references, expected, image_sizes)

    names = ("lavt", "original", "detris") if at == "original" else ("lavt",)
    rows = {name: np.zeros((len(references), 6), np.int64) for name in names}
    sizes = np.zeros((len(references), 4), np.int64)
    small = (image_size, image_size)
    bad: list[MaskError] = []
    fitted: list[str] = []
    # in the file's order, in which it is read fastest
    for id in _tracked(predictions.ids, progress):
        try:
            prediction = predictions.mask(id)
        except MaskError as error:
            bad.append(error)
        if bad:  # no score any more; the rest is decoded for the count
            continue
        index = places[id]
        reference, size = references[index], image_sizes[index]
        truth = decode_target(reference, size)
        if truth.shape != size:
            fitted.append(id)
            truth = fit_mask(truth, size)
        sizes[index] = index, *size, np.count_nonzero(truth)
        resized = resize_mask(prediction, small) if at == "original" else prediction
        rows["lavt"][index] = row(index, resized, resize_mask(truth, small), reference.no_target)
        if at == "original":
            rows["original"][index] = rows["detris"][index] = row(index, prediction, truth, reference.no_target)
    if bad:
        bad.sort(key=lambda error: places[error.id])
        raise _bad_masks(predictions, bad)
    if fitted:
        warnings.warn(
            f"{len(fitted):,} of {len(references):,} truths have another size than their image and were resized to it"
            f" ({first(fitted)}).",
            stacklevel=2,
        )
    return rows, sizes


def notes(at: str, image_size: int) -> dict[str, str]:
    """Returns for each protocol what it means for masks that were made elsewhere, to stand beside their scores."""
    if at == "input":
        return {"lavt": f"masks as given, at {image_size}x{image_size}; the truth resized to it with PIL's nearest"}
    return {
        "lavt": f"masks and truth both resized to {image_size}x{image_size} with PIL's nearest",
        "original": "masks as given, at the size of each image",
        "detris": "masks as given; the probability threshold (0.35 in DETRIS) is that of whoever made them",
    }


def _check_ids(predictions: Predictions, references: Sequence[Reference]) -> dict[str, int]:
    """Returns the position of each id; raises `S4ecaError` unless there is one prediction for each reference."""
    places = {reference.id: place for place, reference in enumerate(references)}
    if len(places) != len(references):
        raise S4ecaError(f"{len(references) - len(places):,} references share their id with another: make ids unique.")
    missing = [id for id in places if id not in predictions]
    unknown = [id for id in predictions if id not in places]
    parts = []
    if missing:
        parts.append(f"{len(missing):,} of {len(places):,} references have no prediction ({first(missing)})")
    if unknown:
        parts.append(f"{len(unknown):,} of {len(predictions):,} predictions are for no reference ({first(unknown)})")
    if parts:
        raise S4ecaError(
            f"In {predictions.path} {' and '.join(parts)}: write one mask for each reference of the split, under its id"
            f" (the first: {first(list(places), 3)})."
        )
    return places


def _image_sizes(references: Sequence[Reference]) -> list[tuple[int, int]]:
    """Returns (height, width) of each reference's image out of the file's header."""
    known: dict[Path, tuple[int, int]] = {}
    for reference in references:
        path = reference.image
        if path not in known:
            known[path] = read_image_size(path, reference.id)
    return [known[reference.image] for reference in references]


def _check_sizes(
    predictions: Predictions,
    references: Sequence[Reference],
    expected: Sequence[tuple[int, int]],
    image_sizes: Sequence[tuple[int, int]],
) -> None:
    """Raises one `S4ecaError` for all masks of another size than expected, or whose size cannot be read."""
    bad, wrong, sizes = [], [], []
    for reference, size in zip(references, expected, strict=True):
        try:
            found = predictions.size(reference.id)
        except MaskError as error:
            bad.append(error)
            continue
        sizes.append(found)
        if found != size:
            wrong.append(f"{reference.id} is {_text(found)} and not {_text(size)}")
    if bad:
        raise _bad_masks(predictions, bad)
    if wrong:
        square = sizes[0][0] if len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1] else None
        if sizes == list(image_sizes):
            remedy = "score these with at=original"
        elif square is not None:
            remedy = f"score these with at=input image_size={square}, if that is the model's input"
        else:
            remedy = "write each mask at the size of its image, or all of them at the model's input size for at=input"
        raise S4ecaError(
            f"{len(wrong):,} of {len(references):,} predictions in {predictions.path} have the wrong height x width"
            f" ({first(wrong)}): {remedy}."
        )


def _bad_masks(predictions: Predictions, bad: Sequence[MaskError]) -> S4ecaError:
    listed = first([f"{error.id}: {error.reason}" for error in bad])
    return S4ecaError(
        f"{len(bad):,} of {len(predictions):,} predictions in {predictions.path} are no masks ({listed}):"
        " write these again."
    )


def _tracked(ids: Sequence[str], progress: bool) -> Iterable[str]:
    console = Console(stderr=True)
    return track(ids, "scoring", console=console, transient=True, disable=not (progress and console.is_terminal))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
