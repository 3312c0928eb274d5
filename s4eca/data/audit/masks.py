"""What decoded images and masks give away: damage, sizes, empty and tiny targets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from s4eca.data.audit.findings import Finding, Severity, on_names, on_records
from s4eca.data.audit.pixels import ImageFacts, MaskFacts
from s4eca.data.audit.records import Record


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
    """Finds images and masks that cannot be decoded; the decoder's words for the first one go into the text."""
    broken_images = [i for i, record in enumerate(records) if _of(images, record).problem is not None]
    broken_masks = [i for i, facts in enumerate(masks) if facts is not None and facts.problem is not None]
    findings = []
    if broken_images:
        first = _of(images, records[broken_images[0]])
        text = f"samples whose image cannot be decoded (the first: {first.problem})"
        findings += on_records(Severity.ERROR, "damaged-image", text, records, broken_images)
    if broken_masks:
        facts = masks[broken_masks[0]]
        assert facts is not None
        text = f"samples whose mask cannot be decoded (the first: {facts.problem})"
        findings += on_records(Severity.ERROR, "damaged-mask", text, records, broken_masks)
    return findings


def check_sizes(
    records: Sequence[Record], images: Mapping[Path, ImageFacts], masks: Sequence[MaskFacts | None]
) -> list[Finding]:
    """Compares the sizes of image file, mask and what the annotations state, wherever two of them are known."""
    differ: list[int] = []
    examples: list[str] = []
    misstated: dict[str, None] = {}
    for i, (record, mask) in enumerate(zip(records, masks, strict=True)):
        image = _of(images, record).size
        mask_size = mask.size if mask is not None else None
        known = image or record.stated_size
        if mask_size and known and mask_size != known:
            differ.append(i)
            whose = "image" if image else "stated image size"
            examples.append(f"mask {_size(mask_size)}, {whose} {_size(known)}")
        if image and record.stated_size and image != record.stated_size and record.image is not None:
            misstated.setdefault(f"{record.image.name}: {_size(image)}, stated {_size(record.stated_size)}", None)
    text = "masks of another size than their image, to which they have to be resized"
    if examples:
        text += f" (the first: {examples[0]}; width x height)"
    findings = on_records(Severity.WARNING, "mask-size", text, records, differ)
    text = "images of another size than the annotations state (width x height)"
    return findings + on_names(Severity.WARNING, "stated-size", text, misstated)


def check_targets(records: Sequence[Record], masks: Sequence[MaskFacts | None], tiny: int) -> list[Finding]:
    """Finds masks that are empty without saying so, or tiny, or not empty although no target is meant."""
    empty, small, contradicting = [], [], []
    for i, (record, facts) in enumerate(zip(records, masks, strict=True)):
        if facts is None or facts.problem is not None:
            continue
        if record.no_target and facts.pixels:
            contradicting.append(i)
        elif not record.no_target and not facts.pixels:
            empty.append(i)
        elif 0 < facts.pixels < tiny:
            small.append(i)
    meant = sum(record.no_target for record in records)
    return [
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
