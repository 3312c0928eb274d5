"""What decoded images and masks give away: damage, sizes, empty and tiny targets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from s4eca.data.audit.findings import Finding, Severity, on_names, on_records
from s4eca.data.audit.pixels import ImageFacts, MaskFacts
from s4eca.data.audit.records import Record
from s4eca.data.geometry import same_shape
from s4eca.data.targets import mostly_empty, where


def image_facts(images: Mapping[Path, ImageFacts]) -> dict[str, Any]:
    """Returns how many images were decoded and their sizes, `{"width x height": count}`."""
    sizes = Counter(f"{facts.size[1]} x {facts.size[0]}" for facts in images.values() if facts.size)
    return {"decoded": sum(sizes.values()), "sizes": dict(sizes.most_common())}


def mask_facts(masks: Sequence[MaskFacts | None], tiny: int) -> dict[str, Any]:
    """Returns how many masks were decoded, are empty and are tiny, and their median size in pixels."""
    decoded = [facts for facts in masks if facts is not None and facts.problem is None]
    filled = [facts.pixels for facts in decoded if facts.pixels]
    return {
        "decoded": len(decoded),
        "empty": len(decoded) - len(filled),
        "tiny": sum(pixels < tiny for pixels in filled),
        "tiny_below": tiny,
        "median_pixels": median(filled) if filled else None,
        "min_pixels": min(filled, default=None),
    }


def check_damage(
    records: Sequence[Record], images: Mapping[Path, ImageFacts], masks: Sequence[MaskFacts | None]
) -> list[Finding]:
    """Finds images and masks that cannot be decoded, damaged or of no kind that is read; the text says what one is."""
    findings = []
    for what, facts, paths in (
        ("image", [_of(images, record) for record in records], [record.image for record in records]),
        ("mask", masks, [getattr(record.mask, "path", None) for record in records]),
    ):
        for damaged, code, verb in ((True, "damaged", "cannot be decoded"), (False, "unusable", "is not one to read")):
            found = [i for i, item in enumerate(facts) if item and item.problem and item.damaged is damaged]
            if found:
                first, path = facts[found[0]], paths[found[0]]
                assert first is not None
                name = f"{path.name}: " if path is not None else ""
                text = f"samples whose {what} {verb} (the first: {name}{first.problem})"
                findings += on_records(Severity.ERROR, f"{code}-{what}", text, records, found)
    return findings


def check_sizes(
    records: Sequence[Record], images: Mapping[Path, ImageFacts], masks: Sequence[MaskFacts | None]
) -> list[Finding]:
    """Compares the sizes of image file, mask and what the annotations state, wherever two of them are known."""
    differ: list[int] = []
    unlike: list[int] = []
    examples: list[str] = []
    misstated: dict[str, None] = {}
    for i, (record, mask) in enumerate(zip(records, masks, strict=True)):
        image = _of(images, record).size
        mask_size = mask.size if mask is not None else None
        known = image or record.stated_size
        if mask is not None and mask_size and known and mask_size != known:
            if mask.pixels and not same_shape(mask_size, known):
                unlike.append(i)
                continue
            differ.append(i)
            whose = "image" if image else "stated image size"
            examples.append(f"mask {_size(mask_size)}, {whose} {_size(known)}")
        if image and record.stated_size and image != record.stated_size and record.image is not None:
            misstated.setdefault(f"{record.image.name}: {_size(image)}, stated {_size(record.stated_size)}", None)
    text = "masks of another size than their image, to which they have to be resized"
    if examples:
        text += f" (the first: {examples[0]}; width x height)"
    findings = on_records(Severity.WARNING, "mask-size", text, records, differ)
    text = "masks of another shape than their image, to which they cannot be resized"
    findings += on_records(Severity.ERROR, "unusable-mask", text, records, unlike)
    text = "images of another size than the annotations state (width x height)"
    return findings + on_names(Severity.WARNING, "stated-size", text, misstated)


def check_targets(records: Sequence[Record], masks: Sequence[MaskFacts | None], tiny: int) -> list[Finding]:
    """Finds masks that are empty without saying so, or tiny, or not empty although no target is meant.

    A split whose targets are (nearly) all empty is an error: no run starts on it.
    """
    empty, small, contradicting = [], [], []
    looked_at: Counter[str] = Counter()
    for i, (record, facts) in enumerate(zip(records, masks, strict=True)):
        if facts is None or facts.problem is not None:
            continue
        looked_at[record.split] += not record.no_target
        if record.no_target and facts.pixels:
            contradicting.append(i)
        elif not record.no_target and not facts.pixels:
            empty.append(i)
        elif 0 < facts.pixels < tiny:
            small.append(i)
    meant = sum(record.no_target for record in records)
    findings = []
    for split, count in looked_at.items():
        nothing = [i for i in empty if records[i].split == split]
        if mostly_empty(len(nothing), count):
            mask = records[nothing[0]].mask
            first = f" (the first: {where(mask)})" if mask is not None else ""
            text = f"empty masks of the {count:,} targets of the {split} split, which has almost nothing to find{first}"
            findings += on_records(Severity.ERROR, "empty-split", text, records, nothing)
            empty = [i for i in empty if records[i].split != split]
    return [
        *findings,
        *on_records(
            Severity.ERROR,
            "no-target-with-mask",
            "references marked as without a target whose mask is not empty",
            records,
            contradicting,
        ),
        *on_records(
            Severity.WARNING,
            "empty-mask",
            "empty masks of references that are not marked as without a target; every protocol scores them 0",
            records,
            empty,
        ),
        *on_records(Severity.WARNING, "tiny-mask", f"masks of fewer than {tiny} pixels", records, small),
        *([Finding(Severity.NOTE, "no-target", "references that are meant to name nothing", meant)] if meant else []),
    ]


def _of(images: Mapping[Path, ImageFacts], record: Record) -> ImageFacts:
    """Returns what is known of a record's image, nothing where it was not opened."""
    return images.get(record.image, ImageFacts()) if record.image is not None else ImageFacts()


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
