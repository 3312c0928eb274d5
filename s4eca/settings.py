"""What a part of a config takes: the keys and values of a node against the signature of its `_target_`."""

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import hydra.utils
from pydantic import ConfigDict, TypeAdapter, ValidationError

from s4eca.errors import S4ecaError

# a config may come out of somebody else's checkpoint: it can build these things and nothing else
ALLOWED = ("s4eca.", "lightning.pytorch.callbacks.", "lightning.pytorch.loggers.", "lightning.pytorch.Trainer")

# arguments that a part gets from the program, by its place in the config
GIVEN = {
    "model": ("segmenter", "loss", "config"),
    "model.segmenter": ("text", "vision", "method", "fusion", "decoder", "refine"),
    "model.regions": ("clip",),
    "decoder": ("channels", "out_channels"),
    "refine": ("channels",),
    "fusion": ("channels", "text_dim"),
    "decoupler": ("knowledge",),
    "grounding": ("clip",),
    "data": ("tokenizer",),
}

HYDRAS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")

WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", NoneType: "null"}


class UnknownSettingError(S4ecaError):
    """A node has keys that its target does not take.

    Attributes:
        key: of the node in the config.
        target: the node's.
        names: of those keys.
    """

    def __init__(self, key: str, node: Mapping[str, Any], names: Sequence[str], taken: Sequence[str]) -> None:
        self.key, self.target, self.names = key, str(node["_target_"]), tuple(names)
        if len(taken) > 12:
            taken = [near for name in names for near in difflib.get_close_matches(name, taken, 1)] or [*taken[:12], "…"]
        wrong = " and ".join(f"{key}.{name}={shown(node[name])}" for name in names)
        super().__init__(
            f"the config under {key} does not fit {self.target}: {wrong} {'is' if len(names) == 1 else 'are'} not among"
            f" its settings ({', '.join(taken) or 'it has none'}); leave that out with "
            f"{' '.join(f'~{key}.{name}' for name in names)}."
        )


@dataclass(frozen=True)
class Taken:
    """What a class is built with.

    Attributes:
        defaults: of its arguments by name, `inspect.Parameter.empty` where there is none.
        kinds: annotations by name.
        whole: whether it takes no others; a foreign class may hand on whatever it gets.
    """

    defaults: Mapping[str, Any]
    kinds: Mapping[str, Any]
    whole: bool = True


@cache
def taken_by(made: type) -> Taken:
    """Returns the arguments of a class and of those that it hands the rest to."""
    defaults: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    whole = True
    for kind in made.__mro__:
        build = vars(kind).get("__init__")
        if build is None:
            continue
        if not kind.__module__.startswith(("s4eca.", "lightning.")):
            break
        parameters = inspect.signature(build).parameters.values()
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)][1:]
        defaults = {parameter.name: parameter.default for parameter in named} | defaults
        kinds = get_type_hints(build) | kinds if kind.__module__.startswith("s4eca.") else kinds
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
        whole = kind.__module__.startswith("s4eca.")
    return Taken(defaults, kinds, whole)


def find_class(target: Any, key: str) -> type:
    """Returns the class that a `_target_` names.

    Raises:
        S4ecaError: it is outside of this package and of Lightning's callbacks, loggers and trainer.
    """
    made = None
    if str(target).startswith(ALLOWED):
        try:
            made = hydra.utils.get_object(str(target))
        except (ImportError, ValueError):
            made = None
    # s4eca.checkpoint.torch.load has the right prefix too: only classes that were defined there may be built
    if not isinstance(made, type) or not made.__module__.startswith(("s4eca.", "lightning.pytorch.")):
        raise S4ecaError(f"the config under {key} names {target}, and only parts of s4eca may be built from it.")
    return made


def nodes(content: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields all nodes with a `_target_` and their keys, inner ones first."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from nodes(value, f"{key}.{name}")
        if "_target_" in content:
            yield key, content
    elif isinstance(content, list):
        for place, value in enumerate(content):
            yield from nodes(value, f"{key}[{place}]")


def check_keys(content: Any, key: str) -> None:
    """Compares the keys of a node, and of those within it, with what their targets take.

    Args:
        content: plain values.
        key: where they stand in the config.

    Raises:
        S4ecaError: a target that may not be built.
        UnknownSettingError: a key that a target does not take.
    """
    for where, node in nodes(content, key):
        takes = taken_by(find_class(node["_target_"], where))
        unknown = [name for name in node if name not in HYDRAS and name not in takes.defaults]
        if unknown and takes.whole:
            free = [name for name in takes.defaults if name not in GIVEN.get(where, ())]
            raise UnknownSettingError(where, node, unknown, free)


def check_values(content: Any, key: str) -> None:
    """Compares the values of a node, and of those within it, with the annotations of their targets.

    Raises:
        S4ecaError: an argument that is missing, one that the program gives, or a value of another type.
    """
    for where, node in nodes(content, key):
        target = node["_target_"]
        takes = taken_by(find_class(target, where))
        given = GIVEN.get(where, ())
        for name, default in takes.defaults.items():
            if name in given and name in node:
                raise S4ecaError(
                    f"{where}.{name} is no setting, the program gives it; leave it out with ~{where}.{name}."
                )
            if default is inspect.Parameter.empty and name not in (*given, *node):
                raise S4ecaError(f"the config under {where} does not fit {target}: {where}.{name} is missing; give it.")
        for name, value in node.items():
            kind = takes.kinds.get(name, Any)
            if name not in HYDRAS and not _is_node(value) and not _fits(value, kind):
                raise S4ecaError(
                    f"the config under {where} does not fit {target}: {where}.{name}={shown(value)} {_is_not(kind)}."
                )


def shown(value: Any) -> str:
    """Returns a value as on a command line, cut where it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _is_node(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, Mapping) and "_target_" in item for item in items)


def _fits(value: Any, kind: Any) -> bool:
    try:
        _adapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(strict=True, arbitrary_types_allowed=True))


def _is_not(kind: Any) -> str:
    """Returns how a value is said not to be what an annotation asks for."""
    if bool in (kind, *get_args(kind)):
        return f"is neither {_said(kind).replace(' or ', ' nor ')}"
    if get_origin(kind) is Literal:
        return f"is none of {', '.join(map(shown, get_args(kind)))}"
    return f"is no {_said(kind)}"


def _said(kind: Any) -> str:
    """Returns an annotation in words."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_said, inside)))
    if origin is Literal:
        return " or ".join(map(shown, inside))
    if isinstance(origin, type):
        return "mapping" if issubclass(origin, Mapping) else "list"
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))
