"""One evaluation as data: a row of pixels per sample and protocol, and what the numbers belong to."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s4eca.data.dataset import content_hash
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError
from s4eca.evaluation.metrics import AREA, CATEGORY, INDEX, INTERSECTION, NO_TARGET, UNION
from s4eca.evaluation.protocols import PROTOCOLS

SAMPLES = "samples.parquet"
_ABOUT = b"s4eca"


@dataclass(frozen=True, slots=True)
class SampleInfo:
    """What a row belongs to.

    Attributes:
        id: as the reader gives it.
        image: name of the image file, or of the first file with the same content (with folders where two share a name);
            samples on one image share it, and the bootstrap draws images.
        expression: as the network read it.
        category: class name, None where the dataset has none.
        no_target: the expression names nothing on purpose.
        size: (height, width) of the image file.
        area: pixels of the truth at that size.
        kind: of the expression, None where the dataset says none.
    """

    id: str
    image: str
    expression: str
    category: str | None
    no_target: bool
    size: tuple[int, int]
    area: int
    kind: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """Everything that scores, intervals, comparisons and reports are computed from.

    Attributes:
        about: what was evaluated, plain values that JSON can hold: `dataset`, `split`, `name`, `seed`, `image_size` and
            what the producer adds (`checkpoint`, `predictions`, `data`, `parameters`; `expressions` is `real` unless
            others were put in their place).
        samples: in the dataset's order.
        rows: for each protocol int64 (N, 6), columns as in `s4eca.evaluation.metrics`; row i belongs to sample i.
    """

    about: Mapping[str, Any]
    samples: Sequence[SampleInfo]
    rows: Mapping[str, np.ndarray]

    @property
    def categories(self) -> tuple[str, ...]:
        """Names that the rows' category codes index: those that occur, sorted."""
        return tuple(sorted({sample.category for sample in self.samples if sample.category is not None}))


def build_evaluation(
    about: Mapping[str, Any], references: Sequence[Reference], rows: Mapping[str, np.ndarray], sizes: np.ndarray
) -> Evaluation:
    """Puts together what was counted and what it was counted on.

    Args:
        about: see `Evaluation`.
        references: of the evaluated split, in the dataset's order.
        rows: for each protocol int64 (N, 6), as `ReferringMetrics.gathered` returns them; categories and no-target
            flags are filled in from the references.
        sizes: int64 (N, 4), index, height, width and pixels of the truth, from the same place.

    Raises:
        S4ecaError: a reference has no row, or a row no reference: nothing is scored on a silent subset.
    """
    for content in (sizes, *rows.values()):
        _check_complete(references, content[:, INDEX])
    names = _image_names(references)
    samples = [
        SampleInfo(
            id=reference.id,
            image=names[reference.image],
            expression=reference.expression,
            category=reference.category,
            no_target=reference.no_target,
            size=(height, width),
            area=area,
            kind=reference.kind,
        )
        for reference, (_, height, width, area) in zip(references, sizes.tolist(), strict=True)
    ]
    return _coded(Evaluation(about, samples, {}), {protocol: content.copy() for protocol, content in rows.items()})


def _image_names(references: Sequence[Reference]) -> dict[Path, str]:
    """Returns for each image file the name of the first one with the same content.

    RefSegRS has a numbered copy of an image for each of its expressions. Names get their folders where datasets that
    are evaluated jointly share one.
    """
    paths = list(dict.fromkeys(reference.image for reference in references))
    counts = Counter(path.name for path in paths)
    common = Path(os.path.commonpath([path.absolute() for path in paths])) if paths else Path()
    first: dict[str, str] = {}
    names = {}
    for path in paths:
        name = path.name if counts[path.name] == 1 else path.absolute().relative_to(common).as_posix()
        names[path] = first.setdefault(_content(path), name)
    return names


def _content(path: Path) -> str:
    try:
        return content_hash(path)
    except OSError:  # gone since it was evaluated
        return str(path)


