"""What the writers of the layouts share: where image files go, and a folder that appears in one step."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from s4eca.data.images import read_image
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError

References = Mapping[str, Sequence[Reference]]
IMAGE_MODES = ("link", "copy")


def check_free(out: Path) -> None:
    """Raises `S4ecaError` unless a folder is missing or empty."""
    there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if there or (out.exists() and not out.is_dir()):
        listed = f" ({', '.join(there[:3])})" if there else ""
        raise S4ecaError(f"{out} exists and is not empty{listed}: choose a folder that does not exist yet.")


def write_folder(out: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill an empty folder, which then takes the place of `out`; an interrupted one leaves nothing.

    Raises:
        S4ecaError: there is no room, or no right to write.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise S4ecaError(f"{out.parent} cannot be written to ({error}): choose another folder.") from error
    try:
        draft.chmod(0o755)
        write(draft)
        draft.replace(out)
    except OSError as error:
        raise S4ecaError(f"{out} cannot be written ({error}): make room or choose another folder.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def flatten(references: References) -> list[Reference]:
    """Returns the references of all splits in one list, in order."""
    return [item for items in references.values() for item in items]


def file_names(references: Iterable[Reference]) -> dict[Path, str]:
    """Returns a name for every image: its path below the folder that all of them have in common."""
    paths = list(dict.fromkeys(item.image for item in references))
    common = Path(os.path.commonpath([path.absolute().parent for path in paths])) if paths else Path()
    return {path: path.absolute().relative_to(common).as_posix() for path in paths}


def place_images(names: Mapping[Path, str], folder: Path, how: str) -> None:
    """Puts image files into a folder under the given names, as they are.

    Args:
        names: as `file_names` returns them.
        folder: is made where it is missing.
        how: `link` for symbolic links to the files, `copy` for copies.

    Raises:
        S4ecaError: a file cannot be linked or copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in names.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        place_image(source, target, how)


def place_image(source: Path, target: Path, how: str) -> None:
    """Links or copies one file; raises `S4ecaError` where that fails."""
    try:
        if how == "link":
            target.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise S4ecaError(
            f"{source} cannot be put to {target} ({error}): make room, or choose the other of images=link and"
            " images=copy."
        ) from error


def place_as(source: Path, target: Path, how: str, id: str) -> None:
    """Puts an image under a name that ends in `.tif` or `.png`; another format is written anew, pixel for pixel."""
    suffixes = {".tif": (".tif", ".tiff"), ".png": (".png",)}[target.suffix]
    if source.suffix.lower() in suffixes:
        place_image(source, target, how)
    else:
        save_grid(Image.fromarray(read_image(source, id)), target)


def save_grid(image: Image.Image, target: Path) -> None:
    """Writes an image without loss; TIFF is compressed by PackBits, as RefSegRS's files are."""
    image.save(target, **({"compression": "packbits"} if target.suffix == ".tif" else {}))
