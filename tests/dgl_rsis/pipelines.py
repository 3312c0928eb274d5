"""A whole pipeline of tiny random models for tests."""

from dgl_rsis.stand_ins import CountingProposer
from dgl_rsis.tiny_models import tiny_blip, tiny_clip
from s4eca.dgl_rsis.base import Proposer, Selector
from s4eca.dgl_rsis.decoupling.rules import RuleDecoupler
from s4eca.dgl_rsis.grounding.blip import BlipGrounding
from s4eca.dgl_rsis.knowledge import Knowledge
from s4eca.dgl_rsis.pipeline import Pipeline
from s4eca.dgl_rsis.regions import ClipRegions
from s4eca.dgl_rsis.selection.dgl import DglSelector


def tiny_pipeline(
    proposer: Proposer | None = None, selector: Selector | None = None, cache=None, knowledge: str = "synthetic"
) -> Pipeline:
    known = Knowledge.load(knowledge)
    return Pipeline(
        RuleDecoupler(known),
        proposer or CountingProposer(),
        ClipRegions(tiny_clip()),
        BlipGrounding(tiny_blip(), layer=1),
        selector or DglSelector(),
        known,
        prompts="P0",
        cache=cache,
    )
