"""Phrase files (`<image> <expression>` per line: RefSegRS, RISBench) for the audit, read line by line."""

from collections.abc import Mapping
from pathlib import Path

from s4eca.data.audit.findings import Finding, Severity, on_names
from s4eca.data.audit.records import Record
from s4eca.data.masks import FileMask
from s4eca.data.readers import refsegrs
from s4eca.data.readers.checks import unique_ids
from s4eca.data.readers.phrases import Layout


def read_refsegrs(layouts: Mapping[str, Layout]) -> tuple[list[Record], list[Finding]]:
    """Reads the phrase files of all splits; a line that is not UTF-8 does not end it.

    Args:
        layouts: where the parts of each split are.
    """
    records: list[Record] = []
    findings: list[Finding] = []
    for split, layout in layouts.items():
        lines, more = _lines(layout.phrases)
        findings += more
        for id, expression in lines:
            image, mask = layout.images / f"{id}.tif", FileMask(layout.masks / f"{id}.tif", id=id)
            records.append(Record(id, split, expression, refsegrs.category_of(expression), image, mask))
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
        names = [name.removeprefix("<").removesuffix(">") for name, _ in lines]
        good = [bool(Path(name).suffix) and Path(name).name == name for name in names]
        text = f"lines of {layout.phrases.name} that do not begin with the name of an image file, left out here"
        bad = [name for name, fine in zip(names, good, strict=True) if not fine]
        findings += more + on_names(Severity.ERROR, "bad-entry", text, bad)
        named = [(name, line[1]) for name, line, fine in zip(names, lines, good, strict=True) if fine]
        ids = unique_ids([Path(name).stem for name, _ in named])
        for id, (name, expression) in zip(ids, named, strict=True):
            mask = FileMask(layout.masks / name, id=id)
            records.append(Record(id, split, expression, None, layout.images / name, mask))
    return records, findings


def _lines(path: Path) -> tuple[list[tuple[str, str]], list[Finding]]:
    """Returns the first word and the rest of every line that is not blank, and which lines are no text."""
    try:
        raw_lines = path.read_bytes().split(b"\n")
    except OSError as error:
        text = f"annotation files that cannot be read ({error.strerror})"
        return [], on_names(Severity.ERROR, "unreadable-file", text, [path.name])
    lines, undecodable = [], []
    for number, raw in enumerate(raw_lines, start=1):
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            undecodable.append(f"line {number}")
            continue
        if line:
            name, _, expression = line.partition(" ")
            lines.append((name, expression.strip()))
    text = f"lines of {path.name} that are not UTF-8 text, which are left out here"
    return lines, on_names(Severity.ERROR, "bad-entry", text, undecodable)
