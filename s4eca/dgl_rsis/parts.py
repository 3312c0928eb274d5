"""What flows between the stages of DGL-RSIS: views, phrases, proposals, activation maps, evidence, selections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Span = tuple[int, int]
"""Characters of an expression, the end exclusive."""


@dataclass(frozen=True, eq=False)
class View:
    """An image as the stages see it.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        key: names the pixels: equal keys mean equal images.
        name: of the image file, without folder and suffix; precomputed masks are found by it.
        truth: (H, W) bool, the mask of the expression that is asked for; only the oracle looks at it.
    """

    image: np.ndarray
    key: str
    name: str = ""
    truth: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class Word:
    """A word of an expression: its text as written, and where it stands."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Relation:
    """What an expression says about its target and another object.

    Attributes:
        span: of the whole relation, from its first word to the end of the reference object's words, for example
            "on the lower left of the harbor".
        noun: the reference object's class as the vocabulary names it, or its noun as written; None where there is none.
    """

    span: Span
    noun: str | None


@dataclass(frozen=True)
class Phrase:
    """An expression, decoupled into what its target is (local) and what tells it from others (global).

    Attributes:
        text: the expression.
        words: of it, in order; punctuation is no word.
        head: the target's noun: the class as the vocabulary names it where it is one, else the noun as written; None
            where there is none.
        category: `head` where the vocabulary has it, else None.
        head_span: of the head noun as it stands in the text.
        local: positions in `words` of the head noun.
        context: positions of the words that modify it (attributes, place, relations with their nouns); articles,
            copulas and the like are in neither.
        attributes: positions of the words before the head that describe it.
        place: absolute place out of `left`, `right`, `top`, `bottom`, `middle`, as said.
        place_span: of the words that say it, from the preposition on: "on the lower left".
        relations: to other objects, in order.
        fallback: why the local words are not what was asked for, None where they are: `no known noun` (the head is no
            class of the vocabulary), `no noun` (the whole text is taken).
    """

    text: str
    words: tuple[Word, ...]
    head: str | None = None
    category: str | None = None
    head_span: Span | None = None
    local: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    attributes: tuple[int, ...] = ()
    place: tuple[str, ...] = ()
    place_span: Span | None = None
    relations: tuple[Relation, ...] = ()
    fallback: str | None = None

    def spans(self, positions: Sequence[int]) -> list[Span]:
        """Returns the characters of some words."""
        return [(self.words[position].start, self.words[position].end) for position in positions]


@dataclass(frozen=True, eq=False)
class Proposals:
    """Class-agnostic masks of one image, the best first, at one bit a pixel.

    Attributes:
        bits: (K, ⌈H·W / 8⌉) uint8, each mask's pixels row by row.
        size: (H, W).
        scores: (K,) float32, the proposer's own confidence; comparable within one image.
        sources: name of the proposer of each mask.
        boxes: (K, 4) int32, x0, y0, x1, y1, the ends exclusive.
        areas: (K,) int64, pixels.
        components: (K,) int32, connected parts (8 neighbours).
    """

    bits: np.ndarray
    size: tuple[int, int]
    scores: np.ndarray
    sources: tuple[str, ...]
    boxes: np.ndarray
    areas: np.ndarray
    components: np.ndarray

    def __len__(self) -> int:
        return len(self.bits)

    @classmethod
    def from_masks(
        cls, masks: np.ndarray, scores: np.ndarray | None = None, sources: str | Sequence[str] = ""
    ) -> "Proposals":
        """Packs masks (K, H, W) bool, none of them empty; without scores all are 1."""
        count, height, width = masks.shape
        areas = masks.sum(axis=(1, 2), dtype=np.int64)
        if (areas == 0).any():
            raise ValueError("a proposal without a pixel")
        boxes = np.zeros((count, 4), np.int32)
        components = np.zeros(count, np.int32)
        for place, mask in enumerate(masks):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            boxes[place] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            x0, y0, x1, y1 = boxes[place]
            components[place] = cv2.connectedComponents(mask[y0:y1, x0:x1].astype(np.uint8), connectivity=8)[0] - 1
        return cls(
            bits=np.packbits(masks.reshape(count, height * width), axis=1),
            size=(height, width),
            scores=np.ones(count, np.float32) if scores is None else np.asarray(scores, np.float32),
            sources=(sources,) * count if isinstance(sources, str) else tuple(sources),
            boxes=boxes,
            areas=areas,
            components=components,
        )

    def mask(self, place: int) -> np.ndarray:
        """Returns one mask (H, W) bool."""
        height, width = self.size
        return np.unpackbits(self.bits[place], count=height * width).view(bool).reshape(height, width)

    def masks(self) -> np.ndarray:
        """Returns all masks (K, H, W) bool."""
        height, width = self.size
        bits = np.unpackbits(self.bits, axis=1, count=height * width) if len(self) else np.zeros((0,), np.uint8)
        return bits.view(bool).reshape(len(self), height, width)

    def take(self, places: Sequence[int] | np.ndarray) -> "Proposals":
        """Returns some of them, in the order given."""
        chosen = np.asarray(places, np.int64)
        return Proposals(
            self.bits[chosen],
            self.size,
            self.scores[chosen],
            tuple(self.sources[place] for place in chosen.tolist()),
            self.boxes[chosen],
            self.areas[chosen],
            self.components[chosen],
        )

    def pack(self) -> dict[str, np.ndarray]:
        """Returns arrays for a cache."""
        return {
            "bits": self.bits,
            "size": np.array(self.size, np.int64),
            "scores": self.scores,
            "sources": np.frombuffer("\n".join(self.sources).encode(), np.uint8),
            "boxes": self.boxes,
            "areas": self.areas,
            "components": self.components,
        }

    @classmethod
    def unpack(cls, arrays: Mapping[str, np.ndarray]) -> "Proposals":
        """Undoes `pack`."""
        height, width = arrays["size"].tolist()
        sources = arrays["sources"].tobytes().decode().split("\n") if len(arrays["bits"]) else []
        return cls(
            arrays["bits"],
            (height, width),
            arrays["scores"],
            tuple(sources),
            arrays["boxes"],
            arrays["areas"],
            arrays["components"],
        )


