"""Pickles of plain values and NumPy numbers, opened without running anything they name.

A pickle runs code by asking for a class or a function by its name. No name is ever looked up here. The few names that
NumPy's numbers are pickled with stand for functions of this file, which know whole numbers, floats, truth values and
texts and give Python's own; every other name is refused.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from s4eca.errors import S4ecaError
from s4eca.text import foreign


def load_plain_pickle(path: Path) -> Any:
    """Returns what a pickle of dicts, lists, strings and numbers holds; any other pickle is refused.

    Numbers and arrays of NumPy become Python's numbers and lists. Strings of Python 2 are read as UTF-8.

    Raises:
        S4ecaError: the file asks for another name, is missing, no pickle or damaged.
    """
    try:
        with path.open("rb") as stream:
            return _PlainUnpickler(stream).load()
    except _NotPlainError as error:
        raise S4ecaError(
            f"{path} {error}: have it saved where it was made as dicts, lists, strings and numbers alone (int(…) and"
            " .tolist() turn others into these), or as JSON."
        ) from error
    except OSError as error:
        raise S4ecaError(f"{path} cannot be read ({error.strerror}): make it readable.") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        with path.open("rb") as stream:
            head = stream.read(64)
        kind = foreign(head)
        if re.match(rb"\s*[\[{]\s*[\"{\]}]", head):
            kind = "JSON", "give it a name that ends in .json"
        reason = (
            f"it is {kind[0]}: {kind[1]}" if kind else f"{str(error) or type(error).__name__}: take a whole copy of it"
        )
        raise S4ecaError(f"{path} cannot be read as a pickle, {reason}.") from error


class _NotPlainError(Exception):
    """Something that no plain pickle holds, as the half of a sentence that follows the file's name."""


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO) -> None:
        # the bytes of Python 2 are text or a number's; either can be had from this
        super().__init__(stream, encoding="utf-8", errors="surrogateescape")

    def find_class(self, module: str, name: str) -> "_StandIn":
        make = _MAKERS.get((re.sub(r"^numpy\._?core\.", "numpy.core.", module), name))
        if make is None:
            raise _NotPlainError(f"asks for {module}.{name}, which could run code, and is not opened")
        return _StandIn(make)


class _StandIn:
    """What a pickle gets for a name: it can call it, and do nothing else with it."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it sets {name}")


class _Type:
    """`numpy.dtype`: the kind and size of a number, such as `i8`, and the order of its bytes."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[iufbU]\d{1,4}", code):
            raise _NotPlainError(f"holds NumPy values of the type {code}")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        self._order = {"<": "<", ">": ">", "|": "="}[state[1]]

    def read(self, content: Any) -> np.ndarray:
        """Returns the values in bytes, or in what Python 2's bytes are read as."""
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogateescape")
        if not isinstance(content, bytes | bytearray):
            raise pickle.UnpicklingError("a number that is not stored in bytes")
        return np.frombuffer(content, np.dtype(self._code).newbyteorder(self._order))  # type: ignore[arg-type]


class _Array(list):
    """`numpy.ndarray`: an empty list that the pickle fills."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, columns_first, content = state
        self[:] = _array(content, kind, shape, "F" if columns_first else "C")


def _scalar(kind: _Type, content: Any) -> Any:
    return kind.read(content).tolist()[0]


def _array(content: Any, kind: _Type, shape: Any, order: Any) -> list[Any]:
    return np.atleast_1d(kind.read(content).reshape(shape, order=order)).tolist()


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, by which bytes stand in pickles of protocol 2."""
    return text.encode({"latin1": "latin-1"}[encoding])


_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): lambda *_: None,  # only ever handed to _reconstruct
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy.core.numeric", "_frombuffer"): _array,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # none at all, in protocol 2
}
