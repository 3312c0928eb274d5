"""Text that people and tools have written: UTF-8, with or without a byte order mark; anything else is named.

A byte order mark (U+FEFF) says nothing inside a text. It is left out wherever it stands, so that it never becomes part
of an id, an expression or a path.
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from s4eca.errors import S4ecaError

MARK = "\ufeff"
_MARK_BYTES = MARK.encode()

# with their names in `iconv`; the mark of UTF-32 begins like that of UTF-16
_MARKS = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_WIDE = ("UTF-16LE", "UTF-16BE")
_EAST_ASIAN = ("BIG5", "SHIFT_JIS", "EUC-KR", "GB18030")
_PICKLE = rb"\x80[\x02-\x05]"
_FOREIGN = (
    (rb"\0\x05\x16[\0\x07]", "a file of macOS about another file", "delete it"),
    (rb"version https://git-lfs", "a Git LFS pointer", "fetch what it stands for with `git lfs pull`"),
    (
        rb"(?:\xef\xbb\xbf)?\s*(?i:<!doctype html|<html[\s>])",
        "an HTML page, which a server has sent instead",
        "download it by another way",
    ),
    (rb"PK\x03\x04", "a ZIP archive", "unpack it"),
    (rb"\x1f\x8b", "a gzip archive", "unpack it"),
)


def unmark(text: str) -> str:
    """Returns a text without byte order marks."""
    return text.replace(MARK, "")


def unmark_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row whose texts are without byte order marks; what lies deeper stays as it is."""
    return {key: unmark(value) if isinstance(value, str) else value for key, value in row.items()}


def read_text(path: Path) -> str:
    """Returns a text file without byte order marks; line ends stay as they are.

    Raises:
        OSError: it cannot be read.
        S4ecaError: it is not UTF-8; see `decode`.
    """
    return unmark(decode(path.read_bytes(), path))


def read_json(path: Path, **options: Any) -> Any:
    """Returns what a JSON file holds; `options` are those of `json.loads`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON.
        S4ecaError: it is not UTF-8; see `decode`.
    """
    return json.loads(read_text(path), **options)


def byte_lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Yields number (from 1), offset in bytes and content of every line that is not blank.

    Lines end as on Linux, Windows or old Macs; a byte order mark before a line belongs to none.

    Args:
        chunks: a file opened in binary mode, or a file's content in pieces that end where lines do.
    """
    number = offset = 0
    for chunk in chunks:
        for line in chunk.splitlines(keepends=True):
            number += 1
            content = line.removeprefix(_MARK_BYTES)
            if content.strip():
                yield number, offset + len(line) - len(content), content
            offset += len(line)


def decode(content: bytes, path: Path) -> str:
    """Returns a file's text as it is, byte order marks included, so that places in it can be counted.

    Raises:
        S4ecaError: it is another kind of file, or not UTF-8. The message names the file, the line, what the encoding
            probably is, and how to convert it.
    """
    kind = foreign(content)
    if re.match(_PICKLE, content):
        kind = "a pickle of Python", "give it a name that ends in .p"
    if kind:
        raise S4ecaError(f"{path} cannot be read as text, because it is {kind[0]}: {kind[1]}.")
    try:
        text = content.decode("utf-8")
        if "\0" not in text:
            return text
        place = content.index(0)
    except UnicodeDecodeError as error:
        place = error.start
    line = len(re.findall(rb"\r\n|\r|\n", content[:place])) + 1
    encoding = guess_encoding(content)
    if encoding is None:
        raise S4ecaError(
            f"{path} cannot be read as text, because line {line} is not UTF-8 text but has"
            f" the byte {content[place]:#04x}: mend the line, or take the file from its source again."
        )
    names = shlex.quote(str(path)), shlex.quote(f"{path}.utf8")
    raise S4ecaError(
        f"{path} cannot be read as text, because it is not UTF-8 but probably {encoding} (line {line}): convert it with"
        f" `iconv -f {encoding} -t UTF-8 {names[0]} > {names[1]}` and put the result in its place."
    )


def guess_encoding(content: bytes) -> str | None:
    """Returns what a text that is not UTF-8 is probably encoded in, by the name that `iconv` has for it.

    UTF-16 and UTF-32 are known by their mark, UTF-16 without one by its zero bytes, GBK by common Chinese characters,
    Western European text by few letters between those of ASCII. The rest is tried in turn.

    Returns:
        None for UTF-8 with damage in it, for what is no text, and where nothing fits.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark) and _reads_as(content, encoding):
            return encoding
    if b"\0" in content:
        if content.count(0) < len(content) / 10:  # a few of them are damage
            return None
        return next((encoding for encoding in _WIDE if _reads_as(content, encoding)), None)
    lenient = content.decode("utf-8", "replace")
    damaged = lenient.count("\ufffd")
    if sum(not character.isascii() for character in lenient) > 2 * damaged:
        return None
    if _reads_as(content, "gb2312"):
        return "GBK"
    letters, others = len(re.findall(rb"[A-Za-z]", content)), len(re.findall(rb"[\x80-\xff]", content))
    if others < letters / 4 and _reads_as(content, "windows-1252"):
        return "WINDOWS-1252"
    return next((encoding for encoding in _EAST_ASIAN if _reads_as(content, encoding)), None)


def foreign(content: bytes) -> tuple[str, str] | None:
    """Returns what a file is that should hold something else, and what to do; None where that is not plain."""
    return next(((what, remedy) for pattern, what, remedy in _FOREIGN if re.match(pattern, content)), None)


def _reads_as(content: bytes, encoding: str) -> bool:
    """Whether bytes are printable text in an encoding."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n\u3000\xa0" for character in text)
