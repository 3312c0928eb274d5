"""Phrases for the tests, put together by hand."""

import re

import numpy as np

from s4eca.dgl_rsis.parts import Phrase, View, Word


def make_phrase(text: str, local: str = "", context: str = "") -> Phrase:
    """`local` and `context` are words of the text, each of which occurs once."""
    words = tuple(Word(found.group(), found.start(), found.end()) for found in re.finditer(r"\w+", text))
    names = [word.text for word in words]
    return Phrase(
        text,
        words,
        head=local or None,
        local=tuple(names.index(word) for word in local.split()),
        context=tuple(names.index(word) for word in context.split()),
    )


def make_view(side: int = 96, seed: int = 0) -> View:
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return View(image, f"random-{side}-{seed}")
