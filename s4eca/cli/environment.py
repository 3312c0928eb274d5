"""What a run runs on, as its `environment.json` states it."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("s4eca", "torch", "torchvision", "lightning", "transformers", "timm", "hydra-core", "peft", "numpy")


def command_line() -> str:
    """Returns the command of this process, as a shell reads it."""
    first = Path(sys.argv[0]).name  # `s4eca eval` where its words are handed over to Hydra
    return shlex.join([*(first.split() if first.startswith("s4eca") else ("python", first)), *sys.argv[1:]])


def environment() -> dict[str, Any]:
    """Returns command, machine, versions and the repository's commit, as plain values."""
    try:
        here = Path(__file__).parent
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "git": commit,
    }
