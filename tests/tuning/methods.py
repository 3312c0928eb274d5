"""The methods that the contract suite runs; a new method is one line in METHODS."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from s4eca.fusion.film import FiLM
from s4eca.fusion.pwam import PWAM
from s4eca.tuning import S4ECA, TuningMethod
from s4eca.tuning.s4eca import TextSettings, VisualSettings

TEXT = {"width": 16, "heads": 2, "proxies": 3, "density": 0.75}
VISUAL = {"width": 8}


def s4eca(text: dict[str, Any] | None = None, visual: dict[str, Any] | None = None, **options: Any) -> S4ECA:
    return S4ECA(TextSettings(**TEXT | (text or {})), VisualSettings(**VISUAL | (visual or {})), **options)


def method(module: str, name: str, **options: Any) -> Callable[[], TuningMethod]:
    """Builds `s4eca.tuning.MODULE.NAME`, imported when it is called."""
    return lambda: getattr(import_module(f"s4eca.tuning.{module}"), name)(**options)


@dataclass
class Case:
    """A method with its settings.

    Attributes:
        method: builds it.
        fusion: what it needs beside it.
        every: False for an ablation, run through the gradient and padding promises only.
        backwards: by then everything learned has received a gradient.
        refuses: tower families that it refuses by name.
        others: settings for a vision family that needs other ones.
    """

    method: Callable[[], TuningMethod]
    fusion: Any = None
    every: bool = True
    backwards: int = 3
    refuses: tuple[str, ...] = ()
    others: dict[str, Callable[[], TuningMethod]] | None = None


METHODS = {
    "s4eca": Case(s4eca),
    "s4eca_compare": Case(partial(s4eca, None, {"positions": True, "compare": True})),
    "s4eca_dropout": Case(partial(s4eca, {"dropout": 0.3}, {"dropout": 0.3})),
    "full": Case(method("full", "FullFineTuning"), PWAM),
    "full_lavt": Case(method("full", "FullFineTuning", text_layers=3), partial(PWAM, feedback=True)),
    "frozen": Case(method("frozen", "Frozen"), FiLM),
    "lora": Case(method("lora", "LoRA", rank=4), PWAM, refuses=("convnext",)),
    "lora_all": Case(method("lora", "LoRA", rank=4, text_layers="all", vision_layers="all"), PWAM),
    "houlsby": Case(method("bottleneck", "Bottleneck", width=8, form="houlsby"), PWAM),
    "adaptformer": Case(method("bottleneck", "Bottleneck", width=8, form="adaptformer"), PWAM),
    "mona": Case(method("mona", "Mona", width=8), PWAM),
    "bitfit": Case(method("bitfit", "BitFit"), PWAM),
    "norm": Case(method("norm", "NormTuning"), PWAM),
    "prompt": Case(method("prompt", "DeepPrompts", tokens=3), PWAM),
    "etris": Case(method("etris", "ETRIS", width=16, heads=2), PWAM),
    "detris": Case(method("detris", "DETRIS", width=16, text_width=16, heads=2), PWAM),
    "cola": Case(method("cola", "CoLA", rank=4), PWAM),
    "s4eca_words": Case(partial(s4eca, language="words"), every=False),
    "s4eca_words_alone": Case(partial(s4eca, {"enabled": False}, language="words"), every=False),
    "s4eca_mean_word": Case(partial(s4eca, language="mean_word"), every=False),
    "s4eca_mean_word_context": Case(partial(s4eca, None, {"gate": False}, language="mean_word"), every=False),
    "s4eca_routed": Case(partial(s4eca, routing=[1, 1, 2, 3]), every=False),
    "s4eca_fresh_queries": Case(partial(s4eca, {"recurrent": False}), every=False),
    "s4eca_one_proxy": Case(partial(s4eca, {"proxies": 1}), every=False),
    "s4eca_not_dense": Case(partial(s4eca, None, {"dense": False}), every=False),
    "s4eca_no_extractor": Case(partial(s4eca, None, {"kernels": [], "scale": "uniform"}), every=False),
    "s4eca_single_kernel": Case(partial(s4eca, None, {"kernels": [3], "scale": "uniform"}), every=False),
    "s4eca_uniform": Case(partial(s4eca, None, {"scale": "uniform"}), every=False),
    "s4eca_text_scale": Case(partial(s4eca, None, {"scale": "text", "granularity": "scalar"}), every=False),
    "s4eca_visual_scale": Case(partial(s4eca, None, {"scale": "visual"}), every=False),
    "s4eca_gate_only": Case(partial(s4eca, None, {"context": False}), every=False),
    "s4eca_context_only": Case(partial(s4eca, None, {"gate": False}), every=False),
    # three zero-initialised layers in a row: visual up, scale choice, text up
    "s4eca_no_spatial": Case(partial(s4eca, None, {"gate": False, "context": False}), every=False, backwards=4),
    "s4eca_no_language": Case(
        partial(s4eca, {"enabled": False}, {"scale": "visual", "gate": False, "context": False}), PWAM, every=False
    ),
    "s4eca_compare_all": Case(partial(s4eca, None, {"gate": False, "compare": True}), every=False),
    "s4eca_positions": Case(partial(s4eca, None, {"positions": True}), every=False),
    "s4eca_late": Case(partial(s4eca, None, {"density": [0, 0, 0, 1]}), every=False),
    "s4eca_text_only": Case(partial(s4eca, None, {"density": [0, 0, 0, 0]}), PWAM, every=False),
}
FULL_PROMISES = [name for name, case in METHODS.items() if case.every]
