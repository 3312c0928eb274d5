"""Several datasets as one: joint training, ids kept apart by the dataset's name."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.readers.checks import SPLITS, check_split, check_unique
from s4eca.data.readers.layouts import LAYOUTS, get_layout
from s4eca.data.references import Reference
from s4eca.data.targets import check_targets
from s4eca.errors import S4ecaError

_OWN = ("layout", "root", "repeat", "splits")


class JointDataModule(ReferringDataModule):
    """The references of several datasets, one after the other in the order of `parts`.

    Ids are `PART/ID`; categories stay as they are. In the training split a part may be there several times, so that a
    small dataset is not drowned: its further copies are `PART/ID#2`, `PART/ID#3`, and so on. The name is that of all
    parts, such as `rrsis_d+refsegrs`.

    Args:
        parts: name to `{layout, root, repeat, splits, …}`. `layout` is one of `LAYOUTS`; `repeat` (1) counts in the
            training split only; `splits` (all three) says which ones to take; anything else is an option of the
            dataset's data module, such as `dataset` or `split_by`. A part that is None is left out.
        root: the folder that relative roots of the parts are in.
        options: as for `ReferringDataModule`; `strict_counts` is meant for every part.

    Raises:
        S4ecaError: a part is not described well.
    """

    name = "joint"

    def __init__(
        self,
        *,
        parts: Mapping[str, Mapping[str, Any] | None],
        root: str | Path = ".",
        max_tokens: int = 22,
        **options: Any,
    ) -> None:
        super().__init__(root=root, max_tokens=max_tokens, **options)
        if not isinstance(parts, Mapping):
            raise S4ecaError(f"data.parts={parts} is no mapping: give data.parts.NAME={{layout: …, root: …}}.")
        described = {name: part for name, part in parts.items() if part is not None}
        if not described:
            raise S4ecaError("data.parts is empty: name at least one dataset as data.parts.NAME={layout: …, root: …}.")
        self.repeats: dict[str, int] = {}
        self.splits: dict[str, Sequence[str]] = {}
        self.parts: dict[str, ReferringDataModule] = {}
        for name, part in described.items():
            if not isinstance(part, Mapping):
                raise S4ecaError(f"data.parts.{name}={part} is no mapping: give it as {{layout: …, root: …}}.")
            self.parts[name] = self._build(str(name), dict(part))
        self.name = "+".join(part.name for part in self.parts.values())

    def _build(self, name: str, part: dict[str, Any]) -> ReferringDataModule:
        key = f"data.parts.{name}"
        if "/" in name or "#" in name:
            raise S4ecaError(f"{key} cannot be told from its ids: choose a name without / and #.")
        if str(part.get("layout")) not in LAYOUTS or not isinstance(part.get("root"), str | Path) or not part["root"]:
            raise S4ecaError(f"{key} needs a root and a layout: give {key}.layout as one of {', '.join(LAYOUTS)}.")
        module = get_layout(part["layout"]).module
        repeat = part.get("repeat", 1)
        if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 1:
            raise S4ecaError(f"{key}.repeat={repeat} is no number of copies: set it to a whole number from 1 on.")
        splits = part.get("splits")
        splits = SPLITS if splits is None else [splits] if isinstance(splits, str) else splits
        if not isinstance(splits, Sequence) or not splits:
            raise S4ecaError(
                f"{key}.splits={splits} is no list of splits: name some of {', '.join(SPLITS)}, or set {key}=null to"
                " leave the part out."
            )
        for split in splits:
            check_split(split)
        self.repeats[name] = repeat
        self.splits[name] = splits
        given = {option: value for option, value in part.items() if option not in _OWN}
        shared = inspect.signature(ReferringDataModule.__init__).parameters
        known = [option for option in inspect.signature(module.__init__).parameters if option not in shared]
        known = [option for option in known if option != "options"]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise S4ecaError(
                f"{key} has no option {', '.join(unknown)}: it has {', '.join([*_OWN, *known])}, and what all datasets"
                " share is set once for the whole."
            )
        return module(root=self.root / part["root"], strict_counts=self.strict_counts, **given)

    def check_targets(self, split: str) -> None:
        """Checks every part by itself, since a large one would hide that a small one is empty."""
        references = self.references(split)
        for name in self.parts:
            items = [item for item in references if item.id.startswith(f"{name}/")]
            check_targets(items, f"The {split} split of data.parts.{name}")

    def read(self, split: str) -> list[Reference]:
        """Returns the references of all parts that take part in a split.

        Raises:
            S4ecaError: a part cannot be read or has no such split, which the message names; or an id ends as a copy's.
        """
        references = []
        for name, part in self.parts.items():
            if split not in self.splits[name]:
                continue
            try:
                found = part.read(split)
            except S4ecaError as error:
                raise S4ecaError(
                    f"The {split} split of data.parts.{name} cannot be read (leave it out with"
                    f" data.parts.{name}.splits): {error}"
                ) from error
            copies = self.repeats[name] if split == "train" else 1
            for copy in range(copies):
                mark = f"#{copy + 1}" if copy else ""
                references += [replace(item, id=f"{name}/{item.id}{mark}") for item in found]
        if not references:
            raise S4ecaError(f"No part has a {split} split: add {split} to the splits of one of data.parts.")
        check_unique(references, "data.parts", "rename them, or set repeat to 1 where a part has ids that end in #2")
        return references
