"""What must not stand in a bug report: home folders, account names, passwords, tokens."""

import re
from typing import Any

_URL = re.compile(r"://[^/@\s]+@")
_TOKEN = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|[a-f0-9]{40}|local-[a-f0-9]{40}|wandb_v1_\w+)\b")


def redacted(value: Any, home: str, user: str) -> Any:
    """Returns plain values with the home folder as `~`, and without account names, passwords and tokens.

    Args:
        value: dicts, lists and strings, as deep as they go.
        home: the home folder.
        user: the account's name; taken out where it is a part of a path.
    """
    if isinstance(value, dict):
        return {redacted(key, home, user): redacted(item, home, user) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, home, user) for item in value]
    if not isinstance(value, str):
        return value
    if len(home) > 1:
        value = re.sub(rf"{re.escape(home.rstrip('/'))}(?=/|\b|$)", "~", value)
    if user:
        value = re.sub(rf"(?<=/){re.escape(user)}(?=/|$|\W)", "USER", value)
    return _TOKEN.sub("***", _URL.sub("://***@", value))
