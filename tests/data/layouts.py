"""Generates tiny datasets in the layouts of the real ones, whole or with one thing wrong."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

HEIGHT, WIDTH = 24, 32
CATEGORIES = {13: "ship", 15: "storagetank", 18: "vehicle"}
SAMPLES = Path(__file__).parents[3] / "shared" / "data"

Edit = Callable[[list, dict], None]


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def box_mask(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[number % 7 : number % 7 + 6, number % 11 : number % 11 + 9] = True
    return mask


def rle(mask: np.ndarray) -> dict:
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def write_rrsis_d(
    root: Path,
    train: int = 4,
    val: int = 2,
    test: int = 2,
    annotations: str = "rrsisd",
    images: str = "images/rrsisd/JPEGImages",
    edit: Edit | None = None,
) -> Path:
    """Writes RRSIS-D's layout with its peculiarities; `edit(refs, instances)` changes them before they are written."""
    (root / annotations).mkdir(parents=True, exist_ok=True)
    (root / images).mkdir(parents=True, exist_ok=True)
    names = list(CATEGORIES)
    refs: list[dict] = []
    instances: dict = {"images": [], "annotations": []}
    instances["categories"] = [{"name": name, "id": id} for id, name in CATEGORIES.items()]
    for split, count in (("train", train), ("val", val), ("test", test)):
        for _ in range(count):
            id = 101 + 3 * len(refs)
            category = names[len(refs) % 3]
            sentence = f"The {CATEGORIES[category]} number {id} on the left"
            refs.append(
                {
                    "image_id": id,
                    "split": split,
                    "sentences": [{"tokens": sentence.split(), "raw": sentence, "sent_id": id, "sent": sentence}],
                    "file_name": f"{id:05d}.jpg",
                    "category_id": category,
                    "ann_id": id,
                    "sent_ids": [id],
                    "ref_id": id,
                }
            )
            instances["images"].append({"file_name": f"{id:05d}.jpg", "height": HEIGHT, "width": WIDTH, "id": id})
            instances["annotations"].append(
                {
                    "bbox": [3, 3, 9, 9],  # xyxy, and not the mask's extent
                    "categories_id": category,  # sic
                    "id": id,
                    "image_id": id,
                    "segmentation": [rle(box_mask(id))],
                    "area": 273_329,  # some 200 times too large
                }
            )
            Image.fromarray(picture(id)).save(root / images / f"{id:05d}.jpg")
    if edit is not None:
        edit(refs, instances)
    (root / annotations / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (root / annotations / "instances.json").write_text(json.dumps(instances), encoding="utf-8")
    return root


def write_refsegrs(
    root: Path,
    train: int = 4,
    val: int = 2,
    test: int = 2,
    images: str = "images",
    masks: str = "masks",
    phrases: dict[str, str] | None = None,
) -> Path:
    """Writes RefSegRS's layout; `phrases` maps splits to other names of the phrase files."""
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / masks).mkdir(parents=True, exist_ok=True)
    id = 40
    for split, count in (("train", train), ("val", val), ("test", test)):
        lines = []
        for _ in range(count):
            id += 1
            Image.fromarray(picture(id)).save(root / images / f"{id}.tif", compression="packbits")
            grey = Image.fromarray(box_mask(id).astype(np.uint8) * 255)
            grey.save(root / masks / f"{id}.tif", compression="packbits")
            lines.append(f"{id} vehicle in the parking area\n")
        name = (phrases or {}).get(split, f"output_phrase_{split}.txt")
        (root / name).write_text("".join(lines), encoding="utf-8")
    return root


def write_risbench(
    root: Path,
    train: int = 4,
    val: int = 2,
    test: int = 2,
    images: str = "img_rgb",
    masks: str = "mask",
    line: str = "{name} {sentence}",
) -> Path:
    """Writes RISBench's layout; masks are 0 and 255."""
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / masks).mkdir(parents=True, exist_ok=True)
    id = 60
    for split, count in (("train", train), ("val", val), ("test", test)):
        lines = []
        for _ in range(count):
            id += 1
            name = f"{split}_{id}_2.png"
            Image.fromarray(picture(id)).save(root / images / name)
            Image.fromarray(box_mask(id).astype(np.uint8) * 255).save(root / masks / name)
            lines.append(line.format(name=name, sentence=f"the ship number {id} in the harbor") + "\n")
        (root / f"output_phrase_{split}.txt").write_text("".join(lines), encoding="utf-8")
    return root


def jsonl_row(id: int, split: str) -> dict:
    """A line as RSRefSeg2 has it for RRSIS-D."""
    return {
        "split": split,
        "image_id": id,
        "sent": f"The ship number {id} on the left",
        "file_name": f"{id:05d}.jpg",
        "segmentation": [rle(box_mask(id))],
        "category_id": 13,
        "category_name": "ship",
        "ann_id": id,
        "bbox": [3, 3, 9, 9],
        "area": 273_329,
    }


def write_jsonl(
    root: Path,
    train: int = 4,
    val: int = 2,
    test: int = 2,
    name: str = "datainfo/rrsisd_{split}.jsonl",
    images: str = "images",
    edit: Callable[[str, list[dict]], None] | None = None,
) -> Path:
    """Writes the interchange format; `edit(split, rows)` changes a split's lines before they are written."""
    (root / images).mkdir(parents=True, exist_ok=True)
    id = 200
    for split, count in (("train", train), ("val", val), ("test", test)):
        rows = []
        for _ in range(count):
            id += 1
            rows.append(jsonl_row(id, split))
            Image.fromarray(picture(id)).save(root / images / f"{id:05d}.jpg")
        if edit is not None:
            edit(split, rows)
        path = root / name.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return root
