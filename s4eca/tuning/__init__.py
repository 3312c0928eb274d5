"""Tuning methods: what is learned while the towers stay frozen; one file per method."""

from s4eca.tuning.base import Capabilities, Context, Join, TuningMethod, Walk
from s4eca.tuning.frozen import Frozen
from s4eca.tuning.full import FullFineTuning
from s4eca.tuning.lora import LoRA
from s4eca.tuning.s4eca import S4ECA

__all__ = ["S4ECA", "Capabilities", "Context", "Frozen", "FullFineTuning", "Join", "LoRA", "TuningMethod", "Walk"]
