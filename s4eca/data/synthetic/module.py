"""Drawn data sets in the on-disk layout of a real one, to try a whole run without downloading anything."""

import json
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.readers.checks import SPLITS
from s4eca.data.readers.refsegrs import read_refsegrs
from s4eca.data.readers.rrsis_d import read_rrsis_d
from s4eca.data.references import Reference
from s4eca.data.synthetic.drawing import draw_scene
from s4eca.data.synthetic.scenes import Scene, plan_scene
from s4eca.errors import S4ecaError

LAYOUTS = ("rrsis_d", "refsegrs")

# RRSIS-D's names in the order of its ids, which start at 0.
RRSIS_D_CATEGORIES = (
    "Expressway-Service-area",
    "Expressway-toll-station",
    "airplane",
    "airport",
    "baseballfield",
    "basketballcourt",
    "bridge",
    "chimney",
    "dam",
    "golffield",
    "groundtrackfield",
    "harbor",
    "overpass",
    "ship",
    "stadium",
    "storagetank",
    "tenniscourt",
    "trainstation",
    "vehicle",
    "windmill",
)

_MARKER = "synthetic.json"
_VERSION = 2  # raise it when the same seed draws something else; 2: "An airplane"


def synthesize(
    out: str | Path,
    layout: str = "rrsis_d",
    seed: int = 0,
    train: int = 200,
    val: int = 40,
    test: int = 40,
    size: int = 160,
) -> Path:
    """Draws scenes and writes them so that the layout's own reader reads them.

    The result is a function of the arguments, byte for byte. It appears in one step: a run that is interrupted leaves
    no half-written folder. A folder that holds the same data already is left as it is.

    Args:
        out: the folder to write; missing, empty, or written by the same call before.
        layout: `rrsis_d` (REFER) or `refsegrs`.
        seed: of the scenes.
        train: number of images; one reference each.
        val: see `train`.
        test: see `train`.
        size: side of the images in pixels.

    Returns:
        `out`.

    Raises:
        S4ecaError: an argument is out of range, or the folder holds something else.
    """
    out = Path(out)
    counts = {"train": train, "val": val, "test": test}
    if min(counts.values()) < 1 or size < 48 or seed < 0:
        raise S4ecaError(
            f"Synthetic data needs an image in every split, 48 pixels and a seed from 0 on, not {counts}, size={size},"
            f" seed={seed}: raise what is too small."
        )
    parameters = scene_parameters(layout, seed, counts, size)
    if holds(out, parameters):
        return out

    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        draft.chmod(0o755)
        write = _write_rrsis_d if layout == "rrsis_d" else _write_refsegrs
        write(draft, seed, counts, size)
        (draft / _MARKER).write_text(json.dumps(parameters) + "\n", encoding="utf-8")
        try:
            draft.replace(out)
        except OSError:
            # another process was faster; its folder is as good as ours if it holds the same
            if not holds(out, parameters):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out


def scene_parameters(layout: str, seed: int, counts: dict[str, int], size: int) -> dict[str, Any]:
    """Returns what is noted beside the data; raises `S4ecaError` for a layout that does not exist."""
    if layout not in LAYOUTS:
        raise S4ecaError(f"There is no layout {layout!r}: choose one of {', '.join(LAYOUTS)}.")
    return {"version": _VERSION, "layout": layout, "seed": seed, **counts, "size": size}


def holds(out: Path, parameters: dict[str, Any]) -> bool:
    """Returns whether a folder holds the data of these parameters; False where it is missing or empty.

    Raises:
        S4ecaError: it holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise S4ecaError(f"{out} holds something else than synthetic data: choose another data.root.") from error
    differences = [
        f"{key}={found.get(key)} instead of {value}" for key, value in parameters.items() if found.get(key) != value
    ]
    if differences:
        raise S4ecaError(
            f"{out} holds synthetic data with {', '.join(differences)}: delete the folder or choose another data.root."
        )
    return True


def scene_at(seed: int, split: str, number: int) -> tuple[Scene, np.random.Generator]:
    """Returns scene `number` of a split, and the generator that goes on to draw it."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    return plan_scene(rng), rng


