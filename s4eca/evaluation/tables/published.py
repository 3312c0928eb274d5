"""Published results, with the source and the protocol of every number.

`published.csv` holds one row per dataset, split, method and training, in percent as printed; `published_cost.csv` holds
what methods cost. `docs/published.md` explains the fields.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from s4eca.errors import S4ecaError

SCORES = ("Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9", "oIoU", "mIoU")
"""In the field's order."""

UNKNOWN = "unknown"
SPLITS = ("val", "test")
SELECTIONS = ("val", "test", UNKNOWN)
TRAININGS = ("fine-tuned", "third-party re-run", "zero-shot", UNKNOWN)
SPLIT_SIZES = {
    ("rrsis_d", "val"): 1_740,
    ("rrsis_d", "test"): 3_481,
    ("refsegrs", "val"): 431,
    ("refsegrs", "test"): 1_817,
    ("risbench", "test"): 16_159,
}
"""Samples of the splits that the numbers are published for; RIS-LAD's is not known here."""

_RESULTS, _COSTS = "published.csv", "published_cost.csv"
_RESULT_FIELDS = (
    *("dataset", "split", "method", *SCORES),
    *("reported_in", "protocol", "input_size", "selection", "samples", "training", "remark"),
)
_COST_FIELDS = ("method", "parameters", "gflops", "fps", "device", "reported_in")


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """One row of `published.csv`.

    Attributes:
        dataset: as in `data=…`: `rrsis_d`, `refsegrs`, `risbench`, `ris_lad`.
        split: `val` or `test`.
        method: its authors' name for it.
        scores: percent by name of the score, None where it was not reported.
        reported_in: the paper, table or README that the numbers were taken from.
        protocol: `lavt`, `original` or `detris` where it is exactly one of these, `unknown`, or what is known of it.
        input_size: side of the network's input in pixels, None where unknown.
        selection: split that the checkpoint was chosen on: `val`, `test` or `unknown`.
        samples: number of samples scored, None where unknown.
        training: `fine-tuned`, `third-party re-run` (training or evaluation by others than the authors), `zero-shot`
            or `unknown`.
        remark: what else a reader should know.
    """

    dataset: str
    split: str
    method: str
    scores: dict[str, float | None]
    reported_in: str
    protocol: str
    input_size: int | None
    selection: str
    samples: int | None
    training: str
    remark: str


@dataclass(frozen=True, slots=True)
class PublishedCost:
    """One row of `published_cost.csv`: all parameters in millions, GFLOPs and images per second on a device."""

    method: str
    parameters: float
    gflops: float
    fps: float
    device: str
    reported_in: str


def load_published(dataset: str | None = None, split: str | None = None) -> list[PublishedResult]:
    """Returns the published results, of one dataset or split if given, in the file's order.

    Raises:
        S4ecaError: the file was edited and a row is not valid; the message names line and field.
    """
    results = parse_results(_text(_RESULTS), _RESULTS)
    return [row for row in results if dataset in (None, row.dataset) and split in (None, row.split)]


def load_costs() -> list[PublishedCost]:
    """Returns the published costs, in the file's order; raises as `load_published` does."""
    return parse_costs(_text(_COSTS), _COSTS)


def parse_results(text: str, source: str) -> list[PublishedResult]:
    """Reads the content of `published.csv`.

    Args:
        text: comma-separated, the header first.
        source: the file's name for messages.

    Raises:
        S4ecaError: a missing or unknown column, a missing or impossible value, precision that rises with its
            threshold, or a second row for the same dataset, split, method and training.
    """
    results: list[PublishedResult] = []
    seen: dict[tuple[str, ...], int] = {}
    for row in _rows(text, source, _RESULT_FIELDS):
        result = PublishedResult(
            dataset=row.matching("dataset", r"[a-z0-9_]+", "a name as in data=…, such as rrsis_d"),
            split=row.one_of("split", SPLITS),
            method=row.filled("method"),
            scores={name: row.percent(name) for name in SCORES},
            reported_in=row.filled("reported_in"),
            protocol=row.filled("protocol"),
            input_size=row.count("input_size"),
            selection=row.one_of("selection", SELECTIONS),
            samples=row.count("samples"),
            training=row.one_of("training", TRAININGS),
            remark=row.values["remark"],
        )
        _check_scores(result, row)
        key = (result.dataset, result.split, result.method, result.training)
        if key in seen:
            raise row.error("method", f"{', '.join(key)} is in line {seen[key]} already")
        seen[key] = row.line
        results.append(result)
    return results


