"""The text side of mask classification: one feature for each class, from all the texts that are known about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s4eca.errors import S4ecaError


@dataclass(frozen=True, eq=False)
class TextBank:
    """Features of classes.

    Attributes:
        names: of the classes, those of the background last.
        features: (C, D) float32 of unit length.
        n_background: how many of the classes are background.
    """

    names: tuple[str, ...]
    features: np.ndarray
    n_background: int


def text_bank(
    encode: Callable[[Sequence[str]], np.ndarray],
    prompts: Mapping[str, Sequence[str]],
    background: Mapping[str, Sequence[str]] | Sequence[str] = (),
) -> TextBank:
    """Encodes the texts of all classes, each different one once; a class is the mean of its texts.

    The feature is `t_c = norm(mean f(text))` over unit features, CLIP's prompt ensembling (Radford et al., ICML 2021).

    Args:
        encode: gives features (T, D) of unit length, for example `RegionEncoder.encode_texts`.
        prompts: texts of each class.
        background: texts of each background class, or one text for each, which is its name too.

    Raises:
        S4ecaError: no class at all, a class without a text, or a name that is used twice.
    """
    stuff = background if isinstance(background, Mapping) else {text: [text] for text in background}
    if not prompts:
        raise S4ecaError("there is no class to tell masks apart by; give the dataset's knowledge at least one.")
    if twice := [*(prompts.keys() & stuff.keys())]:
        raise S4ecaError(f"{min(twice)!r} is both a class and a background class; rename one of them in the knowledge.")
    classes = {**prompts, **stuff}
    for name, texts in classes.items():
        if not texts or isinstance(texts, str):
            raise S4ecaError(f"the class {name!r} has no list of texts; give it at least one in the knowledge.")
    distinct = list(dict.fromkeys(text for texts in classes.values() for text in texts))
    rows = dict(zip(distinct, encode(distinct), strict=True))
    means = np.stack([np.mean([rows[text] for text in texts], axis=0) for texts in classes.values()])
    features = means / np.linalg.norm(means, axis=1, keepdims=True)
    return TextBank(tuple(classes), features.astype(np.float32), len(stuff))
