"""A referring dataset out of a COCO file: read, said, chosen, split and written."""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from s4eca import __version__
from s4eca.data.dataset import content_hash
from s4eca.data.expressions.annotations import Scene, read_scenes
from s4eca.data.expressions.grammar import KINDS, Expression, Margins, describe, is_turnable
from s4eca.data.expressions.splitting import natural, split_names
from s4eca.data.expressions.tally import Tally
from s4eca.data.readers.checks import SPLITS
from s4eca.data.readers.jsonl import write_jsonl
from s4eca.data.readers.refer import REFER_COUNTS
from s4eca.data.readers.refer_writer import write_refer
from s4eca.data.readers.writing import IMAGE_MODES, References, check_free, write_folder
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError

RECORD = "expressions.json"
"""Beside the data: what made it, and the counts."""

WRITERS: dict[str, tuple[Callable[..., None], str]] = {
    "refer": (write_refer, "dataset"),
    "jsonl": (write_jsonl, "name"),
}


@dataclass(frozen=True)
class Report:
    """What was made, and what was left out.

    Attributes:
        expressions: kind to split to number.
        images: split to number.
        instances: number of those that are usable.
        targets: number of those that an expression names.
        left_out: reasons and counts.
    """

    expressions: dict[str, dict[str, int]]
    images: dict[str, int]
    instances: int
    targets: int
    left_out: Tally


def build_dataset(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    layout: str = "refer",
    name: str | None = None,
    seed: int = 0,
    per_kind: int = 2,
    block: int = 5,
    val: float = 0.15,
    test: float = 0.15,
    how: str = "link",
    skip_missing: bool = False,
    margins: Margins | None = None,
) -> Report:
    """Writes a dataset of generated expressions; the same arguments give the same one.

    Every expression of `s4eca.data.expressions.grammar` that holds is a candidate, and a few of each kind are drawn
    for every image, by the seed and the image's name alone. `expressions.json` beside the data records settings,
    margins, the hash of the annotation file and the counts. The folder appears in one step.

    Args:
        annotations: COCO file of instances, see `read_scenes`.
        images: the folder of its images.
        out: the folder to write; missing or empty.
        layout: `refer` or `jsonl`.
        name: of the dataset, under which results stand; that of the folder where it is None.
        seed: of the choice of expressions and of the splits.
        per_kind: expressions of each kind per image, at most.
        block: see `split_names`; likewise `val` and `test`.
        val: see `split_names`.
        test: see `split_names`.
        how: `link` for symbolic links to the images, `copy` for copies.
        skip_missing: see `read_scenes`.
        margins: see `describe`.

    Raises:
        S4ecaError: an argument or the file is of no use, nothing can be said, or `out` holds something.
    """
    annotations, out, margins = Path(annotations), Path(out), margins or Margins()
    name = out.resolve().name if name is None else name
    _check(layout, name, per_kind, how)
    check_free(out)
    left_out = Tally()
    scenes = read_scenes(annotations, Path(images), skip_missing, left_out)
    scenes.sort(key=lambda scene: (natural(scene.name), scene.name))
    chosen = {scene.name: _choose(scene, seed, per_kind, margins, left_out) for scene in scenes}
    told = [scene for scene in scenes if chosen[scene.name]]
    left_out.add("images about which nothing can be said", count=len(scenes) - len(told))
    if not told:
        raise S4ecaError(
            f"No expression can be made from {annotations} ({'; '.join(left_out.lines())}): give annotations of images"
            " whose instances can be told apart."
        )
    splits = split_names([scene.name for scene in told], seed, block, val, test)
    references = _refer(told, chosen, splits)
    targets = {(scene.name, item.target.id) for scene in told for item in chosen[scene.name]}
    report = Report(
        {kind: {split: sum(item.kind == kind for item in references[split]) for split in SPLITS} for kind in KINDS},
        {split: list(splits.values()).count(split) for split in SPLITS},
        sum(len(scene.instances) for scene in scenes),
        len(targets),
        left_out,
    )
    settings = {"seed": seed, "per_kind": per_kind, "block": block, "val": val, "test": test}
    record = {
        "s4eca": __version__,
        "annotations": {"file": annotations.name, "blake2b": content_hash(annotations)},
        "settings": settings | {"margins": asdict(margins)},
        **{key: value for key, value in vars(report).items() if key != "left_out"},
        "left_out": left_out.counts,
    }
    write_folder(out, partial(_write, references, layout, name, how, record))
    return report


def _check(layout: str, name: str, per_kind: int, how: str) -> None:
    if layout not in WRITERS:
        raise S4ecaError(f"Expressions are not written as {layout!r}: choose one of {', '.join(WRITERS)}.")
    if how not in IMAGE_MODES:
        raise S4ecaError(f"There is no images={how}: choose one of {', '.join(IMAGE_MODES)}.")
    if per_kind < 1:
        raise S4ecaError(f"{per_kind} expressions of a kind per image leave none: give 1 or more.")
    if not name or name.startswith(".") or set(name) & set("/\\") or name in ("images", "rrsisd", *REFER_COUNTS):
        raise S4ecaError(f"A dataset cannot be called {name!r}: give a name of its own, fit for a folder, with --name.")


def _choose(scene: Scene, seed: int, per_kind: int, margins: Margins, left_out: Tally) -> list[Expression]:
    """Returns up to `per_kind` expressions of each kind, in the grammar's order."""
    height, width = scene.size
    candidates = describe(scene.instances, scene.barred, width / height, margins)
    certain = [item for item in candidates if is_turnable(item.text)]
    for item in candidates:
        if item not in certain:
            left_out.add("expressions whose words may change their meaning with a turned image", repr(item.text))
    draw = random.Random(f"{seed}/{scene.name}")
    order = draw.sample(range(len(certain)), len(certain))
    counts: defaultdict[str, int] = defaultdict(int)
    taken = set()
    for place in order:
        counts[certain[place].kind] += 1
        if counts[certain[place].kind] <= per_kind:
            taken.add(place)
    left_out.add("expressions beyond --per-kind", count=len(certain) - len(taken))
    return [item for place, item in enumerate(certain) if place in taken]


def _refer(scenes: Sequence[Scene], chosen: dict[str, list[Expression]], splits: dict[str, str]) -> References:
    references: dict[str, list[Reference]] = {split: [] for split in SPLITS}
    number = 0
    for scene in scenes:
        for item in chosen[scene.name]:
            number += 1
            split, id = splits[scene.name], item.target.id
            references[split].append(
                Reference(
                    str(number),
                    scene.image,
                    item.text,
                    split,
                    scene.categories[id],
                    scene.masks[id],
                    kind=item.kind,
                )
            )
    return references


def _write(references: References, layout: str, name: str, how: str, record: dict[str, Any], folder: Path) -> None:
    writer, key = WRITERS[layout]
    writer(references, folder, how, **{key: name})
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
