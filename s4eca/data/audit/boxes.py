"""Stored boxes and areas against the masks: which convention they follow, and where they disagree."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from s4eca.data.audit.findings import Finding, Severity, on_records
from s4eca.data.audit.pixels import MaskFacts
from s4eca.data.audit.records import Record

AGREES = 0.5
"""A box and the extent of its mask agree from this IoU on; RRSIS-D's boxes are other annotators' work and loose."""

Box = tuple[float, float, float, float]


def check_boxes(
    records: Sequence[Record], masks: Sequence[MaskFacts | None]
) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Finds out whether boxes are `x, y, width, height` (COCO) or `x1, y1, x2, y2`, and which do not fit their mask.

    Each convention is judged by the median IoU of the boxes read in it with the extents of their masks, in pixels,
    right and bottom exclusive; `x2, y2` may be the last pixel or the one behind it, whichever fits better.

    Returns:
        The convention (`xywh`, `xyxy`, None where neither reaches a median of 0.5), both medians and the number of
        boxes; None where there is no box. And the findings.
    """
    stated = [i for i, record in enumerate(records) if record.bbox is not None]
    if not stated:
        return None, []
    malformed = [i for i in stated if _numbers(records[i].bbox) is None]
    findings = on_records(Severity.WARNING, "bad-box", "boxes that are not four finite numbers", records, malformed)

    xywh: dict[int, float] = {}
    xyxy: dict[int, float] = {}
    around_nothing = []
    for i in stated:
        box, facts = _numbers(records[i].bbox), masks[i]
        if box is None or facts is None or facts.problem is not None:
            continue
        if facts.extent is None:
            if box[2] > 0 and box[3] > 0:  # 0, 0, 0, 0 is the box of nothing
                around_nothing.append(i)
            continue
        left, top, third, fourth = box
        xywh[i] = _iou((left, top, left + third, top + fourth), facts.extent)
        xyxy[i] = max(_iou(box, facts.extent), _iou((left, top, third + 1, fourth + 1), facts.extent))
    medians = {"xywh": median(xywh.values()), "xyxy": median(xyxy.values())} if xywh else {}
    convention = max(medians, key=lambda name: medians[name]) if medians else None
    if convention is not None and medians[convention] < AGREES:
        convention = None
    summary = {
        "boxes": len(stated),
        "convention": convention,
        "median_iou": {name: round(value, 4) for name, value in medians.items()},
    }

    if medians:
        said = f"median IoU with the masks' extents {medians['xyxy']:.2f} read as xyxy, {medians['xywh']:.2f} as xywh"
        if convention == "xyxy":
            text = f"boxes are x1, y1, x2, y2 and not COCO's x, y, width, height ({said})"
            findings += on_records(Severity.WARNING, "box-convention", text, records, xyxy)
        elif convention is None:
            text = f"boxes fit their masks neither as x, y, width, height nor as x1, y1, x2, y2 ({said})"
            findings += on_records(Severity.WARNING, "box-convention", text, records, xyxy)
        else:
            findings.append(
                Finding(Severity.NOTE, "box-convention", f"boxes are COCO's x, y, width, height ({said})", len(xywh))
            )
    if convention is not None:
        fits = xywh if convention == "xywh" else xyxy
        loose = [i for i, iou in fits.items() if iou < AGREES]
        text = f"boxes whose IoU with the extent of their mask is below {AGREES}, read as {convention}"
        findings += on_records(Severity.WARNING, "box-off-mask", text, records, loose)
    text = "boxes of references whose mask is empty"
    findings += on_records(Severity.WARNING, "box-without-mask", text, records, around_nothing)
    return summary, findings


def check_areas(
    records: Sequence[Record], masks: Sequence[MaskFacts | None]
) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Compares stored areas with the number of pixels in the masks.

    They disagree when they differ by more than 10 pixels and by more than a tenth: the area of a polygon is not quite
    its number of pixels.

    Returns:
        The number of areas, how many disagree and the median ratio of area to pixels over masks that are not empty;
        None where there is no area. And the findings.
    """
    stated = [i for i, record in enumerate(records) if record.area is not None]
    if not stated:
        return None, []
    bad = [i for i in stated if not _is_number(records[i].area)]
    findings = on_records(Severity.WARNING, "bad-area", "areas that are no finite number", records, bad)
    ratios, wrong = [], []
    for i in stated:
        area, facts = records[i].area, masks[i]
        if not _is_number(area) or facts is None or facts.problem is not None:
            continue
        if facts.pixels:
            ratios.append(area / facts.pixels)
        if abs(area - facts.pixels) > max(10, facts.pixels / 10):
            wrong.append(i)
    ratio = median(ratios) if ratios else None
    if wrong:
        text = "areas that are not the number of pixels in the mask"
        if ratio is not None:
            text += f"; over all areas the median ratio of area to pixels is {ratio:.4g}"
        findings += on_records(Severity.WARNING, "area", text, records, wrong)
    return {"areas": len(stated), "differing": len(wrong), "median_ratio": ratio}, findings


def box_corners(bbox: Any, convention: str) -> Box | None:
    """Returns a stored box as left, top, right, bottom in pixels; None where it is not four finite numbers.

    Args:
        bbox: as the annotations hold it.
        convention: `xywh` or `xyxy`.
    """
    box = _numbers(bbox)
    if box is None or convention == "xyxy":
        return box
    return (box[0], box[1], box[0] + box[2], box[1] + box[3])


def _numbers(value: Any) -> Box | None:
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(_is_number(item) for item in value):
        return None
    return (value[0], value[1], value[2], value[3])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15  # not NaN either


def _iou(first: Box, second: Box) -> float:
    """Returns the IoU of two boxes left, top, right, bottom; 0 where the first has no area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0 or first[2] <= first[0] or first[3] <= first[1]:
        return 0.0
    shared = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)
