"""The whole method: from an image and its expressions to masks, by way of the stages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from s4eca.dgl_rsis.base import Decoupler, Grounding, Proposer, RegionEncoder, Selector
from s4eca.dgl_rsis.grounding.activation import cell_weights
from s4eca.dgl_rsis.knowledge import Knowledge
from s4eca.dgl_rsis.labels import label_map
from s4eca.dgl_rsis.parts import Evidence, Phrase, Proposals, Selection, View
from s4eca.dgl_rsis.selection.scores import class_probabilities
from s4eca.dgl_rsis.stages import Stages
from s4eca.dgl_rsis.words import TextBank, text_bank


class Pipeline(nn.Module):
    """DGL-RSIS (our re-implementation), training-free (Xu et al., arXiv 2509.00598).

    Args:
        decoupler: splits expressions into local and global words.
        proposer: finds class-agnostic masks.
        regions: encodes masks and texts into one space.
        grounding: maps words onto the image; None where only label maps are asked for.
        selector: joins all of it into a mask.
        knowledge: of the dataset's classes.
        prompts: level of knowledge in the texts of the classes, `P0` (a photo's template) to `P3` (descriptions too).
        cache: folder that keeps what the stages give; None keeps nothing.
    """

    def __init__(
        self,
        decoupler: Decoupler,
        proposer: Proposer,
        regions: RegionEncoder,
        grounding: Grounding | None,
        selector: Selector,
        knowledge: Knowledge,
        prompts: str = "P3",
        cache: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.decoupler, self.selector, self.knowledge = decoupler, selector, knowledge
        self.proposer, self.regions, self.grounding = proposer, regions, grounding
        self.classes, self.background = knowledge.prompts(prompts), knowledge.background_prompts(prompts)
        self.stages = Stages(proposer, regions, grounding, cache)
        self._bank: TextBank | None = None
        self._last_cells: tuple[Proposals | None, dict[tuple[int, ...], np.ndarray]] = (None, {})

    def bank(self) -> TextBank:
        """Returns the features of the classes and the background, made once."""
        if self._bank is None:
            self._bank = text_bank(self.stages.texts, self.classes, self.background)
        return self._bank

    def evidence(self, view: View, expressions: Sequence[str]) -> list[Evidence]:
        """Returns what the selector needs to know about some expressions in one image."""
        phrases = [self.decoupler(expression) for expression in expressions]
        proposals, features = self.stages.proposals(view), self.stages.regions(view)
        maps = self.stages.maps(view, phrases)
        bank = self.bank()
        sentences = self.stages.texts([phrase.text for phrase in phrases])
        nouns = self.stages.texts([noun_phrase(phrase) for phrase in phrases])
        cells = {found.whole.shape: self._cells_of(proposals, found.whole.shape) for found in maps}
        similarity = features @ bank.features.T
        return [
            Evidence(
                phrase=phrase,
                proposals=proposals,
                maps=found,
                cells=cells[found.whole.shape],
                classes=bank.names,
                n_background=bank.n_background,
                similarity=similarity,
                sentence=features @ sentence,
                noun_phrase=features @ noun,
            )
            for phrase, found, sentence, noun in zip(phrases, maps, sentences, nouns, strict=True)
        ]

    def _cells_of(self, proposals: Proposals, shape: tuple[int, ...]) -> np.ndarray:
        """Returns `cell_weights`; those of the last proposals are at hand, since expressions share images."""
        known, cells = self._last_cells
        if known is not proposals:
            cells = {}
        if shape not in cells:
            cells[shape] = cell_weights(proposals.masks(), *shape)
        self._last_cells = (proposals, cells)
        return cells[shape]

    def segment(self, view: View, expressions: Sequence[str]) -> list[Selection]:
        """Returns the masks of some expressions in one image."""
        return [self.selector.select(evidence) for evidence in self.evidence(view, expressions)]

    def label(self, view: View, settings: Mapping[str, Any]) -> np.ndarray:
        """Returns a label map (H, W) uint8 over the knowledge's classes, 0 for background.

        Args:
            view: the image.
            settings: of `s4eca.dgl_rsis.labels.label_map`, and `tau` of the class probabilities.
        """
        options = dict(settings)
        proposals, bank = self.stages.proposals(view), self.bank()
        similarity = self.stages.regions(view) @ bank.features.T
        probabilities = class_probabilities(similarity, options.pop("tau"))
        return label_map(probabilities, proposals, bank.n_background, **options)


def noun_phrase(phrase: Phrase) -> str:
    """Returns the head noun and its attributes as they stand in the expression; all of it where there is no head."""
    places = sorted({*phrase.attributes, *phrase.local})
    if not places:
        return phrase.text
    return " ".join(phrase.words[place].text for place in places)
