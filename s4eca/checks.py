"""What single settings can be; `key` is the setting's name in the config."""

from typing import Any

from s4eca.errors import S4ecaError


def check_whole(key: str, value: Any, multiple: int = 1) -> None:
    """Refuses what is no whole number from 1 on, or no multiple of another one."""
    if type(value) is not int or value < 1 or value % multiple:
        what = "whole number from 1 on" if multiple == 1 else f"positive multiple of {multiple}"
        raise S4ecaError(f"{key}={value} must be a {what}.")


def check_dropout(key: str, value: Any) -> None:
    """Refuses what is no share from 0 to below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise S4ecaError(f"{key}={value} must be a share from 0 to below 1.")
