"""Processes of a test, forked: a new one would import everything anew, which takes ten seconds and more."""

import os
import runpy
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

FORK = torch.multiprocessing.get_context("fork")


def start_script(
    script: Path, arguments: Sequence[str], *, cwd: Path, printed: Path, env: Mapping[str, str]
) -> BaseProcess:
    """Starts a Python file as a command, with all that it prints in a file."""
    process = FORK.Process(target=_run_script, args=(script, arguments, cwd, printed, env))
    process.start()
    return process


def _run_script(script: Path, arguments: Sequence[str], cwd: Path, printed: Path, env: Mapping[str, str]) -> None:
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    # pytest has put its own in their place
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [str(script), *arguments]
    GlobalHydra.instance().clear()  # what the test has composed
    HydraConfig.instance().cfg = None
    runpy.run_path(str(script), run_name="__main__")


def in_two(job: Callable[..., None], *arguments, timeout: float = 300) -> None:
    """Calls `job(rank, port, *arguments)` in two processes with a free port in common; fails where one of them does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [FORK.Process(target=job, args=(rank, port, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=timeout)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
