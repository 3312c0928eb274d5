"""From one layout to another without loss, or not at all."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s4eca.data.readers.checks import SPLITS, check_split
from s4eca.data.readers.layouts import DataLayout, detect_layout, get_layout
from s4eca.data.readers.writing import IMAGE_MODES, References, check_free, flatten, write_folder
from s4eca.errors import S4ecaError


def convert(
    source: str | Path,
    out: str | Path,
    to: str,
    layout: str | None = None,
    splits: Sequence[str] = SPLITS,
    images: str = "link",
    options: Mapping[str, Any] | None = None,
) -> References:
    """Writes a dataset in another layout, so that its reader gives the same references.

    Same are ids, expressions and their kinds, splits and their order, categories, masks, the no-target marks and the
    pixels of the images. What the new layout cannot hold is refused before anything is written. The result appears in
    one step.

    Args:
        source: the dataset's folder.
        out: the folder to write; missing or empty.
        to: name of the new layout, see `LAYOUTS`.
        layout: name of the source's layout; None finds out.
        splits: which of `train`, `val` and `test` to convert.
        images: `link` for symbolic links to the source's images, `copy` for copies.
        options: further arguments of the source's reader, such as `dataset` or `split_by`.

    Returns:
        The references of the source, by split.

    Raises:
        S4ecaError: the source is not whole, the layout cannot hold it, or `out` holds something.
    """
    source, out = Path(source), Path(out)
    target = get_layout(to)
    for split in splits:
        check_split(split)
    if images not in IMAGE_MODES:
        raise S4ecaError(f"There is no images={images}: choose one of {', '.join(IMAGE_MODES)}.")
    check_free(out)
    reader = get_layout(layout or detect_layout(source))
    references = _read(reader, source, splits, dict(options or {}))
    _check_text(references)
    if target.check is not None:
        target.check(references)
    write_folder(out, lambda draft: target.writer(references, draft, images))
    return references


def _read(layout: DataLayout, source: Path, splits: Sequence[str], options: dict[str, Any]) -> References:
    own = {"root", "split", "strict_counts", "expected", "need_files"}
    known = {name: item for name, item in inspect.signature(layout.reader).parameters.items() if name not in own}
    for name, value in options.items():
        if name not in known:
            raise S4ecaError(f"The reader of {layout.title} has no option {name}: it has {', '.join(known) or 'none'}.")
        if known[name].annotation in (int, int | None) and isinstance(value, str):
            try:
                options[name] = int(value)
            except ValueError as error:
                raise S4ecaError(f"{name}={value} is no whole number: give one.") from error
        if "Mapping" in str(known[name].annotation) and not isinstance(value, Mapping):
            raise S4ecaError(f"{name}={value} is no mapping: give one in Python, as convert(…, options=…).")
    # what is published for the source is not what is converted: a part of it is welcome
    return {split: layout.reader(source, split, expected={}, **options) for split in splits}


def _check_text(references: References) -> None:
    for item in flatten(references):
        try:
            f"{item.id}{item.expression}{item.category}{item.kind}".encode()
        except UnicodeEncodeError as error:
            raise S4ecaError(
                f"Reference {item.id!r} of the {item.split} split has text that UTF-8 cannot hold ({error.reason}):"
                " mend it in the source."
            ) from error