def parse_costs(text: str, source: str) -> list[PublishedCost]:
    """Reads the content of `published_cost.csv`; raises as `parse_results` does."""
    costs: list[PublishedCost] = []
    for row in _rows(text, source, _COST_FIELDS):
        method = row.filled("method")
        if any(method == cost.method for cost in costs):
            raise row.error("method", f"{method} is there twice")
        costs.append(
            PublishedCost(
                method=method,
                parameters=row.positive("parameters"),
                gflops=row.positive("gflops"),
                fps=row.positive("fps"),
                device=row.filled("device"),
                reported_in=row.filled("reported_in"),
            )
        )
    return costs


def _check_scores(result: PublishedResult, row: "_Row") -> None:
    known = [(name, value) for name, value in result.scores.items() if value is not None]
    if not known:
        raise row.error("mIoU", "the row has no score at all")
    precision = [(name, value) for name, value in known if name.startswith("Pr@")]
    for (lower, before), (name, value) in itertools.pairwise(precision):
        if value > before:
            raise row.error(name, f"{value} is more than {lower}, which is {before}")


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a file, whose values are read one field at a time; every reader raises `S4ecaError`."""

    source: str
    line: int
    values: dict[str, str]

    def error(self, field: str, message: str) -> S4ecaError:
        return S4ecaError(f"{self.source}, line {self.line}, field {field}: {message}; correct the file.")

    def filled(self, field: str) -> str:
        return self.matching(field, r".+", f"a value, {UNKNOWN} if there is none")

    def matching(self, field: str, pattern: str, wanted: str) -> str:
        value = self.values[field]
        if not re.fullmatch(pattern, value):
            raise self.error(field, f"{value!r} should be {wanted}")
        return value

    def one_of(self, field: str, choices: tuple[str, ...]) -> str:
        value = self.values[field]
        if value not in choices:
            raise self.error(field, f"{value!r} is none of {', '.join(choices)}")
        return value

    def percent(self, field: str) -> float | None:
        if not self.values[field]:
            return None
        number = float(self.matching(field, r"\d{1,3}(\.\d+)?", "a number in percent or empty"))
        if number > 100:
            raise self.error(field, f"{number} is more than 100 percent")
        return number

    def count(self, field: str) -> int | None:
        if not self.values[field]:
            return None
        return int(self.matching(field, r"[1-9]\d*", "a whole number from 1 on or empty"))

    def positive(self, field: str) -> float:
        number = float(self.matching(field, r"\d+(\.\d+)?", "a number"))
        if number == 0:
            raise self.error(field, "it is zero")
        return number


def _rows(text: str, source: str, fields: tuple[str, ...]) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if tuple(next(reader, [])) != fields:
            raise S4ecaError(f"{source}, line 1: the columns must be {', '.join(fields)}.")
        for values in reader:
            if len(values) != len(fields):
                raise S4ecaError(
                    f"{source}, line {reader.line_num}: {len(values)} fields where the header names {len(fields)};"
                    " put a text with a comma into double quotes."
                )
            row = _Row(source, reader.line_num, dict(zip(fields, values, strict=True)))
            for field, value in row.values.items():
                if value != value.strip():
                    raise row.error(field, f"{value!r} begins or ends with a space")
            yield row
    except csv.Error as error:
        raise S4ecaError(
            f"{source}, line {reader.line_num}: not comma-separated text ({error}); correct it."
        ) from error


def _text(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
