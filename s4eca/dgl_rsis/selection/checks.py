"""Checks of a selector's settings, made when it is built."""

import math
from collections.abc import Sequence

from s4eca.errors import S4ecaError


def check_number(key: str, value: object, low: float, high: float = float("inf"), *, above: bool = False) -> None:
    """Checks that a setting is a finite number within bounds.

    Args:
        key: of the setting within `selector`.
        value: of it.
        low: least value; with `above` the value must lie above it.
        high: greatest value.
        above: whether `low` itself is left out.

    Raises:
        S4ecaError: it is not.
    """
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (low < value if above else low <= value)
        and value <= high
    ):
        return
    lower = f"above {low:g}" if above else f"{low:g} or more"
    upper = "" if high == float("inf") else f" and at most {high:g}"
    raise S4ecaError(f"selector.{key}={value} cannot be; give a number, {lower}{upper}.")


def check_count(key: str, value: object, low: int) -> None:
    """Checks that a setting is a whole number from `low` up.

    Raises:
        S4ecaError: it is not.
    """
    if type(value) is not int or value < low:
        raise S4ecaError(f"selector.{key}={value} cannot be; give a whole number from {low} up.")


def check_switch(key: str, value: object) -> None:
    """Checks that a setting is true or false.

    Raises:
        S4ecaError: it is not.
    """
    if not isinstance(value, bool):
        raise S4ecaError(f"selector.{key}={value} cannot be; give true or false.")


def check_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Checks that a setting is one of some names.

    Raises:
        S4ecaError: it is not.
    """
    if value not in choices:
        raise S4ecaError(f"selector.{key}={value} is none of {', '.join(choices)}; choose one of them.")
