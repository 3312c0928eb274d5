"""Lines of annotation files as far as they are text."""

from pathlib import Path

from s4eca.data.audit.findings import Finding, Severity, no_references, on_names
from s4eca.errors import S4ecaError
from s4eca.text import byte_lines, decode, unmark


def text_lines(path: Path) -> tuple[list[tuple[int, str]], list[Finding]]:
    """Returns number and text of every line that is not blank; one that is not UTF-8 is left out and found."""
    try:
        content = path.read_bytes()
    except OSError as error:
        text = f"annotation files that cannot be read ({error.strerror})"
        return [], on_names(Severity.ERROR, "unreadable-file", text, [path.name])
    lines = [(number, unmark(line.decode("utf-8", "replace"))) for number, _, line in byte_lines([content])]
    lines = [(number, line) for number, line in lines if line.strip()]
    try:
        decode(content, path)
    except S4ecaError as error:
        bad = [number for number, line in lines if {"\ufffd", "\0"} & set(line)]
        names = [f"line {number}" for number in bad]
        text = f"{str(error).rstrip('.')} (these lines are left out here)"
        return [line for line in lines if line[0] not in set(bad)], on_names(Severity.ERROR, "bad-entry", text, names)
    return lines, no_references(path, len(lines))
