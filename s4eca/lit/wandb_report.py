"""An evaluation in W&B: what `report.html` shows, as tables, images, one artifact and entries of the run's summary."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger

from s4eca.evaluation.about import FOR_PROGRAMS, is_shuffled, name_backbones, stated_backbones
from s4eca.evaluation.metrics import INTERSECTION, UNION
from s4eca.evaluation.page.panels import Panel
from s4eca.evaluation.protocols import PROTOCOLS
from s4eca.evaluation.results import Evaluation

_LABELS = {0: "rest", 1: "target"}
_NAME_LENGTH = 128  # the longest name of an artifact


def send_evaluation(
    logger: WandbLogger,
    evaluation: Evaluation,
    summary: Mapping[str, Any],
    panels: Sequence[Panel],
    files: Sequence[Path],
) -> None:
    """Sends an evaluation to the logger's run; with several processes called by the first alone.

    Everything stands under `DATASET/SPLIT/`, or `DATASET/SPLIT_shuffled/`: the tables `protocols`, `categories`,
    `kinds` (where there are some), `sizes` and `samples`, the images `best`, `median` and `worst` with truth and
    prediction as overlays, and in the run's summary `PROTOCOL/SCORE`, fractions, and the names of the `backbones`. The
    files are one artifact of type `evaluation`, whose metadata say what made the numbers. Where there are more samples
    than W&B shows in a run's table (10,000), the table is in the artifact instead.

    Args:
        logger: whose run gets it.
        evaluation: rows and samples.
        summary: content of `metrics.json`; NaN or None for what has no value.
        panels: chosen samples.
        files: files and folders for the artifact, each under its own name.
    """
    import wandb

    run = logger.experiment
    about = evaluation.about
    place = f"{about.get('dataset', 'data')}/{about.get('split', 'split')}{'_shuffled' if is_shuffled(about) else ''}"
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"evaluation-{run.id}-{place}")[:_NAME_LENGTH]
    shown = {key: value for key, value in about.items() if key not in FOR_PROGRAMS}
    artifact = wandb.Artifact(name, type="evaluation", metadata=shown)

    tables = {
        "protocols": wandb.Table(*_protocols(summary)),
        "categories": wandb.Table(*_groups({"category": summary["categories"]})),
        **({"kinds": wandb.Table(*_groups({"kind": summary["kinds"]}))} if "kinds" in summary else {}),
        "sizes": wandb.Table(*_groups(summary["sizes"])),
        "samples": wandb.Table(*_samples(evaluation)),
    }
    if len(evaluation.samples) > wandb.Table.MAX_ROWS:
        artifact.add(tables.pop("samples"), "samples")
    content: dict[str, Any] = {f"{place}/{title}": table for title, table in tables.items()}
    for panel in panels:
        content.setdefault(f"{place}/{panel.choice.group}", []).append(_image(panel))
    run.log(content)
    for protocol, scores in summary["protocols"].items():
        for score, value in scores.items():
            if (known := _known(value)) is not None:
                run.summary[f"{place}/{protocol}/{score}"] = known

    if stated_backbones(about):
        run.summary[f"{place}/backbones"] = name_backbones(about)

    for path in files:
        if path.is_dir():
            artifact.add_dir(str(path), name=path.name)
        else:
            artifact.add_file(str(path), name=path.name)
    run.log_artifact(artifact)


def _image(panel: Panel) -> Any:
    import wandb

    choice = panel.choice
    masks = {
        name: {"mask_data": mask.astype(np.uint8), "class_labels": _LABELS}
        for name, mask in (("truth", panel.truth), ("prediction", panel.prediction))
    }
    facts = [f"IoU {choice.iou * 100:.2f} % ({choice.protocol})", choice.sample.id, choice.sample.category]
    caption = f"{choice.sample.expression} | {', '.join(fact for fact in facts if fact is not None)}"
    return wandb.Image(panel.image, caption=caption, masks=masks)


def _protocols(summary: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Returns columns and lines: a line per protocol, and after each score with an interval its two ends."""
    scores = summary["protocols"]
    bounds = (summary.get("intervals") or {}).get("protocols") or {}
    columns, cells = ["protocol"], [[protocol] for protocol in scores]
    for name in dict.fromkeys(name for values in scores.values() for name in values):
        columns.append(name)
        with_bounds = any(name in bounds.get(protocol, {}) for protocol in scores)
        columns += [f"{name} low", f"{name} high"] if with_bounds else []
        for line, (protocol, values) in zip(cells, scores.items(), strict=True):
            line.append(_known(values.get(name)))
            if with_bounds:
                line += [_known(end) for end in bounds.get(protocol, {}).get(name, (None, None))]
    return columns, cells


def _groups(groups: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]) -> tuple[list[str], list[list[Any]]]:
    """Returns columns and lines: a line per protocol, way of grouping and group of samples."""
    lines = [
        (protocol, kind, group, values)
        for kind, by_protocol in groups.items()
        for protocol, by_group in by_protocol.items()
        for group, values in by_group.items()
    ]
    names = list(dict.fromkeys(name for *_, values in lines for name in values))
    rows = [
        [protocol, kind, group, *(_known(values.get(name)) for name in names)]
        for protocol, kind, group, values in lines
    ]
    return ["protocol", "by", "group", *names], rows


def _samples(evaluation: Evaluation) -> tuple[list[str], list[list[Any]]]:
    """Returns columns and lines: a line per sample, with its IoU under each protocol."""
    ious = {
        protocol: PROTOCOLS[protocol].iou(rows[:, INTERSECTION], rows[:, UNION]).tolist()
        for protocol, rows in evaluation.rows.items()
    }
    lines = [
        [
            item.id,
            item.image,
            item.expression,
            item.category,
            item.no_target,
            item.area,
            item.kind,
            *(iou[i] for iou in ious.values()),
        ]
        for i, item in enumerate(evaluation.samples)
    ]
    columns = ["id", "image", "expression", "category", "no_target", "area", "kind"]
    return [*columns, *(f"{protocol}/IoU" for protocol in ious)], lines


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
