"""Reading a large JSON file element by element, so that only what is kept of it stays in memory."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s4eca.text import MARK, decode

_skip_space = re.compile(r"[ \t\n\r]*").match
_decode = json.JSONDecoder().raw_decode


class JsonMembers:
    """The members of a JSON object whose values are long lists, such as COCO's `instances.json`.

    Iterating yields (key, elements): the elements of a list one at a time, any other value as a single element. What
    has not been asked for is passed over, so `elements` has to be used before the next key.

    `json.load` would build the whole tree first. Of RRSIS-D's that takes 70 MB, which do not all go back to the system
    afterwards, because what is kept lies scattered over them.

    Args:
        path: the file, in UTF-8 with or without a byte order mark.

    Attributes:
        span: offset and length of the latest element, in bytes of the file.

    Raises:
        OSError: the file cannot be read.
        S4ecaError: it is not UTF-8.
        ValueError: it holds no JSON object; raised while iterating where it ends or is damaged further on.
    """

    def __init__(self, path: Path) -> None:
        self._text = decode(path.read_bytes(), path)
        self._plain = self._text.isascii()
        self._start = int(self._text.startswith(MARK))
        self._at = self._start
        self._counted = (0, 0)
        self.span = (0, 0)

    def __iter__(self) -> Iterator[tuple[str, Iterator[Any]]]:
        self._at, self._counted = self._start, (0, 0)
        self._expect("{")
        closed = self._take("}")
        while not closed:
            key = self._value()
            self._expect(":")
            elements = self._elements() if self._take("[") else iter([self._value()])
            yield key, elements
            for _ in elements:
                pass
            closed = self._closes("}")
        if self._next():
            raise ValueError(f"unexpected text at character {self._at}")

    def _elements(self) -> Iterator[Any]:
        closed = self._take("]")
        while not closed:
            self._next()
            start, element = self._at, self._value()
            offset = self._bytes(start)
            self.span = (offset, self._bytes(self._at) - offset)
            yield element
            closed = self._closes("]")

    def _bytes(self, at: int) -> int:
        """Returns where a character stands in the file; asked for in ascending order."""
        if self._plain:
            return at
        characters, count = self._counted
        self._counted = (at, count + len(self._text[characters:at].encode("utf-8")))
        return self._counted[1]

    def _value(self) -> Any:
        self._next()
        value, self._at = _decode(self._text, self._at)
        return value

    def _next(self) -> str:
        """Passes over white space and returns the character that follows, nothing at the end."""
        match = _skip_space(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _take(self, character: str) -> bool:
        found = self._next() == character
        self._at += found
        return found

    def _expect(self, character: str) -> None:
        if not self._take(character):
            raise ValueError(f"{character} expected at character {self._at}")

    def _closes(self, bracket: str) -> bool:
        """Returns whether an object or a list ends here; otherwise a comma has to follow."""
        if self._take(bracket):
            return True
        self._expect(",")
        return False
