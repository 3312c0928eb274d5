"""Two processes of one test, forked: spawned, each would import everything anew."""

import socket
from collections.abc import Callable

import torch


def in_two(job: Callable[..., None], *arguments, timeout: float = 300) -> None:
    """Calls `job(rank, port, *arguments)` in two processes with a free port in common; fails where one of them does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    processes = [context.Process(target=job, args=(rank, port, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=timeout)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
