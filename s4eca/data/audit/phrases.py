"""Phrase files (`<image> <expression>` per line: RefSegRS, RISBench) for the audit, read line by line."""

from collections.abc import Mapping
from pathlib import Path

from s4eca.data.audit.encoding import text_lines
from s4eca.data.audit.findings import Finding, Severity, on_names
from s4eca.data.audit.records import Record
from s4eca.data.masks import FileMask
from s4eca.data.readers import refsegrs, risbench
from s4eca.data.readers.checks import unique_ids
from s4eca.data.readers.names import ImageFolder, below
from s4eca.data.readers.phrases import Layout, split_phrase


def read_refsegrs(layouts: Mapping[str, Layout]) -> tuple[list[Record], list[Finding]]:
    """Reads the phrase files of all splits; a line that is not UTF-8 does not end it.

    Args:
        layouts: where the parts of each split are.
    """
    records: list[Record] = []
    findings: list[Finding] = []
    for split, layout in layouts.items():
        lines, more = _lines(layout.phrases)
        images, masks = ImageFolder(layout.images), ImageFolder(layout.masks)
        placed = [(name, expression, *refsegrs.place(name, images, masks)) for name, expression in lines]
        joined = [name for name, _, _, image, _ in placed if layout.images.is_dir() and refsegrs.goes_on(name, image)]
        text = f"lines of {layout.phrases.name} with neither blank nor tab behind the id, left out here"
        findings += more + on_names(Severity.ERROR, "bad-entry", text, joined)
        records += [
            Record(id, split, expression, refsegrs.category_of(expression), image, FileMask(mask, id=id))
            for name, expression, id, image, mask in placed
            if name not in joined
        ]
    return records, findings


def read_risbench(layouts: Mapping[str, Layout]) -> tuple[list[Record], list[Finding]]:
    """Reads the phrase files of all splits; a line that is not UTF-8 or names no file does not end it.

    Args:
        layouts: where the parts of each split are.
    """
    records: list[Record] = []
    findings: list[Finding] = []
    for split, layout in layouts.items():
        lines, more = _lines(layout.phrases)
        text = f"lines of {layout.phrases.name} that do not begin with the name of an image file, left out here"
        bad = [name for name, _ in lines if not risbench.is_file_name(name)]
        findings += more + on_names(Severity.ERROR, "bad-entry", text, bad)
        named = [line for line in lines if risbench.is_file_name(line[0])]
        images, masks = ImageFolder(layout.images), ImageFolder(layout.masks)
        ids = unique_ids([Path(below(name)).stem for name, _ in named])
        for id, (name, expression) in zip(ids, named, strict=True):
            mask = FileMask(masks.file(name), id=id)
            records.append(Record(id, split, expression, None, images.file(name), mask))
    return records, findings


def _lines(path: Path) -> tuple[list[tuple[str, str]], list[Finding]]:
    """Returns the name and the expression of every line that is not blank, and which lines cannot be read."""
    lines, findings = text_lines(path)
    phrases = [(number, *split_phrase(line)) for number, line in lines]
    text = f"lines of {path.name} without a name, left out here"
    nameless = [f"line {number}" for number, name, _ in phrases if not name]
    findings += on_names(Severity.ERROR, "bad-entry", text, nameless)
    return [(name, expression) for _, name, expression in phrases if name], findings
