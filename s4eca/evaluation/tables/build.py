"""Runs beside published results: one table per dataset and split, sorted, with notes on every mark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from s4eca.errors import S4ecaError
from s4eca.evaluation.about import UNSTATED, is_shuffled, name_backbones, name_weights, stated_backbones
from s4eca.evaluation.tables.cost import COSTS, cost_notes
from s4eca.evaluation.tables.published import SCORES, SPLIT_SIZES, UNKNOWN, PublishedResult
from s4eca.evaluation.tables.rates import rate_notes, shows_rates
from s4eca.evaluation.tables.rows import MARKS, Row, published_row, run_row
from s4eca.evaluation.tables.runs import Run, group_runs

PROTOCOLS = {
    "lavt": "masks are compared at the network's input size, a hit is IoU ≥ t, an empty union counts as IoU 0",
    "original": "masks are compared at the image's size, a hit is IoU ≥ t, an empty union counts as IoU 0",
    "detris": "probabilities > 0.35 are compared at the image's size, IoU is I / (U + 1e-6), a hit is IoU > t",
}
"""What notes say of the protocols of `s4eca.evaluation.protocols`."""

RELEASED = "Published rows without † and ‡ follow it, by what their released code does."

_NEWER = ("placement", "grad_checkpointing")  # evaluations made before these were written down lack them
_TELLING = (
    *("tuning", *_NEWER, "checkpoint", "expressions", "image_size", "precision", "trained_on", "recipe", "seed"),
)

TITLES = {"rrsis_d": "RRSIS-D", "refsegrs": "RefSegRS", "risbench": "RISBench", "ris_lad": "RIS-LAD"}


@dataclass(frozen=True)
class Table:
    """Results on one split of one dataset under one protocol.

    Attributes:
        dataset: its name as in `data=…`.
        split: `train`, `val` or `test`.
        protocol: key of `PROTOCOLS`.
        rows: in the order shown.
        notes: (symbol or empty, text).
        costs: keys of `s4eca.evaluation.tables.cost.COSTS` to show, none for a table of scores alone.
        scores: the scores to show.
        rates: show the runs' learning rates.
    """

    dataset: str
    split: str
    protocol: str
    rows: Sequence[Row]
    notes: Sequence[tuple[str, str]]
    costs: Sequence[str] = ()
    scores: Sequence[str] = SCORES
    rates: bool = False

    @property
    def title(self) -> str:
        """Dataset, split and protocol, as a heading."""
        unit = "cost, and scores in percent" if self.costs else "in percent"
        return f"{self.place}, {unit}"

    @property
    def place(self) -> str:
        """Dataset, split and protocol."""
        return f"{TITLES.get(self.dataset, self.dataset)} {self.split}, protocol {self.protocol}"


def build_tables(
    runs: Sequence[Run],
    published: Sequence[PublishedResult],
    protocol: str = "lavt",
    sort: str = "mIoU",
    group: bool = True,
    cost: bool = False,
) -> list[Table]:
    """Returns one table per dataset and split of the runs, in the order of their first run.

    Args:
        runs: at least one.
        published: results to put beside them; those of other datasets and splits are left out.
        protocol: `lavt`, `original` or `detris`.
        sort: score to order by, best first, rows without it last.
        group: show runs that differ by their seed alone as mean and sample deviation.
        cost: show budget, memory and time beside mIoU, oIoU and the score of `sort`, in place of the other scores.

    Raises:
        S4ecaError: an unknown protocol or score, or a run that was not evaluated under the protocol.
    """
    if protocol not in PROTOCOLS:
        raise S4ecaError(f"There is no protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}.")
    if sort not in SCORES:
        raise S4ecaError(f"Rows cannot be sorted by {sort!r}: choose one of {', '.join(SCORES)}.")
    for run in runs:
        if protocol not in run.protocols:
            raise S4ecaError(
                f"{run.path} has no scores of the protocol {protocol}, only of {', '.join(run.protocols)}: choose"
                " another one with --protocol or leave it out."
            )
    tables = []
    for dataset, split in dict.fromkeys((run.dataset, run.split) for run in runs):
        here = [run for run in runs if (run.dataset, run.split) == (dataset, split)]
        groups, apart = group_runs(here, protocol) if group else ([[run] for run in here], [])
        labels = _labels(groups)
        beside = [result for result in published if (result.dataset, result.split) == (dataset, split)]
        rows = [run_row(label, members, protocol) for label, members in zip(labels, groups, strict=True)]
        rows += [published_row(result, protocol) for result in beside]
        rows.sort(key=lambda row: -_value(row, sort))
        notes = [*_run_notes(labels, groups, protocol), *apart]
        rates = shows_rates([run.about for run in here])
        if rates:
            notes += rate_notes(labels, [members[0].about for members in groups])
        if cost:
            notes += cost_notes(labels, [[run.about for run in members] for members in groups])
        elif not beside:
            notes.append("No published results stand beside the runs.")
        tables.append(
            Table(
                dataset,
                split,
                protocol,
                rows,
                [
                    *(("", note) for note in notes),
                    ("", f"Protocol {protocol}: {PROTOCOLS[protocol]}."),
                    *([("", RELEASED)] if any(_follows(row) for row in rows) else []),
                    *_mark_notes(rows, SPLIT_SIZES.get((dataset, split))),
                    *(("", note) for note in _published_notes(beside)),
                ],
                # no GPU, no peak
                [key for key in COSTS if key != "peak" or any(row.costs.get("peak") for row in rows)] if cost else (),
                tuple(dict.fromkeys((sort, "mIoU", "oIoU"))) if cost else SCORES,
                rates,
            )
        )
    return tables


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Names the groups; where several have one name, what tells them apart is added, at last the path."""
    labels = []
    for members in groups:
        run = members[0]
        others = [other[0] for other in groups if other[0] is not run and other[0].name == run.name]
        parts = _backbones_apart(run, others)
        for entry in _TELLING:
            value = _entry(run, entry)
            # a shared folder has no cost.json, which is no other setting
            lacking = (None,) if entry == "grad_checkpointing" else ()
            if all(_entry(other, entry) in (value, *lacking) for other in others):
                continue
            if any(_entry(member, entry) != value for member in members):  # what seeds of one training may differ in
                continue
            if value is None and entry != "seed":  # written before this entry was
                continue
            if entry == "expressions":
                parts += ["shuffled"] if is_shuffled(run.about) else []
            else:
                parts.append(f"{entry} {value}" if entry in ("seed", "recipe", "grad_checkpointing") else str(value))
        label = f"{run.name} ({', '.join(parts)})" if parts else run.name
        labels.append(label)
    return [
        label if labels.count(label) == 1 else f"{label} [{members[0].path}]"
        for label, members in zip(labels, groups, strict=True)
    ]


