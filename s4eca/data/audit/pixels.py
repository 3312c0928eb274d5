"""Decoding every image and mask once, in threads; what cannot be decoded is a result like any other."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from s4eca.data.file_kinds import PixelError
from s4eca.data.images import read_image
from s4eca.data.references import MaskSource
from s4eca.errors import S4ecaError

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[str, int, int], None]
"""Called with what is being decoded, how many are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A decoded image: (height, width) and a hash of its RGB values; or why there is none, and if that is damage."""

    size: tuple[int, int] | None = None
    digest: str | None = None
    problem: str | None = None
    damaged: bool = True


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """A decoded mask, or why it could not be decoded.

    Attributes:
        size: (height, width).
        pixels: number of pixels in the mask.
        extent: (left, top, right, bottom) in pixels, right and bottom exclusive; None for an empty mask.
        problem: None where all went well.
        damaged: whether the problem is one that a whole copy would not have.
    """

    size: tuple[int, int] | None = None
    pixels: int = 0
    extent: tuple[int, int, int, int] | None = None
    problem: str | None = None
    damaged: bool = True


def measure_images(
    paths: Sequence[Path], workers: int, progress: Progress | None, depth: int = 8
) -> dict[Path, ImageFacts]:
    """Decodes images, each path once.

    Args:
        paths: files; a path may occur several times.
        workers: threads; Pillow gives way to other threads while it decodes.
        progress: told after every image, where given.
        depth: see `open_image`.
    """
    wanted = list(dict.fromkeys(paths))
    return dict(
        zip(wanted, _in_threads(partial(_measure_image, depth=depth), wanted, workers, "images", progress), strict=True)
    )


def measure_masks(
    masks: Iterable[MaskSource | None], workers: int, progress: Progress | None
) -> list[MaskFacts | None]:
    """Decodes masks; a source that several records share is decoded once. None stays None.

    Args:
        masks: one source per record.
        workers: threads.
        progress: told after every mask, where given.
    """
    sources = list(masks)
    wanted = list({id(source): source for source in sources if source is not None}.values())
    facts = _in_threads(_measure_mask, wanted, workers, "masks", progress)
    by_source = dict(zip((id(source) for source in wanted), facts, strict=True))
    return [None if source is None else by_source[id(source)] for source in sources]


def _in_threads(
    function: Callable[[T], R], items: Sequence[T], workers: int, what: str, progress: Progress | None
) -> Iterator[R]:
    with ThreadPoolExecutor(workers) as pool:
        for done, result in enumerate(pool.map(function, items), start=1):
            if progress is not None:
                progress(what, done, len(items))
            yield result


def _measure_image(path: Path, depth: int) -> ImageFacts:
    try:
        array = read_image(path, depth=depth)
    except Exception as error:  # a damaged file raises nearly anything, and must not end the audit
        return ImageFacts(problem=_reason(error), damaged=getattr(error, "damaged", True))
    digest = hashlib.sha256(str(array.shape).encode())
    digest.update(array.data)
    return ImageFacts(size=(array.shape[0], array.shape[1]), digest=digest.hexdigest())


def _measure_mask(source: MaskSource) -> MaskFacts:
    try:
        mask = source.decode()
    except Exception as error:  # as above
        return MaskFacts(problem=_reason(error), damaged=getattr(error, "damaged", True))
    size = (mask.shape[0], mask.shape[1])
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if len(columns) == 0:
        return MaskFacts(size=size)
    extent = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return MaskFacts(size=size, pixels=int(mask.sum()), extent=extent)


def _reason(error: Exception) -> str:
    """Returns what a file is, or the decoder's own words where the package has wrapped them, in one line."""
    if isinstance(error, PixelError):
        return error.reason
    cause = error.__cause__ if isinstance(error, S4ecaError) and error.__cause__ is not None else error
    return " ".join(str(cause).split()) or type(cause).__name__
