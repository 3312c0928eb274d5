"""`s4eca data show`: samples as pictures."""

import random
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s4eca.errors import S4ecaError

if TYPE_CHECKING:  # the data room imports torch, which `s4eca --help` need not wait for
    from s4eca.data.audit import Record

MOST_COLUMNS = 4


def show(
    root: Annotated[Path, typer.Argument(help="a dataset's folder, or one annotation file")],
    layout: Annotated[str | None, typer.Option(help="how the files are arranged; found out where not given")] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test; default: all of them")] = None,
    ids: Annotated[str | None, typer.Option(help="exactly these samples, separated by commas")] = None,
    find: Annotated[str | None, typer.Option(help="only expressions with these words, in this order")] = None,
    category: Annotated[str | None, typer.Option(help="only this category")] = None,
    n: Annotated[int | None, typer.Option(min=1, help="number of samples, chosen at random; default: 8")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the choice; default: 0")] = None,
    out: Annotated[Path | None, typer.Option(help="FILE.png or FILE.html; default: samples.png in this folder")] = None,
    size: Annotated[int, typer.Option(min=32, help="longer side of an image on the sheet, in pixels")] = 320,
    depth: Annotated[int, typer.Option(min=8, max=16, help="bits in use of images, as data.depth in a training")] = 8,
) -> None:
    """Draw samples into samples.png or --out FILE: image, outlined mask, expression, id, split and category."""
    from s4eca.data.audit import survey
    from s4eca.data.sheet import Section, check_sheet_path, write_sheet

    hint = "" if out else " (choose another place with --out FILE.png or FILE.html)"
    out = out or Path("samples.png")
    check_sheet_path(out)
    if ids is not None and (n is not None or seed is not None):
        raise S4ecaError("--ids says which samples are drawn: leave out --n and --seed.")
    surveyed = survey(root, layout)
    records = surveyed.records
    if not records:
        reasons = "; ".join(item.text for item in surveyed.findings if item.severity == "error")
        raise S4ecaError(f"{root} holds no sample ({reasons or 'its files are empty'}): mend or replace its files.")
    for item in surveyed.findings:
        if item.code == "unreadable-file":
            warnings.warn(item.text, stacklevel=2)
    found = matching(records, split, find, category)
    if ids is not None:
        chosen = by_ids(found, [id.strip() for id in ids.split(",") if id.strip()])
    else:
        if not found:
            raise S4ecaError(f"None of the {len(records):,} samples in {root} fits: ask for less.")
        chosen = random.Random(seed or 0).sample(found, min(n or 8, len(found)))
    title = f"{root.name}: {len(chosen):,} of {len(found):,} samples"
    typer.echo(f"{title} go to {out}{hint}")
    write_sheet(out, [Section(title, chosen, depth=depth)], size, min(MOST_COLUMNS, len(chosen)))


def matching(records: "Sequence[Record]", split: str | None, find: str | None, category: str | None) -> "list[Record]":
    """Returns the records of a split and category whose expression holds the words of `find`, as whole words.

    Raises:
        S4ecaError: there is no such split or category at all.
    """
    for what, wanted, there in (
        ("split", split, Counter(record.split for record in records)),
        ("category", category, Counter(record.category for record in records if record.category)),
    ):
        if wanted is not None and wanted not in there:
            raise S4ecaError(f"There is no {what} {wanted!r}: choose one of {', '.join(sorted(there)) or 'none'}.")
    words = f" {' '.join((find or '').casefold().split())} "
    return [
        record
        for record in records
        if (split is None or record.split == split)
        and (category is None or record.category == category)
        and (not words.strip() or words in f" {' '.join(record.expression.casefold().split())} ")
    ]


def by_ids(records: "Sequence[Record]", ids: Sequence[str]) -> "list[Record]":
    """Returns the records with these ids, in this order; an id that two splits share gives both.

    Raises:
        S4ecaError: an id is not there.
    """
    if not ids:
        raise S4ecaError("--ids is empty: name samples as --ids 12,34.")
    by_id: dict[str, list[Record]] = {}
    for record in records:
        by_id.setdefault(record.id, []).append(record)
    unknown = [id for id in ids if id not in by_id]
    if unknown:
        raise S4ecaError(
            f"{len(unknown)} of {len(ids)} ids are not among the samples ({', '.join(unknown[:3])}): check --ids, and"
            " --split, --find and --category if they are given."
        )
    return [record for id in dict.fromkeys(ids) for record in by_id[id]]
