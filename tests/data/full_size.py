"""Annotations of RRSIS-D's real size, drawn in seconds, and a measurement of what reading them costs."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SPLITS = {"train": 12_181, "val": 1_740, "test": 3_481}
SIDE = 800
WORDS = "the a gray large small ship vehicle bridge on left right upper lower of next to red blue long windmill"

# Run in a process of its own: `s4eca.data` is loaded before the first measurement, the data module after it.
MEASURE = """
import sys, time, json, re
from pathlib import Path
from s4eca.data import RRSISDDataModule

def status(key):
    return int(re.search(rf"{key}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 2**20

before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak of the imports is not that of the reading
start = time.perf_counter()
cpu = time.process_time()
data = RRSISDDataModule(root=sys.argv[1], strict_counts=True)
count = sum(len(data.references(split)) for split in ("train", "val", "test"))
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps({"count": count, "seconds": seconds, "cpu": cpu, "added": status("VmRSS") - before,
                  "peak": status("VmHWM") - before}))
"""


def write_full_size(root: Path) -> Path:
    """Writes RRSIS-D's files with 17,402 different masks and empty image files."""
    rng = np.random.default_rng(0)
    folder = root / "images/rrsisd/JPEGImages"
    folder.mkdir(parents=True)
    (root / "rrsisd").mkdir()
    words = WORDS.split()
    sentences = [" ".join(rng.choice(words, 7)) for _ in range(6_000)]
    counts = _masks(rng)
    refs, images, annotations = [], [], []
    splits = [split for split, number in SPLITS.items() for _ in range(number)]
    for id, split in enumerate(splits, start=1):
        name, sentence = f"{id:05d}.jpg", sentences[int(rng.integers(len(sentences)))]
        sentence = {"tokens": sentence.split(), "raw": sentence, "sent_id": id, "sent": sentence}
        ref = {"image_id": id, "split": split, "sentences": [sentence], "file_name": name, "category_id": id % 20}
        refs.append({**ref, "ann_id": id, "sent_ids": [id], "ref_id": id})
        images.append({"file_name": name, "height": SIDE, "width": SIDE, "id": id})
        segmentation = [{"size": [SIDE, SIDE], "counts": next(counts)}]
        annotation = {"bbox": [588, 592, 633, 623], "categories_id": id % 20, "id": id, "image_id": id}
        annotations.append({**annotation, "segmentation": segmentation, "area": 279_213})
        (folder / name).touch()
    categories = [{"name": f"class {number}", "id": number} for number in range(20)]
    (root / "rrsisd/refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "rrsisd/instances.json").write_text(json.dumps(content))
    return root


def _masks(rng: np.random.Generator) -> Iterator[str]:
    """Yields RLE counts: a few drawn shapes, each moved by a pixel from one use to the next."""
    pool = []
    for _ in range(40):
        runs = _shape(rng)
        middle = _code(runs[1]) + _code(runs[2])
        middle += "".join(_code(run - other) for run, other in zip(runs[3:-1], runs[1:-3], strict=True))
        pool.append((int(runs[0]), middle, int(runs[-1] - runs[-3])))
    step = 0
    while True:
        for first, middle, last in pool:
            # only the first and the last run change, and no run is stored as a difference to the first
            yield _code(first + step) + middle + _code(last - step)
        step += 1


def _shape(rng: np.random.Generator) -> np.ndarray:
    """Returns the runs of a ragged band that crosses the image from left to right, some 2,700 characters in RLE."""
    columns = SIDE - 20
    tops = 300 + np.clip(np.cumsum(rng.integers(-20, 21, columns)), -250, 250)
    heights = rng.integers(4, 60, columns)
    starts = SIDE * np.arange(columns) + tops
    edges = np.stack([starts, starts + heights], axis=1).ravel()
    return np.diff(np.concatenate([[0], edges, [SIDE * SIDE]]))


def _code(value: int) -> str:
    """COCO's code of one number: five bits a character, lowest first, the sixth for "more follow"."""
    text, value = "", int(value)
    while True:
        bits, value = value & 0x1F, value >> 5
        more = value != (-1 if bits & 0x10 else 0)
        text += chr(48 + bits + (32 if more else 0))
        if not more:
            return text
