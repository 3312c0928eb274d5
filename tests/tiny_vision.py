"""Tiny random vision towers, one per family; a new family is one entry of VISION."""

from typing import Any

from s4eca.towers import ConvNextTower, SwinTower, ViTTower
from s4eca.towers.base import VisionTower

SIZE = 64
SWIN = {"embed_dim": 16, "depths": [2, 2, 3, 2], "num_heads": [1, 2, 4, 8], "window_size": 4}
CONVNEXT = {"dims": [16, 24, 32, 48], "depths": [2, 1, 2, 1]}
# layer scale 1: at DINO's own 1e-5 the branches of an untrained model are as good as closed
VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2, "init_values": 1.0}
NAMES = {
    "swin": "swin_tiny_patch4_window7_224",
    "swinv2": "swinv2_tiny_window8_256",
    "convnext": "convnext_tiny",
    "vit": "vit_small_patch14_reg4_dinov2",
    "dinov3": "vit_small_patch16_dinov3",
}


def _swin(family: str, seed: int, options: dict[str, Any]) -> SwinTower:
    tower = SwinTower(NAMES[family], weights="random", seed=seed, image_size=SIZE, options={**SWIN, **options})
    if family == "swinv2":  # untrained, its norms are zero and close every branch
        for step in tower.steps:
            tower.block(step.index).norm1.weight.fill_(1.0)
            tower.block(step.index).norm2.weight.fill_(1.0)
    return tower


def _convnext(family: str, seed: int, options: dict[str, Any]) -> ConvNextTower:
    options = {**CONVNEXT, "ls_init_value": 1.0, **options}
    return ConvNextTower(NAMES[family], weights="random", seed=seed, image_size=SIZE, options=options)


def _vit(family: str, seed: int, options: dict[str, Any]) -> ViTTower:
    options = {**VIT, "patch_size": 16, **options}
    return ViTTower(NAMES[family], weights="random", seed=seed, image_size=SIZE, options=options)


VISION = {
    "swin": _swin,
    "swinv2": _swin,
    "convnext": _convnext,
    "vit": _vit,
    "dinov3": _vit,
}


def tiny_vision(family: str = "swin", seed: int = 0, **options: Any) -> VisionTower:
    return VISION[family](family, seed, options)
