"""Running the commands as a user would, in processes of their own: new ones, or forked ones, which start sooner."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from forked import start_script
from s4eca.cli.config import plain
from s4eca.cli.eval import evaluate_composed
from s4eca.cli.training import train as run_training

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT.parent / "shared" / "data"

# the demo's network and data, shrunk until one step takes a tenth of a second
TINY = [
    "experiment=demo",
    "image_size=64",
    "vision.options.embed_dim=16",
    "vision.options.num_heads=[1,2,4,8]",
    "text.options.hidden_size=32",
    "text.options.num_hidden_layers=2",
    "text.options.num_attention_heads=2",
    "tuning.text.width=16",
    "tuning.text.heads=2",
    "tuning.visual.width=8",
    "decoder.width=8",
    "trainer.accelerator=cpu",
]


def environment() -> dict[str, str]:
    # without WANDB_SERVICE: a test that has used wandb in this process leaves its server's address there
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {**inherited, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


def run(*command: str, cwd: Path, expect: int = 0, env: dict[str, str] | None = None, timeout: float = 600) -> str:
    """Runs `python …` and returns what it printed; fails with that where the exit status is another."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**environment(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == expect, f"{' '.join(command)} ended with {done.returncode}:\n{printed}"
    return printed


def train(*overrides: str, cwd: Path, expect: int = 0, timeout: float = 600) -> str:
    """Runs `python train.py …` and returns what it printed."""
    return _forked("train.py", *overrides, cwd=cwd, expect=expect, timeout=timeout)


def evaluate(*overrides: str, cwd: Path, expect: int = 0, timeout: float = 600) -> str:
    """Runs `python eval.py …` and returns what it printed."""
    return _forked("eval.py", *overrides, cwd=cwd, expect=expect, timeout=timeout)


def s4eca(*words: str, cwd: Path, expect: int = 0, timeout: float = 600) -> str:
    """Runs `s4eca …` and returns what it printed."""
    return _forked("s4eca/__main__.py", *words, cwd=cwd, expect=expect, timeout=timeout)


def _forked(script: str, *words: str, cwd: Path, expect: int, timeout: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "printed"
        process = start_script(ROOT / script, words, cwd=cwd, printed=file, env=environment())
        process.join(timeout=timeout)
        process.kill()
        printed = file.read_text()
    assert process.exitcode == expect, f"{script} {' '.join(words)} ended with {process.exitcode}:\n{printed}"
    return printed


def train_here(*overrides: str, folder: Path) -> None:
    """Trains in this process, which saves the ten seconds that a new one needs for its imports."""
    run_training(composed(*overrides), folder)


def evaluate_here(*overrides: str) -> None:
    """Evaluates in this process."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("eval", overrides=list(overrides))
    evaluate_composed(config)


def train_until(ready: Callable[[], bool], signal: int, *overrides: str, cwd: Path) -> int:
    """Starts a training, sends it a signal as soon as `ready()` is true, and returns its exit status.

    The signal goes to all its processes, as from `timeout`, `scancel`, a terminal or a container.
    """
    log = cwd / "killed.log"
    process = start_script(ROOT / "train.py", overrides, cwd=cwd, printed=log, env=environment())
    os.setpgid(process.pid, process.pid)
    deadline = time.monotonic() + 300
    while not ready() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.is_alive(), log.read_text()
    os.killpg(process.pid, signal)
    process.join(timeout=120)
    return process.exitcode


def composed(*overrides: str) -> dict:
    """Composes `train.yaml` with overrides, in this process, into plain values."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # the run's name is made of the choices
    with open_dict(config):
        del config["hydra"]
    return plain(config)