@dataclass(frozen=True, eq=False)
class Maps:
    """Where a grounding model looks for the words of one expression, on a grid of cells that covers the image.

    All are (rows, columns) float32, ≥ 0, not normalised; a map whose words are missing is all zero.

    Attributes:
        local: mean over the sub-tokens of the head noun.
        context: mean over the sub-tokens of the modifiers.
        whole: of the token that stands for the sentence.
        average: mean over all sub-tokens of the expression.
        score: the model's own match score of image and expression (a logit or a cosine).
    """

    local: np.ndarray
    context: np.ndarray
    whole: np.ndarray
    average: np.ndarray
    score: float

    def pack(self) -> dict[str, np.ndarray]:
        """Returns arrays for a cache."""
        arrays = {name: getattr(self, name) for name in ("local", "context", "whole", "average")}
        return arrays | {"score": np.array([self.score], np.float64)}

    @classmethod
    def unpack(cls, arrays: Mapping[str, np.ndarray]) -> "Maps":
        """Undoes `pack`."""
        return cls(arrays["local"], arrays["context"], arrays["whole"], arrays["average"], float(arrays["score"][0]))


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a selector may look at; nothing of it needs a model any more.

    Attributes:
        phrase: the decoupled expression.
        proposals: of the image.
        maps: of the expression.
        cells: (K, rows, columns) float32: how much of each proposal lies under each cell of the maps, in pixels, by the
            weights of bilinear upsampling, so that `(cells * map).sum((1, 2))` is the sum of the upsampled map inside
            the proposal, exactly.
        classes: names of the text bank's classes, background prompts last.
        n_background: how many of them are background.
        similarity: (K, C) float32, cosine of each proposal with each class.
        sentence: (K,) float32, cosine of each proposal with the whole expression.
        noun_phrase: (K,) float32, cosine with the head noun and its attributes alone.
    """

    phrase: Phrase
    proposals: Proposals
    maps: Maps
    cells: np.ndarray
    classes: tuple[str, ...]
    n_background: int
    similarity: np.ndarray
    sentence: np.ndarray
    noun_phrase: np.ndarray


@dataclass(frozen=True, eq=False)
class Selection:
    """What a selector decided for one expression.

    Attributes:
        mask: (H, W) bool.
        chosen: positions of the proposals that it is made of, the best first; empty where it is made of the map.
        scores: (K,) float32, of every proposal; higher is better.
        activation: (rows, columns) float32 in [0, 1], the map that was used.
        fallback: name of what had to be done instead of the selector's rule, None where the rule applied:
            `no proposal`, `flat map`, `no known noun`, …. The report counts them.
    """

    mask: np.ndarray
    chosen: tuple[int, ...]
    scores: np.ndarray
    activation: np.ndarray
    fallback: str | None = None
