"""Small made-up iSAID data, in both layouts."""

from pathlib import Path

import numpy as np
from PIL import Image

# the colours of the devkit, written out once more
COLOURS = [
    *((0, 0, 0), (0, 0, 63), (0, 63, 63), (0, 63, 0), (0, 63, 127), (0, 63, 191), (0, 63, 255), (0, 127, 63)),
    *((0, 127, 127), (0, 0, 127), (0, 0, 191), (0, 0, 255), (0, 191, 127), (0, 127, 191), (0, 127, 255), (0, 100, 155)),
]


def make_scene(size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) and ids (H, W) with blocks of random classes."""
    random = np.random.default_rng(seed)
    height, width = size
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    blocks = random.integers(0, 16, (-(-height // 5), -(-width // 5)), dtype=np.uint8)
    return image, np.kron(blocks, np.ones((5, 5), np.uint8))[:height, :width]


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_scenes(
    root: Path, sizes: dict[str, tuple[int, int]], split: str = "val", labels: str = "images"
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Writes scenes of given sizes in the devkit's layout, and returns image and ids of each."""
    scenes = {}
    for seed, (name, size) in enumerate(sizes.items()):
        image, ids = scenes[name] = make_scene(size, seed)
        save(root / split / "images" / f"{name}.png", image)
        colours = np.zeros((*size, 3), np.uint8)
        for id, colour in enumerate(COLOURS):
            colours[ids == id] = colour
        if split != "test":
            save(root / split / labels / f"{name}_instance_color_RGB.png", colours)
            save(root / split / labels / f"{name}_instance_id_RGB.png", colours)
    return scenes


def write_patches(root: Path, count: int, size: int = 12, split: str = "val") -> dict[str, np.ndarray]:
    """Writes patches with ids, and returns the ids of each; the last column is not counted."""
    written = {}
    for number in range(count):
        name = f"P{number:04}_0_{size}_0_{size}"
        image, ids = make_scene((size, size), number)
        ids[:, -1] = 255
        save(root / "img_dir" / split / f"{name}.png", image)
        if split != "test":
            save(root / "ann_dir" / split / f"{name}_instance_color_RGB.png", ids)
        written[name] = ids
    return written
