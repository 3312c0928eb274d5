"""The phrase files of RefSegRS and RISBench: a name and an expression on every line."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s4eca.data.masks import FileMask
from s4eca.data.readers.checks import check_count, check_files, check_unique
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError
from s4eca.text import byte_lines, decode, unmark

_FORBIDDEN = set('/\\<>:"|?*\0\ufeff')
_NOT_ONE_LINE = set("\n\r\0\ufeff")


@dataclass(frozen=True)
class Layout:
    """The three places one split is read from; a mask has the name of its image."""

    images: Path
    masks: Path
    phrases: Path


def read_phrases(path: Path) -> list[tuple[int, str, str]]:
    """Returns number (from 1), name and expression of every line that is not blank, see `split_phrase`.

    Raises:
        S4ecaError: the file is no UTF-8 text, or a line has no name or no expression.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise S4ecaError(f"{path} cannot be read ({error.strerror}): make it readable.") from error
    decode(content, path)
    phrases = []
    for number, _, raw in byte_lines([content]):
        line = unmark(raw.decode("utf-8")).strip()
        if not line:
            continue
        name, expression = split_phrase(line)
        if not name or not expression:
            lacking = "expression" if name else "name"
            raise S4ecaError(f"Line {number} of {path} has no {lacking} ({line!r}): complete or remove it.")
        phrases.append((number, name, expression))
    return phrases


def split_phrase(line: str) -> tuple[str, str]:
    r"""Returns the name that a line begins with and its expression, either of them empty where there is none.

    The name ends at any white space (blanks, tabs, full-width and no-break blanks) or stands in angle brackets.

    >>> split_phrase("<7.png> the red roof")
    ('7.png', 'the red roof')
    >>> split_phrase("7\tthe red roof")
    ('7', 'the red roof')
    """
    line = line.strip()
    bracketed = re.match("<([^<>]+)>", line)
    if bracketed:
        return bracketed[1].strip(), line[bracketed.end() :].strip()
    name, expression = [*line.split(maxsplit=1), "", ""][:2]
    return name.removeprefix("<").removesuffix(">"), expression


def check_references(
    references: Sequence[Reference],
    layout: Layout,
    name: str,
    split: str,
    expected: Mapping[str, int],
    strict_counts: bool,
    need_files: bool,
) -> None:
    """Checks what was read of a split: ids, files where they are needed, and the number of references.

    Raises:
        S4ecaError: an id occurs twice, files are missing, or the split is empty or, if strict, of another size.
    """
    check_unique(references, layout.phrases)
    if need_files:
        check_files(references, [reference.image for reference in references])
        check_files(references, [item.mask.path for item in references if isinstance(item.mask, FileMask)])
    check_count(name, split, len(references), expected, strict_counts)


def check_phrases(references: Mapping[str, Iterable[Reference]], title: str) -> None:
    """Checks that phrase files and files named by id can hold the references of several splits.

    Raises:
        S4ecaError: one has no target, a kind or no expression, its expression goes over a line, or its id is no file
            name or occurs in two splits.
    """
    seen: dict[str, str] = {}
    for split, items in references.items():
        for item in items:
            where = f"{title} cannot hold reference {item.id!r} of the {split} split"
            if item.no_target:
                raise S4ecaError(f"{where}, which is marked as having no target: convert to jsonl or rrsis_d.")
            if item.kind is not None:
                raise S4ecaError(
                    f"{where}, whose expression is said to be of kind {item.kind!r}: convert to jsonl or refer."
                )
            if (
                not item.expression
                or item.expression != item.expression.strip()
                or set(item.expression) & _NOT_ONE_LINE
            ):
                raise S4ecaError(
                    f"{where}, whose expression {item.expression!r} is not one line of text: convert to jsonl."
                )
            if not item.id.strip(".") or item.id.split() != [item.id] or set(item.id) & _FORBIDDEN:
                raise S4ecaError(f"{where}, because its id has to be a file name without spaces: convert to jsonl.")
            if item.id in seen:
                raise S4ecaError(
                    f"{where}, because the {seen[item.id]} split has the same id and files are named by it:"
                    " convert to jsonl."
                )
            seen[item.id] = split
