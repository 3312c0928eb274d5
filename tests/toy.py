"""A whole training in miniature: drawn scenes, tiny towers, a trainer on one thread."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from s4eca.build import build_trainer
from s4eca.data import SyntheticDataModule
from s4eca.decoders.fpn import FPNDecoder
from s4eca.lit import CSVLog, RandomState, ReferringModule
from s4eca.losses import BCEDice
from s4eca.segmenter import ReferringSegmenter
from s4eca.tuning import S4ECA, TuningMethod
from s4eca.tuning.s4eca import TextSettings, VisualSettings
from tiny import SIZE, tiny_text, tiny_vision

CONFIG = {"_target_": "lightning.pytorch.Trainer", "accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0}


def toy_data(root: Path, **options: Any) -> SyntheticDataModule:
    settings = {"train": 24, "val": 6, "test": 6, "scene_size": 64, "image_size": SIZE, "batch_size": 4}
    data = SyntheticDataModule(root=root, num_workers=0, **{**settings, **options})
    data.prepare_data()
    data.tokenizer = tiny_text().load_tokenizer()
    return data


def toy_method(dropout: float = 0.2) -> TuningMethod:
    text = TextSettings(width=16, heads=2, proxies=2, dropout=dropout)
    return S4ECA(text, VisualSettings(width=8, density=[0, 0, 0.5, 1], kernels=[1, 3], dropout=dropout))


def toy_module(
    seed: int = 0, method: TuningMethod | None = None, vision_seed: int = 0, fusion: Any = None, **options: Any
) -> ReferringModule:
    torch.manual_seed(seed)
    network = ReferringSegmenter(
        tiny_text(), tiny_vision(seed=vision_seed), method or toy_method(), partial(FPNDecoder, width=8), fusion
    )
    return ReferringModule(network, BCEDice(), **{"lr": 3e-3, "warmup_steps": 2, **options})


def toy_trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    settings = {**CONFIG, "max_epochs": 2, "log_every_n_steps": 1, "enable_progress_bar": False, **options}
    return build_trainer({"trainer": settings}, folder, list(callbacks), [CSVLog(folder)])


def every_step(folder: Path, steps: int = 1) -> ModelCheckpoint:
    """Keeps a checkpoint of every step, as `step=N.ckpt`."""
    return ModelCheckpoint(folder / "checkpoints", filename="{step}", every_n_train_steps=steps, save_top_k=-1)


def fit(module: ReferringModule, data: SyntheticDataModule, trainer: Trainer, resume: Path | None = None) -> None:
    trainer.fit(module, data, ckpt_path=str(resume) if resume else None, weights_only=True)


__all__ = ["RandomState", "every_step", "fit", "toy_data", "toy_method", "toy_module", "toy_trainer"]
