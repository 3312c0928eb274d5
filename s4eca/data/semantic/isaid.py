"""Reader for iSAID (Zamir et al., CVPR workshops 2019), as whole scenes and as patches."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from s4eca.data.readers.checks import check_split
from s4eca.data.readers.listing import Listing
from s4eca.data.readers.names import ImageFolder
from s4eca.data.semantic.labelled import LabelledImage
from s4eca.errors import S4ecaError

PATCH, OVERLAP = 896, 384
"""Side of the patches and their overlap in pixels in mmsegmentation, the protocol of open-vocabulary papers."""

SCENE_COUNTS = {"train": 1_411, "val": 458, "test": 937}
PATCH_COUNTS = {"train": 33_978, "val": 11_644}
"""What mmsegmentation states for the patches; its test images are not cut."""

LABEL_ENDING = "_instance_color_RGB.png"
_INSTANCE_ENDING = "_instance_id_RGB.png"
_BASES = ("", "iSAID")


@dataclass(frozen=True)
class ISAIDLayout:
    """Where a split's files are.

    Attributes:
        images: folder of the images.
        labels: folders that hold the label maps, asked in this order.
        patches: they are patches, whose label maps hold ids; the scenes' hold colours.
    """

    images: Path
    labels: tuple[Path, ...]
    patches: bool


def read_isaid(
    root: str | Path, split: str, strict_counts: bool = False, patches: bool | None = None
) -> list[LabelledImage]:
    """Lists one split, ordered by file name.

    Two layouts are known, both possibly inside a folder `iSAID/`. Where both are there, the patches are read:

    - patches: `img_dir/SPLIT/NAME.png`, `ann_dir/SPLIT/NAME_instance_color_RGB.png` (ids, in spite of the name);
    - scenes: `SPLIT/images/NAME.png`, and `NAME_instance_color_RGB.png` beside it or in
      `SPLIT/Semantic_masks/images/` (colours). Papers score patches, see `s4eca.data.semantic.patches`.

    Args:
        root: the folder that holds one of them.
        split: `train`, `val` or `test`; for `test` nobody has published labels, and none are looked for.
        strict_counts: a number of images other than the published one is an error instead of a warning.
        patches: take this layout only; None takes the one that is there.

    Raises:
        S4ecaError: neither layout is there, the split is empty, or label maps are missing.
    """
    check_split(split)
    layout = find_layout(root, split, patches)
    listing = Listing()
    labels_of = [ImageFolder(folder, listing) for folder in layout.labels if split != "test"]
    endings = (LABEL_ENDING.lower(), _INSTANCE_ENDING.lower())
    names = sorted(
        name
        for name in listing.folder(layout.images)
        if name.lower().endswith(".png") and not name.lower().endswith(endings)
    )
    items = []
    missing = []
    for name in names:
        stem = name[: -len(".png")]
        found = [folder.find(f"{stem}{LABEL_ENDING}") for folder in labels_of]
        labels = next((path for path in found if path), None)
        if found and labels is None:
            missing.append(f"{stem}{LABEL_ENDING}")
        items.append(LabelledImage(stem, layout.images / name, split, labels, coloured=not layout.patches))
    if missing:
        raise S4ecaError(
            f"{len(missing):,} of {len(names):,} label maps of the {split} split of iSAID are missing"
            f" ({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}; looked in"
            f" {', '.join(map(str, layout.labels))}), and {listing.describe(layout.labels[-1])}: complete"
            " the folder."
        )
    counts = PATCH_COUNTS if layout.patches else SCENE_COUNTS
    if not items:
        raise S4ecaError(
            f"The {split} split of iSAID is empty, no .png file is there and {listing.describe(layout.images)}: set"
            " data.root to the folder that holds the whole dataset."
        )
    check_size(f"The {split} split of iSAID in {layout.images}", len(items), counts.get(split), layout, strict_counts)
    return items


def find_layout(root: str | Path, split: str, patches: bool | None = None) -> ISAIDLayout:
    """Finds the folders of a split below `root`, patches before scenes.

    Raises:
        S4ecaError: no layout is complete; the message says which folders were looked for.
    """
    root = Path(root)
    if not root.is_dir():
        raise S4ecaError(f"There is no folder {root}: set data.root to the folder that holds iSAID.")
    lacking = []
    for cut in (True, False) if patches is None else (patches,):
        for base in (root / name for name in _BASES):
            images = base / "img_dir" / split if cut else base / split / "images"
            if cut:
                labels: tuple[Path, ...] = (base / "ann_dir" / split,)
            else:
                labels = (images, base / split / "Semantic_masks" / "images")
            if images.is_dir() and (split == "test" or any(folder.is_dir() for folder in labels)):
                return ISAIDLayout(images, labels, cut)
            lacking.append(str(images if not images.is_dir() else labels[0]))
    raise S4ecaError(
        f"The {split} split of iSAID is not complete in {root}: there is no {', nor '.join(lacking)}; see"
        " data/README.md for the layout."
    )


def check_size(what: str, found: int, expected: int | None, layout: ISAIDLayout, strict: bool) -> None:
    """Compares a split's size with the published one.

    Args:
        what: the split, for the message.
        found: number of images in it.
        expected: the published number, None where there is none to compare with.
        layout: whether they are patches or scenes.
        strict: raise instead of warning.

    Raises:
        S4ecaError: nothing was found, or the numbers differ and `strict` is set.
    """
    if found == 0:
        raise S4ecaError(f"{what} is empty: check that data.root holds the whole dataset.")
    if expected is None or found == expected:
        return
    noun = "patches" if layout.patches else "scenes"
    message = f"{what} has {found:,} {noun} where {expected:,} are expected"
    if strict:
        raise S4ecaError(f"{message}: complete the dataset or set data.strict_counts=false.")
    warnings.warn(f"{message}; results will not compare with published ones.", stacklevel=3)