def _backbones_apart(run: Run, others: Sequence[Run]) -> list[str]:
    """Names the backbones that other runs of the name do not have, with their hashes where that tells no more."""
    mine, parts = stated_backbones(run.about), []
    if not mine and any(stated_backbones(other.about) for other in others):
        return [UNSTATED]
    for role, base in mine.items():
        theirs = [other for run in others if (other := stated_backbones(run.about).get(role)) is not None]
        unlike = [other for other in theirs if any(other.get(key) != base.get(key) for key in ("name", "sha256"))]
        if any(other["name"] == base["name"] for other in unlike):
            weights = name_weights(base)
            alike = any(name_weights(other) == weights for other in unlike)
            parts.append(f"{weights} {str(base.get('sha256'))[:12]}" if alike else weights)
        elif unlike:
            parts.append(str(base["name"]))
    return parts


def _entry(run: Run, entry: str) -> Any:
    place = run.about.get("cost") or {} if entry == "grad_checkpointing" else run.about
    return place.get(entry)


def _run_notes(labels: Sequence[str], groups: Sequence[Sequence[Run]], protocol: str) -> list[str]:
    """Says what the runs' numbers are; runs of which the same is to be said are named together."""
    named, backbones = {}, {}  # type: dict[str, list[str]], dict[str, list[str]]
    for label, members in zip(labels, groups, strict=True):
        named.setdefault(_describe(members, protocol), []).append(label)
        backbones.setdefault(name_backbones(members[0].about), []).append(label)
    everywhere = len(backbones) == 1 and len(groups) > 1
    listed = "; ".join(
        f"{'all runs' if everywhere else ', '.join(alike)}: {names}" for names, alike in backbones.items()
    )
    several = {_describe(members, protocol) for members in groups if len(members) > 1}
    notes = [
        f"{'Runs' if len(alike) > 1 or text in several else 'Run'} {', '.join(alike)}: {text}."
        for text, alike in named.items()
    ]
    return [*notes, f"Backbones. {listed}."]


def _describe(runs: Sequence[Run], protocol: str) -> str:
    values, about = runs[0].protocols[protocol], runs[0].about
    counts = [f"n = {values['n']:,}"]
    if "n_empty" in values:
        counts[0] += f" ({values['n_empty']:,} with empty truth)"
    if values.get("n_no_target"):
        counts.append(f"{values['n_no_target']:,} without target on purpose")
    size = about.get("image_size")
    counts.append("input size not recorded" if size is None else f"input {size} px")
    if len(runs) > 1:
        counts.append("mean ± sample deviation over seeds " + ", ".join(str(run.about["seed"]) for run in runs))
    elif about.get("seed") is not None:
        counts.append(f"seed {about['seed']}")
    return f"protocol {protocol}, {', '.join(counts)}"


def _mark_notes(rows: Sequence[Row], size: int | None) -> list[tuple[str, str]]:
    """Explains the marks that occur; rows of which the same is to be said are named together."""
    notes = []
    for key, (symbol, meaning) in MARKS.items():
        named: dict[str, list[str]] = {}
        for row in rows:
            if key in row.marks:
                named.setdefault(row.marks[key], []).append(row.label)
        if not named:
            continue
        if key == "other-samples" and size is not None:
            meaning += f" ({size:,})"
        details = "; ".join(
            f"{', '.join(dict.fromkeys(labels))}: {detail}" for detail, labels in named.items() if detail
        )
        notes.append((symbol, f"{meaning}. {details}." if details else f"{meaning}."))
    return notes


def _published_notes(results: Sequence[PublishedResult]) -> list[str]:
    silent = sum(result.selection == UNKNOWN for result in results)
    notes = []
    if silent:
        notes.append(
            f"For {silent} of the {len(results)} published rows it is not known on which split the checkpoint was"
            " chosen."
        )
    remarks = [f"{result.method}: {result.remark}." for result in results if result.remark]
    return notes + ([f"Remarks. {' '.join(remarks)}"] if remarks else [])


def _follows(row: Row) -> bool:
    return not row.own and not {"unknown-protocol", "other-protocol"} & set(row.marks)


def _value(row: Row, sort: str) -> float:
    score = row.scores[sort]
    return -math.inf if score is None else score[0]
