"""Image and mask files under the names that annotations have for them, wherever these were written."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from s4eca.data.readers.listing import Listing
from s4eca.text import unmark

# what datasets call the folder that image names start from
_USUAL = ("images", "image", "jpegimages", "pngimages", "img_rgb")


class ImageFolder:
    r"""A folder of images or masks, in which names of other systems and other places are understood.

    A name is taken as it is where there is such a file. Otherwise its meaning has to be certain, which it is in what
    these rules change, one after the other, and in nothing else:

    - `\` is `/`, `C:` and a leading `/` are left out, `.` and `..` are worked out: see `below`;
    - what leads up to a folder that is called like this one, or as datasets call theirs (`images`, `JPEGImages`, …), is
      left out: `images/7.jpg` and `/home/me/set/JPEGImages/7.jpg` are `7.jpg`, `train/7.jpg` is not;
    - capitals do not count where one file alone fits, so that `7.JPG` is `7.jpg`;
    - `%20` is a blank, and so on.

    Args:
        path: the folder; it need not exist.
        listing: to share with others, so that a folder is listed once.
    """

    def __init__(self, path: Path, listing: Listing | None = None) -> None:
        self.path = path
        self.listing = listing or Listing()
        self._own = {*_USUAL, path.name.casefold()}

    def find(self, name: str) -> Path | None:
        """Returns the file that a name means, None where there is none or more than one could be meant."""
        if name in self.listing.folder(self.path):
            return self.path / name
        spelling, literal = below(name), self.path / unmark(name)
        if not spelling:
            return None
        if Path(name).is_absolute() and self.listing.has(literal):
            return literal
        for text in dict.fromkeys((spelling, below(unquote(name)))):
            parts = text.split("/")
            starts = [0, *(i + 1 for i, part in enumerate(parts[:-1]) if part.casefold() in self._own)]
            for start in starts:
                found = self.listing.match(self.path.joinpath(*parts[start:]))
                if found is not None:
                    return found
        return literal if self.listing.has(literal) else None

    def file(self, name: str) -> Path:
        """Returns the file that a name means, or where it would be."""
        return self.find(name) or self.path / below(name)


def fullest_folder(folders: Sequence[Path], names: Iterable[str]) -> tuple[ImageFolder, int]:
    """Returns which folder has most of the files that `names` mean, and how many; the first at a tie."""
    wanted, listing = set(names), Listing()
    there = [ImageFolder(path, listing) for path in folders]
    counts = [sum(f.find(name) is not None for name in wanted) if listing.folder(f.path) else 0 for f in there]
    best = counts.index(max(counts))
    return there[best], counts[best]


def below(name: str) -> str:
    r"""Returns an image's name as a path below the folder of its images, with `/` between folders.

    >>> below(r".\sub\..\images\7.jpg")
    'images/7.jpg'
    >>> below(r"C:\set\7.jpg")
    'set/7.jpg'
    """
    text = unmark(name).strip().replace("\\", "/")
    text = re.sub(r"^([A-Za-z]:(?=/)|[A-Za-z][A-Za-z0-9+.-]*://)", "", text)
    parts = os.path.normpath(f"/{text}").split("/") if text else []
    return "/".join(part for part in parts if part)
