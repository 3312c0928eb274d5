"""Search spaces and studies that the tests of sweeps share."""

import copy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import s4eca.sweep.composing
from s4eca.sweep.space import Space, load_space
from s4eca.sweep.storage import open_storage
from s4eca.sweep.study import join_study
from s4eca.sweep.worker import Worker

SPACE = """
metric: val/mIoU
direction: maximize
sampler: {name: tpe, seed: 3, n_startup_trials: 2}
pruner: {name: median, n_startup_trials: 2, n_warmup_steps: 1}
space:
  model.lr: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
  tuning.visual.width: {type: int, low: 8, high: 16, step: 8}
  tuning.visual.kernels: {choices: [[1, 3], [1, 3, 5]]}
  fusion: {choices: [none, film]}
"""
CONFIG = {"seed": 0, "trainer": {"max_steps": 6}, "data": {"root": "here"}}

_composed: dict[tuple[str, ...], tuple] = {}


def compose_once(monkeypatch) -> None:
    """Lets tests share composed configs: the same overrides give the same one, and take a quarter of a second."""
    compose = s4eca.sweep.composing._compose

    def remembered(overrides):
        if tuple(overrides) not in _composed:
            _composed[tuple(overrides)] = compose(overrides)
        return copy.deepcopy(_composed[tuple(overrides)])

    monkeypatch.setattr(s4eca.sweep.composing, "_compose", remembered)


def made_space(folder: Path, text: str = SPACE) -> Space:
    (folder / "space.yaml").write_text(text)
    return load_space(str(folder / "space.yaml"))


@cache
def _empty_database() -> bytes:
    """What Optuna makes of a new file, which takes it a second on a busy machine."""
    with TemporaryDirectory() as folder:
        open_storage(f"sqlite:///{folder}/study.db", 60, max_retry=1).engine.dispose()
        return Path(folder, "study.db").read_bytes()


def made_worker(folder: Path, space: Space | None = None, heartbeat: int = 60, **options) -> Worker:
    space = space or made_space(folder)
    if not (folder / "study.db").exists():
        (folder / "study.db").write_bytes(_empty_database())
    storage = open_storage(f"sqlite:///{folder}/study.db", heartbeat, max_retry=1)
    study = join_study("made", storage, space, CONFIG, [])
    return Worker(study, storage, space, [], folder / "runs", **options)
