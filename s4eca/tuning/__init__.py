"""Tuning methods: what is learned while the towers stay frozen; one file per method."""

from s4eca.tuning.base import Capabilities, Context, TuningMethod, Walk
from s4eca.tuning.bitfit import BitFit
from s4eca.tuning.bottleneck import Bottleneck
from s4eca.tuning.cola import CoLA
from s4eca.tuning.detris import DETRIS
from s4eca.tuning.etris import ETRIS
from s4eca.tuning.frozen import Frozen
from s4eca.tuning.full import FullFineTuning
from s4eca.tuning.lora import LoRA
from s4eca.tuning.mona import Mona
from s4eca.tuning.norm import NormTuning
from s4eca.tuning.prompt import DeepPrompts
from s4eca.tuning.s4eca import S4ECA

__all__ = [
    "DETRIS",
    "ETRIS",
    "S4ECA",
    "BitFit",
    "Bottleneck",
    "Capabilities",
    "CoLA",
    "Context",
    "DeepPrompts",
    "Frozen",
    "FullFineTuning",
    "LoRA",
    "Mona",
    "NormTuning",
    "TuningMethod",
    "Walk",
]
