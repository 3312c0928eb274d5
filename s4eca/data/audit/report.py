"""The audit itself: survey, checks, facts, and the one structure that `--json` writes."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s4eca.data.audit.boxes import check_areas, check_boxes
from s4eca.data.audit.files import check_files
from s4eca.data.audit.findings import Finding, Severity, on_names
from s4eca.data.audit.leakage import check_ids, check_images
from s4eca.data.audit.masks import check_damage, check_sizes, check_targets, image_facts, mask_facts
from s4eca.data.audit.pixels import Progress, measure_images, measure_masks
from s4eca.data.audit.records import Record
from s4eca.data.audit.survey import survey
from s4eca.data.audit.text import (
    category_facts,
    check_expressions,
    check_splits,
    expression_facts,
    split_facts,
    token_facts,
)
from s4eca.data.dataset import Tokenizer
from s4eca.data.masks import FileMask


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        root: the folder or file that was audited.
        layout: name of the layout it was read as.
        facts: see `plain`.
        findings: errors first, then warnings, then notes.
        records: what was looked at, for drawing the samples that findings are about.
    """

    root: Path
    layout: str
    facts: Mapping[str, Any]
    findings: list[Finding]
    records: list[Record]

    @property
    def failed(self) -> bool:
        """Whether there is an error."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def summary(self) -> dict[str, int]:
        """Number of findings by severity."""
        return {severity.value: sum(finding.severity is severity for finding in self.findings) for severity in Severity}

    def plain(self) -> dict[str, Any]:
        """Returns the audit as JSON holds it; what was not measured is null.

        - `root`, `layout`, and `files`: the annotation files that were read;
        - `summary`: number of findings by severity, `{"error", "warning", "note"}`;
        - `splits`: `{SPLIT: {"references", "images", "published"}}`;
        - `categories`: `{NAME: {SPLIT: references}}`;
        - `expressions`: `distinct`, `vocabulary` (lower-cased words), `words` (`mean`, `min`, `max`, `histogram`
          `{length: count}`), `seen_in_train` (`{SPLIT: references}`; null without a train split);
        - `tokens`: null without a tokenizer, else `tokenizer`, `max_tokens`, `tokens` (as `words`, special tokens
          included), `truncated` and `unknown` (`{SPLIT: references}`);
        - `images`: null where none was opened, else `decoded`, `sizes` (`{"width x height": count}`);
        - `masks`: null where none was opened, else `decoded`, `empty`, `tiny`, `tiny_below`, `median_pixels`,
          `min_pixels`, counted per reference;
        - `boxes`: null where there are none, else `boxes`, `convention` (`xywh`, `xyxy` or null), `median_iou`;
        - `areas`: null where there are none, else `areas`, `differing`, `median_ratio` (stored area to pixels);
        - `findings`: `[{"severity", "code", "text", "count", "names"}]`, `names` holding every id or file concerned.
        """
        return {
            "root": str(self.root),
            "layout": self.layout,
            **self.facts,
            "summary": self.summary,
            "findings": [finding.plain() for finding in self.findings],
        }


def audit(
    root: str | Path,
    layout: str | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    tokenizer_name: str = "tokenizer",
    max_tokens: int | None = None,
    pixels: bool = True,
    tiny: int = 32,
    workers: int = 4,
    depth: int = 8,
    progress: Progress | None = None,
) -> Audit:
    """Looks at everything in a dataset that could make a training or a score wrong.

    Args:
        root: the dataset's folder, or a single annotation file.
        layout: name of the layout; None finds out.
        tokenizer: counts tokens; None counts words only.
        tokenizer_name: for the report.
        max_tokens: length of the token rows; None takes what the dataset's data module has.
        pixels: open image and mask files; masks that stand in the annotations are decoded in any case.
        tiny: masks of fewer pixels are reported.
        workers: threads that decode.
        depth: of the images, as `data.depth` in a training.
        progress: told about every file that was decoded.

    Raises:
        S4ecaError: there is nothing at `root` that could be audited. What is wrong inside is a finding.
    """
    surveyed = survey(Path(root), layout)
    records, findings = surveyed.records, list(surveyed.findings)
    splits = split_facts(records, surveyed.published)
    present, more = check_files(records, surveyed.files[0].parent if Path(root).is_file() else Path(root))
    findings += more
    findings += check_splits(records, splits)
    findings += check_expressions(records)
    findings += check_ids(records)
    tokens = None
    if tokenizer is not None:
        tokens, more = token_facts(records, tokenizer, tokenizer_name, max_tokens or surveyed.max_tokens)
        findings += more

    opened = [record.image for i, record in enumerate(records) if pixels and i in present.images]
    sources = [
        record.mask if i in present.masks and (pixels or not isinstance(record.mask, FileMask)) else None
        for i, record in enumerate(records)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about files that become findings
        images = measure_images([path for path in opened if path is not None], workers, progress, depth)
        masks = measure_masks(sources, workers, progress)
    left = {record.image for i, record in enumerate(records) if i in present.images} if not pixels else set()
    text = "image files were not opened, nor mask files: what needs their pixels is not checked"
    findings += on_names(Severity.NOTE, "no-pixels", text, sorted(path.name for path in left if path is not None))
    findings += check_images(records, {path: facts.digest for path, facts in images.items() if facts.digest})
    findings += check_damage(records, images, masks)
    findings += check_sizes(records, images, masks)
    findings += check_targets(records, masks, tiny)
    boxes, more = check_boxes(records, masks)
    findings += more
    areas, more = check_areas(records, masks)
    findings += more

    facts = {
        "files": [str(path) for path in surveyed.files],
        "splits": splits,
        "categories": category_facts(records),
        "expressions": expression_facts(records),
        "tokens": tokens,
        "images": image_facts(images) if images else None,
        "masks": mask_facts(masks, tiny) if any(masks) else None,
        "boxes": boxes,
        "areas": areas,
    }
    order = list(Severity)
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Audit(Path(root), surveyed.layout, facts, findings, records)
