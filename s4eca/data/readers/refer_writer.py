"""Writer of REFER's layout, as RRSIS-D has it."""

import json
import pickle
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from s4eca.data.masks import encode_mask
from s4eca.data.readers.writing import References, file_names, flatten, place_images
from s4eca.data.references import Reference

# gRefCOCO's way to say that nothing is meant
_NOTHING = [-1]


def write_refer(references: References, out: Path, images: str, dataset: str = "rrsisd", split_by: str = "unc") -> None:
    """Writes `DATASET/refs(SPLIT_BY).p`, `DATASET/instances.json` and `images/DATASET/JPEGImages/`.

    This layout can hold every reference. Each becomes an entry with one sentence and, unless it has no target, one
    annotation, which bears the expression's `kind` if there is one. Ids that are numbers are the `ref_id`; a reference
    with another id gets a free number and keeps its own under the key `id`, which our reader prefers and others
    overlook. Height and width of an image are those of its masks, as in the datasets themselves. `bbox` is x, y, width,
    height and `area` is in pixels.

    Args:
        references: by split.
        out: an empty folder.
        images: `link` or `copy`.
        dataset: name of the folders.
        split_by: the name in brackets.
    """
    items = flatten(references)
    names = file_names(items)
    numbers = _numbers(items)
    categories = sorted({item.category for item in items if item.category is not None})
    sizes: dict[Path, tuple[int, int]] = {}
    image_ids: dict[Path, int] = {}
    refs, annotations = [], []
    for item, number in zip(items, numbers, strict=True):
        mask = item.mask.decode()
        size = sizes.setdefault(item.image, (mask.shape[0], mask.shape[1]))
        image_id = image_ids.setdefault(item.image, number)
        category = categories.index(item.category) if item.category is not None else -1
        stated = not item.no_target or mask.shape != size or item.kind is not None
        sentence = {"tokens": item.expression.split(), "raw": item.expression, "sent_id": number}
        ref: dict[str, Any] = {
            "image_id": image_id,
            "split": item.split,
            "sentences": [{**sentence, "sent": item.expression}],
            "file_name": names[item.image],
            "category_id": category,
            "ann_id": number if stated else _NOTHING,
            "sent_ids": [number],
            "ref_id": number,
        }
        if item.no_target:
            ref["no_target"] = True
        if item.id != str(number):
            ref["id"] = item.id
        refs.append(ref)
        if stated:
            rle = encode_mask(mask)
            # RRSIS-D's own key is misspelt, and its readers look for that one
            keys = {"category_id": category, "categories_id": category, "id": number, "image_id": image_id}
            extent = {"bbox": [int(side) for side in coco.toBbox(rle)], "area": int(coco.area(rle))}
            kind = {} if item.kind is None else {"kind": item.kind}
            annotations.append({**keys, **extent, **kind, "segmentation": [rle]})
    content = {
        "images": [
            {"file_name": names[path], "height": sizes[path][0], "width": sizes[path][1], "id": id}
            for path, id in image_ids.items()
        ],
        "annotations": annotations,
        "categories": [{"name": name, "id": id} for id, name in enumerate(categories)],
    }
    (out / dataset).mkdir()
    # protocol 2 as the published files; builtin types alone, so that no global is in it
    with (out / dataset / f"refs({split_by}).p").open("wb") as stream:
        pickle.dump(refs, stream, protocol=2)
    (out / dataset / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    place_images(names, out / "images" / dataset / "JPEGImages", images)


def _numbers(items: list[Reference]) -> list[int]:
    """Returns a number for every reference: its id where that is one, a free one otherwise."""
    taken = {int(item.id) for item in items if _is_number(item.id)}
    given: set[int] = set()
    following = max(taken, default=0) + 1
    numbers = []
    for item in items:
        # the same id in two splits is two references, and one of them needs another number
        if _is_number(item.id) and int(item.id) not in given:
            number = int(item.id)
        else:
            number, following = following, following + 1
        given.add(number)
        numbers.append(number)
    return numbers


def _is_number(id: str) -> bool:
    return id.isascii() and id.isdecimal() and str(int(id)) == id
