"""KEY=VALUE of the command line, in Hydra's grammar: written so that it is read back, and explained where it is not."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import grammar_parser
from omegaconf.errors import GrammarParseError

from s4eca.errors import S4ecaError

Value = bool | int | float | str | list[Any] | None

PLACES = frozenset(
    (
        *("root", "ckpt", "resume", "init_from", "out", "folder", "dir", "subdir", "dirpath", "save_dir"),
        *("cache", "feature_cache", "weights", "weights_folder", "tokenizer", "knowledge"),
        *("images", "refs", "instances"),
    )
)
"""Keys, by the last of their names, whose values are paths: never numbers or lists, whatever they look like."""

_NO_LITERAL = "a value that holds ${ itself cannot be given, rename what it names"


def override(key: str, value: Value) -> str:
    """Returns `KEY=VALUE` in Hydra's grammar, which reads it back as the same value."""
    return f"{key}={written(value)}"


def shell_word(key: str, value: str | Path) -> str:
    """Returns `KEY=VALUE` as it is pasted into a shell."""
    return shlex.quote(override(key, str(value)))


def plain_text(value: str) -> str:
    """Returns the value of a key that a command reads by itself: as it stands, or without quotes as Hydra has them."""
    if value[:1] in ("'", '"'):
        try:
            parsed = _parse(f"key={value}").value()
        except HydraException:
            return value
        return parsed if isinstance(parsed, str) else value
    return value


def composing_reason(error: Exception) -> str:
    """Returns why Hydra could not compose a config, without a full stop.

    Its own advice on a key that is not there, to write `+KEY`, makes keys that no part takes, and its list of search
    paths says nothing to who has one folder of configs.
    """
    text = " ".join(str(error).partition("Config search path:")[0].split()).rstrip(".")
    unknown = re.match(r"Could not override '([^']+)'", text)
    return f"the options that are chosen have no key {unknown[1]}" if unknown else text


def check_overrides(given: Sequence[str], several: bool = False) -> None:
    """Checks that Hydra reads overrides as they are meant, before it refuses them in the terms of its parser.

    Args:
        given: words of the command line.
        several: a value may stand for several ones, as in a multirun.

    Raises:
        S4ecaError: one that it cannot read, or a path that it would read as something else; with the form that works.
    """
    for place, item in enumerate(given):
        key, equals, value = item.partition("=")
        if not equals and not item.startswith("~"):
            raise S4ecaError(_no_override(item, given[place - 1] if place else ""))
        if "\n" in item or "\r" in item:
            raise S4ecaError(f"{key} has a value with a line break, which cannot be given; rename what it names.")
        try:
            parsed = _parse(item)
        except HydraException as error:
            raise S4ecaError(_unreadable(item)) from error
        if parsed.is_delete():
            continue
        if "${" in item:
            _check_interpolation(key, value)
        if parsed.is_sweep_override():
            if not several:
                which = "which train.py and eval.py take with -m"
                raise S4ecaError(f"{item} stands for several values, {which}; {_as_it_stands(key, value)}.")
        elif key.rpartition(".")[2].lstrip("+") in PLACES:
            _check_place(item, parsed)


def _check_place(item: str, parsed: Override) -> None:
    key, _, raw = item.partition("=")
    value = parsed.value()
    if value in ("", "???"):
        raise S4ecaError(f"{item} names no path; give {key}=PATH, or leave it out.")
    if isinstance(parsed._value, QuotedString):
        return
    if isinstance(value, str):
        if value not in (raw, re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", raw)):  # blanks at its ends, or a cast
            raise S4ecaError(f"{item!r} is read as {value!r}; {_as_it_stands(key, raw)}.")
    elif value is not None:
        kind = {list: "a list", dict: "a mapping", bool: "a truth value"}.get(type(value), "a number")
        raise S4ecaError(f"{item} is read as {kind}, and {key} is a path; {_as_it_stands(key, raw)}.")


def _check_interpolation(key: str, value: str) -> None:
    try:
        grammar_parser.parse(value)
    except GrammarParseError as error:
        raise S4ecaError(f"{key}={value} has a ${{ without its end, and {_NO_LITERAL}.") from error


def _no_override(item: str, before: str) -> str:
    key, equals, value = before.partition("=")
    if not equals:
        return f"{item} is no KEY=VALUE; give options of a run as KEY=VALUE."
    whole = shell_word(key, f"{value} {item}")
    return f"{item} is no KEY=VALUE; where it belongs to {before}, write {whole} in a shell."


def _unreadable(item: str) -> str:
    key, _, value = item.partition("=")
    try:
        _parse(f"{key}=x")
    except HydraException:
        return f"{item} is no KEY=VALUE: {key} is no name of a key."
    return f"{item} has characters that mean something in the grammar of overrides; {_as_it_stands(key, value)}."


def _as_it_stands(key: str, value: str) -> str:
    if "${" in value:
        return _NO_LITERAL
    if value.partition("/")[0] == "~":  # which a shell does not expand behind a `=`
        value = str(Path(value).expanduser())
    return f"to give the value as it stands, write {shell_word(key, value)} in a shell"


def _parse(item: str) -> Override:
    return OverridesParser.create().parse_override(item)


def written(value: Value) -> str:
    """Returns the part behind the `=`."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    # words that the grammar would take for another type, or for two values, are quoted
    plain = re.fullmatch(r"(?:[A-Za-z_/]|\.\.?/)[A-Za-z0-9_./:-]*", value)
    if plain and value.lower() not in ("null", "true", "false", "nan", "inf"):
        return value
    return QuotedString(value, Quote.double).with_quotes()