def write_samples(folder: Path, evaluation: Evaluation) -> Path:
    """Writes `samples.parquet`, one line per sample, and returns its path; a file is replaced as a whole.

    Columns are id, image, expression, category, no_target, height, width, area, kind, and for each protocol
    PROTOCOL/intersection, PROTOCOL/union, PROTOCOL/area in pixels and PROTOCOL/IoU. `about` travels in the file's
    metadata.
    """
    samples = evaluation.samples
    columns: dict[str, Any] = {
        "id": pa.array([sample.id for sample in samples], pa.string()),
        "image": pa.array([sample.image for sample in samples], pa.string()),
        "expression": pa.array([sample.expression for sample in samples], pa.string()),
        "category": pa.array([sample.category for sample in samples], pa.string()),
        "no_target": pa.array([sample.no_target for sample in samples], pa.bool_()),
        "height": pa.array([sample.size[0] for sample in samples], pa.int32()),
        "width": pa.array([sample.size[1] for sample in samples], pa.int32()),
        "area": pa.array([sample.area for sample in samples], pa.int64()),
        "kind": pa.array([sample.kind for sample in samples], pa.string()),
    }
    for protocol, rows in evaluation.rows.items():
        columns[f"{protocol}/intersection"] = pa.array(rows[:, INTERSECTION])
        columns[f"{protocol}/union"] = pa.array(rows[:, UNION])
        columns[f"{protocol}/area"] = pa.array(rows[:, AREA])
        columns[f"{protocol}/IoU"] = pa.array(PROTOCOLS[protocol].iou(rows[:, INTERSECTION], rows[:, UNION]))
    table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(evaluation.about)})
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / SAMPLES, folder / f".{SAMPLES}.part"
    pq.write_table(table, partial)
    partial.replace(path)
    return path


def read_evaluation(path: Path) -> Evaluation:
    """Reads what `write_samples` wrote.

    Args:
        path: the parquet file or the folder that holds it.

    Raises:
        S4ecaError: there is no such file, or it was not written by an evaluation.
    """
    file = path / SAMPLES if path.is_dir() else path
    if not file.is_file():
        raise S4ecaError(f"There is no {file}: give a folder that eval.py or `s4eca score` has written.")
    try:
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[_ABOUT])
        column = {name: table.column(name).to_pylist() for name in table.column_names if "/" not in name}
        samples = [
            SampleInfo(id, image, expression, category, no_target, (height, width), area, kind)
            for id, image, expression, category, no_target, height, width, area, kind in zip(
                *(column[name] for name in ("id", "image", "expression", "category", "no_target", "height", "width")),
                column["area"],
                column.get("kind", [None] * table.num_rows),  # files of before have none
                strict=True,
            )
        ]
        names = [name.removesuffix("/union") for name in table.column_names if name.endswith("/union")]
        rows = {}
        for name in names:
            content = np.zeros((len(samples), 6), np.int64)
            content[:, INDEX] = np.arange(len(samples))
            content[:, INTERSECTION] = table.column(f"{name}/intersection").to_numpy()
            content[:, UNION] = table.column(f"{name}/union").to_numpy()
            content[:, AREA] = table.column(f"{name}/area").to_numpy()
            rows[name] = content
        return _coded(Evaluation(about, samples, {}), rows)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise S4ecaError(
            f"{file} cannot be read as the samples of an evaluation ({reason}): evaluate the checkpoint again."
        ) from error


def _coded(evaluation: Evaluation, rows: dict[str, np.ndarray]) -> Evaluation:
    """Adds rows, and to them what the samples say about category and target."""
    codes: dict[str | None, int] = {category: code for code, category in enumerate(evaluation.categories)}
    for content in rows.values():
        content[:, CATEGORY] = [codes.get(sample.category, -1) for sample in evaluation.samples]
        content[:, NO_TARGET] = [sample.no_target for sample in evaluation.samples]
    return dataclasses.replace(evaluation, rows=rows)


def _check_complete(references: Sequence[Reference], index: np.ndarray) -> None:
    if np.array_equal(index, np.arange(len(references))):
        return
    seen = set(index.tolist())
    missing = [reference.id for place, reference in enumerate(references) if place not in seen]
    if missing:
        raise S4ecaError(
            f"{len(missing)} of {len(references)} samples were not evaluated (the first: {', '.join(missing[:3])}):"
            " evaluate the whole split, with no limit on the number of batches."
        )
    raise S4ecaError(
        f"The evaluation has {len(index)} rows for {len(references)} references: pass the references that were"
        " evaluated, and each row once, in their order."
    )
