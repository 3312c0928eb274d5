"""One evaluation as data: a row of pixels per sample and protocol, and what the numbers belong to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
        image: the image file's name; samples on one image share it, and the bootstrap draws images.
        expression: as the network read it.
        category: class name, None where the dataset has none.
        no_target: the expression names nothing on purpose.
        size: (height, width) of the image file.
        area: pixels of the truth at that size.
    """

    id: str
    image: str
    expression: str
    category: str | None
    no_target: bool
    size: tuple[int, int]
    area: int


@dataclass(frozen=True)
class Evaluation:
    """Everything that scores, intervals, comparisons and reports are computed from.

    Attributes:
        about: what was evaluated, plain values that JSON can hold: `dataset`, `split`, `name`, `seed`, `image_size` and
            what the producer adds (`checkpoint`, `predictions`, `shuffled`, `data`, `parameters`).
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


def write_samples(folder: Path, evaluation: Evaluation) -> Path:
    """Writes `samples.parquet`, one line per sample, and returns its path; a file is replaced as a whole.

    Columns are id, image, expression, category, no_target, height, width, area, and for each protocol
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
            SampleInfo(id, image, expression, category, no_target, (height, width), area)
            for id, image, expression, category, no_target, height, width, area in zip(
                *(column[name] for name in ("id", "image", "expression", "category", "no_target", "height", "width")),
                column["area"],
                strict=True,
            )
        ]
        names = [name.removesuffix("/union") for name in table.column_names if name.endswith("/union")]
        evaluation = Evaluation(about, samples, {})
        codes = {category: code for code, category in enumerate(evaluation.categories)}
        rows = {}
        for name in names:
            content = np.full((len(samples), 6), -1, np.int64)
            content[:, INDEX] = np.arange(len(samples))
            content[:, INTERSECTION] = table.column(f"{name}/intersection").to_numpy()
            content[:, UNION] = table.column(f"{name}/union").to_numpy()
            content[:, AREA] = table.column(f"{name}/area").to_numpy()
            content[:, CATEGORY] = [codes.get(sample.category, -1) if sample.category else -1 for sample in samples]
            content[:, NO_TARGET] = [sample.no_target for sample in samples]
            rows[name] = content
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise S4ecaError(
            f"{file} cannot be read as the samples of an evaluation ({error}): evaluate the checkpoint again."
        ) from error
    return Evaluation(about, samples, rows)