def _write_rrsis_d(root: Path, seed: int, counts: dict[str, int], size: int) -> None:
    """Writes REFER's layout with RRSIS-D's peculiarities: `categories_id`, xyxy boxes, one RLE in a list."""
    folder = root / "images" / "rrsisd" / "JPEGImages"
    folder.mkdir(parents=True)
    (root / "rrsisd").mkdir()
    refs, images, annotations = [], [], []
    id = 0
    for split, count in counts.items():
        for number in range(count):
            id += 1
            scene, rng = scene_at(seed, split, number)
            picture, mask = draw_scene(scene, size, rng)
            name = f"{id:05d}.jpg"
            Image.fromarray(picture).save(folder / name, quality=95)
            category = RRSIS_D_CATEGORIES.index(scene.things[scene.target].kind.replace(" ", ""))
            refs.append(_ref(id, split, scene.expression, name, category))
            images.append({"file_name": name, "height": size, "width": size, "id": id})
            annotations.append(_annotation(id, mask, category) | {"kind": scene.description.form})
    # protocol 2 as the real file; builtin types alone, so that no global is in it
    with (root / "rrsisd" / "refs(unc).p").open("wb") as stream:
        pickle.dump(refs, stream, protocol=2)
    categories = [{"name": name, "id": number} for number, name in enumerate(RRSIS_D_CATEGORIES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "rrsisd" / "instances.json").write_text(json.dumps(content), encoding="utf-8")


def _ref(id: int, split: str, expression: str, name: str, category: int) -> dict[str, Any]:
    sentence = {"tokens": expression.split(), "raw": expression, "sent_id": id, "sent": expression}
    return {
        "image_id": id,
        "split": split,
        "sentences": [sentence],
        "file_name": name,
        "category_id": category,
        "ann_id": id,
        "sent_ids": [id],
        "ref_id": id,
    }


def _annotation(id: int, mask: np.ndarray, category: int) -> dict[str, Any]:
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return {
        "bbox": [int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])],
        "categories_id": category,
        "id": id,
        "image_id": id,
        "segmentation": [{"size": list(mask.shape), "counts": rle["counts"].decode()}],
        "area": int(mask.sum()),
    }


def _write_refsegrs(root: Path, seed: int, counts: dict[str, int], size: int) -> None:
    """Writes RefSegRS's layout: TIFF images, PackBits masks of 0 and 255, a text file for each split."""
    (root / "images").mkdir()
    (root / "masks").mkdir()
    id = 0
    for split, count in counts.items():
        lines = []
        for number in range(count):
            id += 1
            scene, rng = scene_at(seed, split, number)
            picture, mask = draw_scene(scene, size, rng)
            Image.fromarray(picture).save(root / "images" / f"{id}.tif", compression="packbits")
            grey = Image.fromarray(mask.astype(np.uint8) * 255)
            grey.save(root / "masks" / f"{id}.tif", compression="packbits")
            lines.append(f"{id} {scene.expression}\n")
        (root / f"output_phrase_{split}.txt").write_text("".join(lines), encoding="utf-8")


class SyntheticDataModule(ReferringDataModule):
    """Scenes drawn by `synthesize`, written where they are missing and read like the dataset they imitate.

    Args:
        layout: `rrsis_d` or `refsegrs`.
        train: number of training images; likewise `val` and `test`.
        val: see `train`.
        test: see `train`.
        scene_size: side of the drawn images in pixels.
        scene_seed: of the drawings.
        options: as for `ReferringDataModule`.
    """

    name = "synthetic"

    def __init__(
        self,
        *,
        layout: str = "rrsis_d",
        train: int = 200,
        val: int = 40,
        test: int = 40,
        scene_size: int = 160,
        scene_seed: int = 0,
        max_tokens: int = 22,
        **options: Any,
    ) -> None:
        super().__init__(max_tokens=max_tokens, **options)
        self.layout = layout
        self.counts = {"train": train, "val": val, "test": test}
        self.scene_size = scene_size
        self.scene_seed = scene_seed

    def prepare_data(self) -> None:
        """Draws the scenes into `root`; does nothing where they are there already."""
        synthesize(self.root, self.layout, self.scene_seed, **self.counts, size=self.scene_size)

    def read(self, split: str) -> list[Reference]:
        """Returns the references of a split; raises `S4ecaError` where `prepare_data` has not been called."""
        if not holds(self.root, scene_parameters(self.layout, self.scene_seed, self.counts, self.scene_size)):
            raise S4ecaError(f"There is no synthetic data in {self.root}: call prepare_data() first.")
        reader = read_rrsis_d if self.layout == "rrsis_d" else read_refsegrs
        return reader(self.root, split, self.strict_counts, expected=self.counts)
