"""The networks that the benchmarks measure, in two sizes: weights are random, which cost as much as trained ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir

from s4eca.cli.config import conf_dir, plain


@dataclass(frozen=True)
class Preset:
    """Towers and image size.

    Attributes:
        overrides: of `train.yaml`.
        image_size: pixels a side.
    """

    overrides: tuple[str, ...]
    image_size: int


PRESETS = {
    "tiny": Preset(("vision=swin_demo", "text=bert_demo"), 64),
    "base": Preset(("vision=swin_base", "text=bert_base", "vision.weights=random", "text.weights=random"), 480),
}


def compose_preset(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns `train.yaml` composed with a preset's overrides, then with others that may differ from it.

    Raises:
        MissingConfigException: an override names a config that is not there.
    """
    preset = PRESETS[name]
    common = ["decoder=fpn", "loss=bce_dice", "name=benchmark", f"image_size={preset.image_size}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return plain(compose("train", overrides=[*common, *preset.overrides, *overrides]))
