"""Which image and mask files are there, and which of those that are there nothing asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s4eca.data.audit.findings import Finding, Severity, on_names, on_records
from s4eca.data.audit.records import Record
from s4eca.data.masks import FileMask
from s4eca.data.readers.checks import first_few
from s4eca.data.readers.listing import IMAGE_SUFFIXES, Listing


@dataclass(frozen=True)
class Present:
    """The files that can be opened.

    Attributes:
        images: positions of the records whose image is there.
        masks: positions of the records whose mask is there: in the annotations, or as a file.
        annotations_alone: no image is there at all, and its folder is absent or holds no other.
    """

    images: frozenset[int]
    masks: frozenset[int]
    annotations_alone: bool


def check_files(records: Sequence[Record], root: Path) -> tuple[Present, list[Finding]]:
    """Finds missing and unused files without opening any.

    Where the images are left out altogether, their absence is a note; where some are there, a missing one is an error.

    Args:
        records: what to look for.
        root: what was audited; images between it and a folder that does not exist are there, under other names.
    """
    listing = Listing()
    wanted = {i: record.image for i, record in enumerate(records) if record.image is not None}
    there = frozenset(i for i, path in wanted.items() if listing.has(path))
    folders = {path.parent for path in wanted.values()}
    folders |= {
        above for folder in folders for above in folder.parents if root in above.parents and not folder.is_dir()
    }
    names = set(wanted.values())
    others = [
        folder / name
        for folder in sorted(folders)
        for name in sorted(listing.folder(folder))
        if name.lower().endswith(IMAGE_SUFFIXES) and folder / name not in names
    ]
    alone = bool(wanted) and not there and not others

    findings = []
    if alone:
        looked = first_few([str(folder) for folder in sorted(folders)])
        text = f"no image is there (looked in {looked}): images are not checked"
        findings.append(Finding(Severity.NOTE, "annotations-alone", text, len(set(wanted.values()))))
    else:
        missing = [i for i in wanted if i not in there]
        text = "samples whose image file is missing"
        if missing:
            first = wanted[missing[0]]
            text += f" (the first: {first}; {listing.describe(first.parent)})"
        findings += on_records(Severity.ERROR, "missing-image", text, records, missing)
        findings += on_names(
            Severity.NOTE, "unused-image", "image files that no reference uses", [path.name for path in others]
        )

    masks, absent = set(), []
    for i, record in enumerate(records):
        if isinstance(record.mask, FileMask) and not listing.has(record.mask.path):
            absent.append(i)
        elif record.mask is not None:
            masks.add(i)
    if absent and alone and not masks:
        findings.append(
            Finding(Severity.NOTE, "no-masks", "mask files are not there either: masks are not checked", len(absent))
        )
    elif absent:
        mask = records[absent[0]].mask
        assert isinstance(mask, FileMask)
        text = f"samples whose mask file is missing (the first: {mask.path}; {listing.describe(mask.path.parent)})"
        findings += on_records(Severity.ERROR, "missing-mask", text, records, absent)
    return Present(there, frozenset(masks), alone), findings
