"""COCO instance files of boxes, with their images."""

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

HEIGHT, WIDTH = 60, 90
NAMES = {1: "ship", 2: "Storage_tank", 7: "harbor"}


def outline(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def rle(left: int, top: int, right: int, bottom: int) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    code = coco.encode(mask)
    return {"size": code["size"], "counts": code["counts"].decode()}


def write_coco(root: Path, images: int = 20, edit=None) -> tuple[Path, Path]:
    """Writes images `1.png` … with up to seven boxes each; `edit(content)` changes the annotations.

    Returns:
        The annotation file and the folder of images.
    """
    draw = random.Random(3)
    folder = root / "pictures"
    folder.mkdir(parents=True)
    content: dict = {"images": [], "annotations": [], "categories": [{"id": i, "name": n} for i, n in NAMES.items()]}
    for number in range(1, images + 1):
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(folder / f"{number}.png")
        for category in [1] * draw.randint(1, 4) + [2] * draw.randint(0, 2) + [7]:
            left, top = draw.randint(3, WIDTH - 20), draw.randint(3, HEIGHT - 20)
            box = (left, top, left + draw.randint(4, 16), top + draw.randint(4, 16))
            shape = rle(*box) if draw.random() < 0.5 else outline(*box)
            row = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            content["annotations"].append(row | {"segmentation": shape})
    if edit:
        edit(content)
    path = root / "annotations.json"
    path.write_text(json.dumps(content))
    return path, folder
