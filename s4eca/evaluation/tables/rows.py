"""Rows of a comparison table, and the marks on what makes two of them hard to compare."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from s4eca.evaluation.about import approximated, is_shuffled, name_backbones
from s4eca.evaluation.seeds import over_seeds
from s4eca.evaluation.tables.cost import find_settings, spread_costs
from s4eca.evaluation.tables.published import SCORES, SPLIT_SIZES, UNKNOWN, PublishedResult
from s4eca.evaluation.tables.rates import find_choice, find_rate
from s4eca.evaluation.tables.runs import Run

LAVT_SIZE = 480
"""Input size in pixels that the published numbers of the LAVT lineage were compared at."""

MARKS = {
    "unknown-protocol": ("†", "protocol not known, so not known to be comparable"),
    "other-protocol": ("‡", "another protocol"),
    "selected-on-test": ("§", "checkpoint chosen on the test split"),
    "other-samples": ("¶", "scored on another number of samples than the split has"),
    "third-party": ("‖", "re-run by others than the authors"),
    "zero-shot": ("○", "not trained on this dataset"),
    "other-input-size": ("◇", f"the input is not {LAVT_SIZE} px wide"),
    "other-training-data": ("▽", "trained on other data, or on more"),
    "shuffled": ("△", "expressions shuffled between the images"),
}
"""Symbol and meaning of every mark; a symbol means the same in all tables."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: what the first column shows.
        own: a run, not a published result.
        scores: percent by score: (mean, deviation), the deviation None for one run; None where there is no value.
        marks: keys of `MARKS` with what to say of this row there, empty where the mark says it all.
        source: where a published result was reported; the number of seeds, or `run`, for a run.
        fields: further columns of the CSV form.
        costs: as `s4eca.evaluation.tables.cost.spread_costs` returns them; nothing for a published result.
        measured: device, precision and batch size that memory and time belong to; empty where they were not measured.
        rate: the learning rate, empty where it is not recorded.
        candidates: the rates that it was chosen from on val, separated by blanks.
    """

    label: str
    own: bool
    scores: Mapping[str, tuple[float, float | None] | None]
    marks: Mapping[str, str]
    source: str
    fields: Mapping[str, str]
    costs: Mapping[str, tuple[float, float | None] | None] = field(default_factory=dict)
    measured: str = ""
    rate: str = ""
    candidates: str = ""

    @property
    def symbols(self) -> str:
        """The marks' symbols, in the order of `MARKS`."""
        return "".join(symbol for key, (symbol, _) in MARKS.items() if key in self.marks)


def run_row(label: str, runs: Sequence[Run], protocol: str) -> Row:
    """Returns the row of a run, or of runs that differ by their seed alone."""
    about, values = runs[0].about, runs[0].protocols[protocol]
    scores: dict[str, tuple[float, float | None] | None] = {}
    for name, (mean, deviation, _) in _spread(runs, protocol).items():
        scores[name] = None if math.isnan(mean) else (100 * mean, None if math.isnan(deviation) else 100 * deviation)
    seeds = ["none" if run.about.get("seed") is None else str(run.about["seed"]) for run in runs]
    size, image_size = SPLIT_SIZES.get((runs[0].dataset, runs[0].split)), about.get("image_size")
    marks = {}
    instead = approximated(runs[0].about, protocol)
    if instead:
        marks["other-protocol"] = instead
    if size is not None and values["n"] != size:
        marks["other-samples"] = f"{values['n']:,}"
    if protocol == "lavt" and image_size not in (None, LAVT_SIZE):
        marks["other-input-size"] = f"{image_size} px"
    trained_on = _trained_elsewhere(runs[0])
    if trained_on:
        marks["other-training-data"] = trained_on
    if is_shuffled(runs[0].about):
        marks["shuffled"] = ""
    return Row(
        label=label,
        own=True,
        scores=scores,
        marks=marks,
        source=f"{len(runs)} seeds" if len(runs) > 1 else "run",
        fields={
            "protocol": protocol,
            "n_seeds": str(len(runs)),
            "seeds": " ".join(seeds),
            "samples": str(values["n"]),
            "n_empty": str(values.get("n_empty", "")),
            "input_size": "" if image_size is None else str(image_size),
            "selection": str(about.get("selected_by") or UNKNOWN).partition("/")[0],
            "source": " ".join(str(run.path) for run in runs),
            "backbones": name_backbones(about),
        },
        costs=spread_costs([run.about for run in runs]),
        measured="; ".join(find_settings([run.about for run in runs])),
        rate=find_rate(about),
        candidates=" ".join((find_choice(about) or {"val": ()})["val"]),
    )


def _spread(runs: Sequence[Run], protocol: str) -> dict[str, tuple[float, float, int]]:
    chosen = [
        {"about": run.about, "protocols": {protocol: {key: run.protocols[protocol].get(key) for key in (*SCORES, "n")}}}
        for run in runs
    ]
    return over_seeds(chosen)[protocol]


def published_row(result: PublishedResult, protocol: str) -> Row:
    """Returns the row of a published result, marked where it differs from the protocol or may do so."""
    size = SPLIT_SIZES.get((result.dataset, result.split))
    marks = {}
    if result.protocol == UNKNOWN:
        marks["unknown-protocol"] = ""
    elif result.protocol != protocol:
        marks["other-protocol"] = result.protocol
    if result.selection == "test":
        marks["selected-on-test"] = ""
    if None not in (size, result.samples) and result.samples != size:
        marks["other-samples"] = f"{result.samples:,}"
    if result.training == "third-party re-run":
        marks["third-party"] = ""
    if result.training == "zero-shot":
        marks["zero-shot"] = ""
    if protocol == "lavt" and result.input_size not in (None, LAVT_SIZE):
        marks["other-input-size"] = f"{result.input_size} px"
    return Row(
        label=result.method,
        own=False,
        scores={name: None if value is None else (value, None) for name, value in result.scores.items()},
        marks=marks,
        source=result.reported_in,
        fields={
            "protocol": result.protocol,
            "samples": "" if result.samples is None else str(result.samples),
            "input_size": "" if result.input_size is None else str(result.input_size),
            "selection": result.selection,
            "training": result.training,
            "source": result.reported_in,
            "remark": result.remark,
        },
    )


def _trained_elsewhere(run: Run) -> str | None:
    """Returns the name of the data that a run was trained on where it is known to be other than the evaluated."""
    name = run.about.get("trained_on")
    return str(name) if name not in (None, run.dataset) else None
