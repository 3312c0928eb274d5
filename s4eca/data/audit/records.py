"""What an audit looks at: entries as the files hold them, complete or not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s4eca.data.references import MaskSource


@dataclass(frozen=True, slots=True)
class Record:
    """One expression as the annotation files describe it; unlike a `Reference` it may lack nearly everything.

    Attributes:
        id: as the dataset's reader would name it; not necessarily unique.
        split: as written, whatever it is.
        expression: surrounding white space removed; may be empty.
        category: class name, `id 18` where only a number is known, None where the dataset has none.
        image: where the image file should be, None where the annotations do not say.
        mask: None where the annotation is missing.
        no_target: the expression is meant to name nothing.
        stated_size: (height, width) that the annotations give for the image.
        bbox: as written.
        area: as written.
    """

    id: str
    split: str
    expression: str
    category: str | None = None
    image: Path | None = None
    mask: MaskSource | None = None
    no_target: bool = False
    stated_size: tuple[int, int] | None = None
    bbox: Any = None
    area: Any = None
